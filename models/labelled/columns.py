"""A `.npy` file that grows row by row."""

import io
import os
import sys
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_DTYPE = np.dtype("<f4")


class Column:
    """Rows of float32 on disk; `finish` makes them a file that `numpy.load` reads.

    Written by plain calls without a buffer, and not through a memory map: on a full disk they
    raise `OSError`, where a map would kill the process. What was added survives the process.
    """

    def __init__(self, path: Path, width: int) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._width = width

    @property
    def rows(self) -> int:
        """How many whole rows the file holds; columns without width hold any number."""
        size = os.fstat(self._file.fileno()).st_size - len(self._header(0))
        return max(0, size) // (self._width * _DTYPE.itemsize) if self._width else sys.maxsize

    def cut(self, rows: int) -> None:
        """Go on after so many rows; what follows them is dropped."""
        self._write(0, self._header(0))
        self._file.truncate(self._end(rows))

    def add(self, at: int, rows: NDArray[np.float32]) -> None:
        """Write shape=(N, width), dtype=float32 behind the first `at` rows."""
        self._write(self._end(at), np.ascontiguousarray(rows, _DTYPE).tobytes())

    def finish(self, rows: int) -> None:
        """Say in the header how many rows there are, and put everything onto the disk."""
        self._write(0, self._header(rows))
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _end(self, rows: int) -> int:
        return len(self._header(0)) + rows * self._width * _DTYPE.itemsize

    def _header(self, rows: int) -> bytes:
        """Return NumPy's header, which leaves room for the number of rows to grow."""
        buffer = io.BytesIO()
        fields = {"descr": npy.dtype_to_descr(_DTYPE), "fortran_order": False}
        npy.write_array_header_1_0(buffer, {**fields, "shape": (rows, self._width)})
        return buffer.getvalue()
