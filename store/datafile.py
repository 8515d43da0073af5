"""Looking at an LMDB data file before it is mapped.

A memory map that is longer than its file kills the process (SIGBUS) on the first touch of a
missing page, so a truncated file must be noticed without LMDB.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from lmdb import verify

from store.errors import NotAStore, StoreDamaged

DATA_FILE = "data.mdb"

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_ADDRESSES = 1 << 47
_PAGE_HEADER_BYTES = 16
_META = struct.Struct("=IIQQ I92s QQ")
"""magic, version, address, map size, page size, two table roots, last page, transaction."""

_PAGE_COUNT = re.compile(
    r"main/\w+ DB: walked (?P<own>\d+) (?:branch|leaf) pages"
    r"(?: \((?P<all>\d+) with dup sub-trees\))?, record says (?P<said>\d+)"
)

# Room that is lost, and nothing else: what is stored is all there. After some ten thousand kills
# of writers LMDB 0.9.36 had once forgotten its list of free pages.
_LOST = re.compile(r"\d+ page\(s\) are neither reachable nor in the freeDB")


@dataclass(frozen=True, slots=True)
class DataFile:
    """What the newest header page of a data file says."""

    map_bytes: int
    page_bytes: int
    last_page: int


def data_path(folder: Path) -> Path:
    """Return the path of the data file of a store."""
    return folder / DATA_FILE


def inspect(folder: Path) -> DataFile | None:
    """Read the header of a store's data file, and compare it with the file's length.

    Returns:
        None where there is no data file or an empty one, which LMDB takes for a new store.

    Raises:
        NotAStore: The file is no LMDB file of the format in use.
        StoreDamaged: The file ends before its last page in use.
    """
    path = data_path(folder)
    try:
        with path.open("rb") as file:
            head = file.read(_PAGE_HEADER_BYTES + _META.size)
            if not head:
                return None
            newest = _newest_header(file.fileno(), head, path)
            # Asked for last: another process may have appended pages since the header was read.
            length = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    if length < (newest.last_page + 1) * newest.page_bytes:
        _insist_on_whole(path, length, newest)
    return newest


def page_problems(folder: Path | str) -> list[str]:
    """Walk all pages of a store without LMDB, and return what is wrong with them.

    LMDB trusts its pages: flipped bits in them can kill the process that opens the store,
    which this walk survives. It takes about a second for 400 MB.

    Args:
        folder: Folder of the store; nothing may be written to it meanwhile.

    Returns:
        A sentence for each problem; room that nobody can use any more is none.
    """
    try:
        found = list(verify.verify(data_path(Path(folder))))  # type: ignore[no-untyped-call]
    except verify.VerifyError as error:
        return [str(error)]
    return [problem for problem in found if not (_is_miscount(problem) or _LOST.match(problem))]


def _is_miscount(problem: str) -> bool:
    """Tell whether LMDB only counts more pages of a table than it has.

    LMDB 0.9.36 goes on counting the pages of a list of duplicates that was deleted whole, as a
    bucket is when its last image goes. The count is shown by `stat` and used for nothing.
    """
    count = _PAGE_COUNT.fullmatch(problem)
    return count is not None and int(count["said"]) > int(count["all"] or count["own"])


def _newest_header(descriptor: int, head: bytes, path: Path) -> DataFile:
    first, first_txn = _parse(head, path)
    second_head = os.pread(descriptor, len(head), first.page_bytes)
    if not second_head:
        # Another process is creating the file just now: LMDB waits for it.
        return first
    second, second_txn = _parse(second_head, path)
    return second if second_txn > first_txn else first


def _parse(head: bytes, path: Path) -> tuple[DataFile, int]:
    if len(head) < _PAGE_HEADER_BYTES + _META.size:
        raise StoreDamaged(f"{path} ends within its header; restore a backup")
    magic, version, _, map_bytes, page_bytes, _, last_page, txn = _META.unpack_from(
        head, _PAGE_HEADER_BYTES
    )
    if magic != _MAGIC or version != _VERSION or page_bytes < len(head):
        raise NotAStore(f"{path} is not a store's data file; take another path")
    if map_bytes > _ADDRESSES:
        raise StoreDamaged(f"{path} has an impossible header; restore a backup")
    return DataFile(map_bytes, page_bytes, last_page), txn


def _insist_on_whole(path: Path, length: int, header: DataFile) -> None:
    """Let a short file pass only if all that is missing is free pages, never to be read."""
    problems = page_problems(path.parent)
    if problems:
        needed = (header.last_page + 1) * header.page_bytes
        raise StoreDamaged(
            f"{path} has {length} bytes of at least {needed}: it was cut off; restore a backup"
        )
