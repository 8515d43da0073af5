"""What a backup says of itself: the files of a collection, each under its checksum."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from store.errors import NotAStore, StoreDamaged, StoreVersionError
from store.layout import FORMAT
from store.swapping import flush

BACKUP_FORMAT = 1

MANIFEST = "manifest.json"
FILES = "files"

_PATH = re.compile(r"[^/.][^/]*/(data\.mdb|segments/\d{8}-\d{8}\.segment)")
CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Filed:
    """A file of a collection.

    Attributes:
        path: Where it belongs, below the folder of the shards.
        size: In bytes.
        sha256: Of its bytes, as 64 hex digits; its name in the backup.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A backup.

    Attributes:
        date: When it was begun, in UTC as ISO 8601.
        bundle: Bundle that the collection was built with.
        images: Images of all shards.
        shards: Names of the shards.
        files: All files.
        format: Of the manifest and of how files lie in the backup.
        store_format: Of the shards.
    """

    date: str
    bundle: str
    images: int
    shards: tuple[str, ...]
    files: tuple[Filed, ...]
    format: int = BACKUP_FORMAT
    store_format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a backup.

        Raises:
            NotAStore: There is no backup.
            StoreVersionError: A later version wrote it.
            StoreDamaged: It is no manifest.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise NotAStore(f"there is no backup in {folder}; check the path")
        try:
            return cls._of(json.loads(path.read_text(encoding="utf-8")), folder)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreDamaged(f"{path} is no manifest; take another backup") from error

    @classmethod
    def _of(cls, plain: dict[str, Any], folder: Path) -> Self:
        if plain["format"] > BACKUP_FORMAT or plain["store_format"] > FORMAT:
            raise StoreVersionError(
                f"the backup in {folder} was made by a later version; upgrade lookalike"
            )
        files = tuple(Filed(**each) for each in plain.pop("files"))
        whole = cls(**{**plain, "files": files, "shards": tuple(plain["shards"])})
        for file in files:
            known = file.path.partition("/")[0] in whole.shards
            if not (known and _PATH.fullmatch(file.path) and CHECKSUM.fullmatch(file.sha256)):
                raise ValueError(f"expected files of a store, got {file.path!r}")
        return whole

    def write(self, folder: Path) -> None:
        """Put this manifest in the place of the one before, durably."""
        part = folder / f"{MANIFEST}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / MANIFEST)
        flush(folder)

    def missing(self, folder: Path) -> Iterator[Filed]:
        """Yield the files that a backup lacks, or that have another size there."""
        for file in self.files:
            size = -1
            with suppress(FileNotFoundError):
                size = stored(folder, file.sha256).stat().st_size
            if size != file.size:
                yield file


def stored(folder: Path, sha256: str) -> Path:
    """Return where a backup has a file."""
    return folder / FILES / sha256
