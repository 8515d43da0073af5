"""Exported images as Parquet, a row each; needs pyarrow, which `lookalike[parquet]` brings.

Columns: `id`, `sources`, `labels`, `origin`, `added_at`, `width`, `height`, `format`, `size`,
`code` and `feature`; or, as stored, `values` and `scale`. A path that is no text stands in
`source_bytes` too. The spec stands in the metadata of the schema, under `lookalike`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

# pyarrow is imported where it is used: it is there with an extra only, and takes its time.

_META = b"lookalike"
_NUMBERS = {
    "added_at": ("added_at", "float64"),
    "width": ("width_px", "int32"),
    "height": ("height_px", "int32"),
    "size": ("size_bytes", "int64"),
}


@contextmanager
def writing(path: Path, header: Header) -> Iterator[_ParquetWriter]:
    """Write a new file; the header must have a spec."""
    import pyarrow.parquet as pq

    if header.spec is None:
        raise ValueError("expected the spec of a collection")
    schema = _schema(header).with_metadata({_META: spec_to_json(header.spec).encode()})
    with pq.ParquetWriter(path, schema) as writer:
        yield _ParquetWriter(writer, schema)


@contextmanager
def reading(path: Path) -> Iterator[_ParquetReader]:
    """Read a file.

    Raises:
        TransferError: It cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield _ParquetReader(path, file)
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise TransferError(
            f"{path} cannot be read: {str(error).rstrip('.')}; copy it here once more, or export "
            "it again"
        ) from error


class _ParquetWriter:
    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer, self._schema = writer, schema

    def write(self, chunk: Chunk) -> None:
        """Append images as a group of rows."""
        import pyarrow as pa

        images = chunk.images
        columns = {
            "id": [image.id for image in images],
            "sources": [[_shown(source) for source in image.sources] for image in images],
            "source_bytes": [_odd_sources(image) for image in images],
            "labels": [list(image.labels) for image in images],
            "origin": [image.origin for image in images],
            "format": [image.format for image in images],
            "code": [code.tobytes() for code in chunk.codes],
        }
        for name, (field, _) in _NUMBERS.items():
            columns[name] = [getattr(image, field) for image in images]
        vector = "feature" if chunk.scales is None else "values"
        if chunk.scales is not None:
            columns["scale"] = chunk.scales.tolist()
        flat = pa.array(np.ascontiguousarray(chunk.values).reshape(-1))
        arrays = [
            pa.FixedSizeListArray.from_arrays(flat, chunk.values.shape[1])
            if field.name == vector
            else pa.array(columns[field.name], field.type)
            for field in self._schema
        ]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))


class _ParquetReader:
    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        schema = file.schema_arrow
        stored = "values" in schema.names
        for name in ("id", "code", *(("values", "scale") if stored else ("feature",))):
            if name not in schema.names:
                raise ValueError(f"it lacks the column {name}")
        packed = (schema.metadata or {}).get(_META)
        spec = None if packed is None else spec_from_json(packed, path)
        self._dims = spec.dims if spec else 4096
        self.header = Header(spec, stored, file.metadata.num_rows)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all images."""
        done = 0
        for batch in self._file.iter_batches(chunk_images(self._dims)):
            yield self._chunk(batch, done)
            done += batch.num_rows

    def _chunk(self, batch: Any, begin: int) -> Chunk:
        columns = {
            name: batch.column(name).to_pylist()
            for name in batch.schema.names
            if name not in ("feature", "values", "scale", "code")
        }
        images = [self._image(columns, i, begin) for i in range(batch.num_rows)]
        codes = batch.column("code").to_pylist()
        packed = np.frombuffer(b"".join(codes), np.uint8).reshape(batch.num_rows, -1)
        if not self.header.stored:
            return Chunk(images, packed, _vectors(batch, "feature", np.float32), None)
        scales = np.array(batch.column("scale").to_pylist(), np.float32)
        return Chunk(images, packed, _vectors(batch, "values", np.int8), scales)

    def _image(self, columns: dict[str, list[Any]], i: int, begin: int) -> Image:
        def of(name: str, default: Any) -> Any:
            found = columns[name][i] if name in columns else None
            return default if found is None else found

        odd = of("source_bytes", None)
        sources = (
            [source.decode(errors="surrogateescape") for source in odd]
            if odd
            else of("sources", None) or [default_source(self._path)]
        )
        return Image(
            row=begin + i,
            id=str(of("id", "")),
            sources=tuple(sources),
            labels=tuple(of("labels", ())),
            origin=of("origin", default_source(self._path)),
            format=of("format", ""),
            **{field: of(name, 0) for name, (field, _) in _NUMBERS.items()},
        )


def _schema(header: Header) -> Any:
    import pyarrow as pa

    assert header.spec is not None  # noqa: S101 - looked at by the caller
    dims, texts = header.spec.dims, pa.list_(pa.string())
    fields = {
        "id": pa.string(),
        "sources": texts,
        "source_bytes": pa.list_(pa.binary()),
        "labels": texts,
        "origin": pa.string(),
        **{name: getattr(pa, kind)() for name, (_, kind) in _NUMBERS.items()},
        "format": pa.string(),
        "code": pa.binary(header.spec.code_bytes),
    }
    if header.stored:
        fields |= {"values": pa.list_(pa.int8(), dims), "scale": pa.float32()}
    else:
        fields["feature"] = pa.list_(pa.float32(), dims)
    return pa.schema(fields)


def _vectors(batch: Any, name: str, kind: Any) -> NDArray[Any]:
    column = batch.column(name)
    flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).astype(kind)
    return flat.reshape(batch.num_rows, -1)


def _shown(source: str) -> str:
    return source.encode(errors="surrogateescape").decode(errors="replace")


def _odd_sources(image: Image) -> list[bytes] | None:
    if all(_is_text(source) for source in image.sources):
        return None
    return [source.encode(errors="surrogateescape") for source in image.sources]


def _is_text(source: str) -> bool:
    try:
        source.encode()
    except UnicodeEncodeError:
        return False
    return True
