"""One server for each data directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from workers.errors import Conflict, Unavailable


class ServerLock:
    """Held by a server for as long as it runs; a context manager.

    The kernel gives the lock back when the process ends, however it ends. Who holds it stands in
    a file of its own, because locking empties the file that is locked.

    Args:
        data_dir: Where the collection lives; made if it is not there.

    Raises:
        Conflict: Another server holds the directory.
        Unavailable: The directory cannot be written to.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = FileLock(data_dir / "server.lock", timeout=0)

    def __enter__(self) -> Self:
        make_data_dir(self._data_dir)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise Conflict(
                f"Another server has the data directory {self._data_dir}: "
                f"{_shown(_read(self._data_dir))}.",
                remedy="Use that one, stop it, or choose another --data-dir.",
                code="server_running",
            ) from error
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        _holder(self._data_dir).unlink(missing_ok=True)
        self._lock.release()

    def announce(self, url: str) -> None:
        """Let others know where the server listens."""
        self._write(url=url)

    def _write(self, **known: str) -> None:
        whole = json.dumps({"pid": os.getpid(), **known})
        part = _holder(self._data_dir).with_suffix(".part")
        part.write_text(whole)
        part.replace(_holder(self._data_dir))


def server_of(data_dir: Path) -> dict[str, Any] | None:
    """Return the ``pid`` and, once it listens, the ``url`` of a directory's server, or None."""
    if not (data_dir / "server.lock").exists():
        return None
    try:
        with FileLock(data_dir / "server.lock", timeout=0):
            return None
    except Timeout:
        return _read(data_dir)


def make_data_dir(data_dir: Path) -> None:
    """Make the data directory if it is not there.

    Raises:
        Unavailable: It cannot be made or written to.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        writable = os.access(data_dir, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unusable(data_dir, error.strerror or str(error)) from error
    if not writable:
        raise _unusable(data_dir, "no permission to write there")


def _unusable(data_dir: Path, why: str) -> Unavailable:
    return Unavailable(
        f"The data directory {data_dir} cannot be used: {why}.",
        remedy="Choose another with --data-dir or LOOKALIKE_DATA_DIR.",
        code="data_dir",
    )


def _holder(data_dir: Path) -> Path:
    return data_dir / "server.json"


def _read(data_dir: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_holder(data_dir).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _shown(holder: dict[str, Any]) -> str:
    process = f"process {holder.get('pid', 'unknown')}"
    return f"{process} at {holder['url']}" if "url" in holder else f"{process}, which is starting"
