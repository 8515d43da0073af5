"""What a test must not leave behind: threads, child processes, open files."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTLE_S = 5.0
# The ledger's pool belongs to a client, which may outlive the test; its threads may not.
KEPT_FILES = ("ledger.sqlite",)
# matplotlib reads the letters of its next figure from the fonts that it has open, and a shard maps
# a segment when a search first needs it, for as long as the shard is open.
KEPT_KINDS = (".ttf", ".segment")
# Started once by the standard library and kept until the process ends.
KEPT_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@contextmanager
def no_leaks() -> Iterator[None]:
    """Fail if the block leaves threads, child processes or open files behind.

    Something that is about to end gets 5 seconds for it.
    """
    before = _alive()
    yield
    deadline = time.monotonic() + SETTLE_S
    while leaked := _alive() - before:
        gc.collect()
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {', '.join(sorted(leaked))}")
        time.sleep(0.02)


def _alive() -> Counter[str]:
    return Counter([*_threads(), *_children(), *_files()])


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        yield f"thread {thread.name} ({thread.ident})"


def _children() -> Iterator[str]:
    for task in Path("/proc/self/task").iterdir():
        for pid in _read(task / "children").split():
            command = _read(Path("/proc", pid, "cmdline")).replace("\0", " ").strip()
            if command and not any(kept in command for kept in KEPT_PROCESSES):
                yield f"process {command}"  # a restarted one counts as the same


def _files() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = descriptor.readlink()
        except FileNotFoundError:  # the listing's own descriptor
            continue
        kept = target.name.startswith(KEPT_FILES) or target.name.endswith(KEPT_KINDS)
        if target.is_file() and not kept:
            yield f"file {target}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
