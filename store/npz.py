"""Exported images as .npz: arrays that `numpy.load` reads, without pickles.

| array | shape, dtype | |
|---|---|---|
| `spec` | (), text | JSON: bundle, bits, dims, metric, centres |
| `id` | (N,), S32 | first 16 bytes of sha256, in hex |
| `code` | (N, W), uint8 | most significant bit first |
| `feature` | (N, D), float32 | or, as stored: `values`, int8, and `scale`, (N,), float32 |
| `added_at` | (N,), float64 | Unix time |
| `width`, `height` | (N,), int32 | pixels |
| `size` | (N,), int64 | bytes of the file |
| `texts` | (T,), uint8 | JSON of all images on end: sources, labels, origin, format |
| `text_ends` | (N,), int64 | where the JSON of each image ends |

Features are written into the archive as they come; the small columns are kept in files beside it
and follow.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from store.errors import TransferError
from store.spec import Image
from store.transfer import (
    Chunk,
    Header,
    chunk_images,
    default_source,
    spec_from_json,
    spec_to_json,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBERS = {"added_at": "<f8", "width": "<i4", "height": "<i4", "size": "<i8"}
_FIELDS = {
    "added_at": "added_at",
    "width": "width_px",
    "height": "height_px",
    "size": "size_bytes",
}
_TEXTS = ("sources", "labels", "origin", "format")
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile)


@contextmanager
def writing(path: Path, header: Header) -> Iterator[_NpzWriter]:
    """Write a new file; the header must have a spec."""
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as spool,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        writer = _NpzWriter(archive, header, Path(spool))
        with writer.features():
            yield writer
        writer.finish()


@contextmanager
def reading(path: Path) -> Iterator[_NpzReader]:
    """Read a file.

    Raises:
        TransferError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as stack:
            yield _NpzReader(path, archive, stack)
    except _UNREADABLE as error:
        raise TransferError(
            f"{path} cannot be read: {error}; copy it here once more, or export it again"
        ) from error


class _NpzWriter:
    def __init__(self, archive: zipfile.ZipFile, header: Header, spool: Path) -> None:
        if header.spec is None:
            raise ValueError("expected the spec of a collection")
        self._spec = header.spec
        self._archive, self._header, self._spool = archive, header, spool
        self._dtypes = {"id": "S32", "code": "u1", **_NUMBERS, "texts": "u1", "text_ends": "<i8"}
        if header.stored:
            self._dtypes["scale"] = "<f4"
        self._text_bytes = 0
        self._features: IO[bytes] | None = None
        self._columns: dict[str, IO[bytes]] = {}

    @contextmanager
    def features(self) -> Iterator[None]:
        """Have the member for features open, and files for the columns that follow."""
        name, kind = ("values", "i1") if self._header.stored else ("feature", "<f4")
        shape = (self._header.count, self._spec.dims)
        with ExitStack() as stack:
            self._features = stack.enter_context(self._member(name, kind, shape))
            for column in self._dtypes:
                file = (self._spool / column).open("wb")
                self._columns[column] = stack.enter_context(file)
            yield

    def write(self, chunk: Chunk) -> None:
        """Append images."""
        texts = [_text(image) for image in chunk.images]
        ends = self._text_bytes + np.cumsum([len(text) for text in texts])
        self._text_bytes = int(ends[-1]) if len(ends) else self._text_bytes
        self._put("id", [image.id.encode() for image in chunk.images])
        self._put("code", chunk.codes)
        for name, field in _FIELDS.items():
            self._put(name, [getattr(image, field) for image in chunk.images])
        self._put("texts", np.frombuffer(b"".join(texts), np.uint8))
        self._put("text_ends", ends)
        if chunk.scales is not None:
            self._put("scale", chunk.scales)
        if self._features is not None:
            self._features.write(np.ascontiguousarray(chunk.values).data.cast("B"))

    def finish(self) -> None:
        """Put the columns into the archive."""
        count = self._header.count
        shapes = {"code": (count, self._spec.code_bytes), "texts": (self._text_bytes,)}
        for name, kind in self._dtypes.items():
            with (
                self._member(name, kind, shapes.get(name, (count,))) as member,
                (self._spool / name).open("rb") as column,
            ):
                shutil.copyfileobj(column, member, 1 << 20)
        spec = np.array(spec_to_json(self._spec))
        with self._archive.open("spec.npy", "w") as member:
            np.lib.format.write_array(member, spec)

    def _put(self, name: str, column: Any) -> None:
        self._columns[name].write(np.asarray(column, self._dtypes[name]).tobytes())

    @contextmanager
    def _member(self, name: str, kind: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
        described = np.lib.format.dtype_to_descr(np.dtype(kind))
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": described, "fortran_order": False, "shape": shape}
            )
            yield member


class _Column:
    """An array of an archive that is read from its beginning to its end."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"the array {name} is of an unknown format")
        self.shape, fortran, self.dtype = read(file)
        if fortran and len(self.shape) > 1:
            raise ValueError(f"the array {name} is in Fortran's order; save it in C's")
        if self.dtype.hasobject:
            raise ValueError(f"the array {name} holds objects; save plain numbers and text")
        self._file, self._name = file, name

    def take(self, count: int) -> NDArray[Any]:
        """Return the next rows."""
        shape = (count, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        found = self._file.read(size)
        if len(found) != size:
            raise EOFError(f"the array {self._name} ends early")
        return np.frombuffer(found, self.dtype).reshape(shape)

    def everything(self) -> NDArray[Any]:
        """Return the array."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.frombuffer(self._file.read(size), self.dtype).reshape(self.shape)


class _NpzReader:
    """Reads all arrays side by side."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, stack: ExitStack) -> None:
        self._path = path
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        self._columns = {
            name: _Column(stack.enter_context(archive.open(f"{name}.npy")), name) for name in names
        }
        stored = "values" in names
        lacking = {"id", "code", *(("values", "scale") if stored else ("feature",))} - names
        if lacking:
            raise ValueError(f"it lacks the array {min(lacking)}")
        self._features = self._columns["values" if stored else "feature"]
        count = self._columns["id"].shape[0]
        for name in names - {"spec", "texts"}:
            if self._columns[name].shape[:1] != (count,):
                raise ValueError(f"the array {name} is not as long as id")
        self.header = Header(self._spec(), stored, count)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all images."""
        done, text_end = 0, 0
        step = chunk_images(self._features.shape[1])
        while done < self.header.count:
            count = min(step, self.header.count - done)
            taken = {
                name: column.take(count)
                for name, column in self._columns.items()
                if name not in ("spec", "texts")
            }
            texts, text_end = self._texts(taken.get("text_ends"), text_end, count)
            yield self._chunk(taken, texts, done)
            done += count

    def _spec(self) -> Any:
        column = self._columns.get("spec")
        if column is None:
            return None
        return spec_from_json(str(column.everything()), self._path)

    def _texts(
        self, ends: NDArray[Any] | None, begin: int, count: int
    ) -> tuple[list[Mapping[str, Any]], int]:
        if ends is None or "texts" not in self._columns:
            return [{}] * count, begin
        joined = self._columns["texts"].take(int(ends[-1]) - begin).tobytes()
        starts = np.concatenate([[begin], ends[:-1]]) - begin
        pairs = zip(starts.tolist(), (ends - begin).tolist(), strict=True)
        return [json.loads(joined[start:end]) for start, end in pairs], int(ends[-1])

    def _chunk(
        self, taken: Mapping[str, NDArray[Any]], texts: list[Mapping[str, Any]], begin: int
    ) -> Chunk:
        ids = taken["id"].astype("U32").tolist()
        numbers = {
            field: taken[name].tolist() if name in taken else [0] * len(ids)
            for name, field in _FIELDS.items()
        }
        images = [
            Image(
                row=begin + i,
                id=ids[i],
                sources=tuple(text.get("sources") or (default_source(self._path),)),
                labels=tuple(text.get("labels", ())),
                origin=text.get("origin", default_source(self._path)),
                format=text.get("format", ""),
                **{field: column[i] for field, column in numbers.items()},
            )
            for i, text in enumerate(texts)
        ]
        values = taken["values"] if self.header.stored else taken["feature"].astype(np.float32)
        return Chunk(images, taken["code"], values, taken.get("scale"))


def _text(image: Image) -> bytes:
    # ASCII: bytes of paths that are no text survive as escaped surrogates.
    return json.dumps({name: getattr(image, name) for name in _TEXTS}).encode()
