"""Uploaded files: streamed to temporary files, and named by a label that means nothing."""

from __future__ import annotations

import tempfile
import unicodedata
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from flask import Request

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage

MAX_FILES = 400
"""Files in one request; each may hold an open temporary file while it is read."""

_LABEL_CHARS = 120
_MEMORY_BYTES = 64 << 10


class UploadRequest(Request):
    """A request whose files stay in memory only while they are tiny."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open = ExitStack()

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        # werkzeug's own bound of 500 kB for each file is 200 MB in memory for 400 files.
        return self._open.enter_context(
            cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, mode="rb+"))
        )

    def close(self) -> None:
        """Close the files, also those of a form that was refused half-way."""
        super().close()
        self._open.close()


def named_stream(file: FileStorage) -> tuple[str, BinaryIO]:
    """Return a label for an uploaded file, and its bytes."""
    return label_of(file.filename or ""), cast(BinaryIO, file.stream)


def label_of(filename: str) -> str:
    """Return a client's file name as a short line of visible text.

    It is shown to people and never used as a path. Folders are cut off, and so is what could
    break a line, hide text or turn its direction.

    Args:
        filename: Whatever the client sent.
    """
    base = filename.replace("\\", "/").rpartition("/")[2]
    visible = "".join(char if _is_visible(char) else " " for char in base)
    return " ".join(visible.split())[:_LABEL_CHARS] or "unnamed"


def _is_visible(char: str) -> bool:
    return not unicodedata.category(char).startswith("C")
