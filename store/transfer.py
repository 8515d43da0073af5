"""What a file of exported images holds, whatever its format; see `store.exporting`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from store.errors import TransferError
from store.spec import StoreSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.spec import Image

VERSION = 1

SUFFIXES = (".npz", ".parquet")
"""What the names of files end with."""

CHUNK_BYTES = 1 << 25
"""Features in memory at a time, as floats."""

CHUNK_IMAGES = 4096

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some images of a file.

    Attributes:
        images: N records; `row` is of no meaning.
        codes: shape=(N, W), dtype=uint8.
        values: Features, shape=(N, D), dtype=float32; or as they are stored, dtype=int8.
        scales: What stored values are multiplied by, shape=(N,), dtype=float32; otherwise None.
    """

    images: Sequence[Image]
    codes: NDArray[np.uint8]
    values: NDArray[Any]
    scales: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of all its images.

    Attributes:
        spec: Of the collection; None in a file that lookalike did not write.
        stored: Whether features are as they are stored.
        count: N, number of images.
    """

    spec: StoreSpec | None
    stored: bool
    count: int


class Writer(Protocol):
    """Takes the chunks of a file, in order."""

    def write(self, chunk: Chunk) -> None:
        """Append images."""


class Reader(Protocol):
    """Gives the chunks of a file, in order."""

    header: Header

    def chunks(self) -> Iterator[Chunk]:
        """Yield all images."""


class Format(Protocol):
    """A format of files: `store.npz` or `store.parquet`."""

    def writing(self, path: Path, header: Header) -> AbstractContextManager[Writer]:
        """Write a new file."""

    def reading(self, path: Path) -> AbstractContextManager[Reader]:
        """Read a file."""


def format_of(path: Path) -> ModuleType:
    """Return the module that knows the format that a file's name ends with.

    Raises:
        TransferError: There is none, or what it needs is not installed.
    """
    if path.suffix == ".npz":
        return import_module("store.npz")
    if path.suffix != ".parquet":
        raise TransferError(f"{path} is of no known format; name it .npz or .parquet")
    if find_spec("pyarrow") is None:
        raise TransferError(
            f"{path} needs pyarrow; `pip install 'lookalike[parquet]'`, or take .npz"
        )
    return import_module("store.parquet")


def chunk_images(dims: int) -> int:
    """Return how many images go into a chunk."""
    return max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (4 * dims)))


def spec_to_json(spec: StoreSpec) -> str:
    """Return a spec as text."""
    centres = None if spec.centres is None else base64.b64encode(spec.centres.tobytes()).decode()
    plain = {
        "lookalike_export": VERSION,
        "bundle": spec.bundle_id,
        "bits": spec.bits,
        "dims": spec.dims,
        "metric": spec.metric,
        "centres": centres,
    }
    return json.dumps(plain)


def spec_from_json(text: str | bytes, path: Path) -> StoreSpec:
    """Return what `spec_to_json` was called on.

    Raises:
        TransferError: It is something else.
    """
    try:
        plain = json.loads(text)
        if plain["lookalike_export"] > VERSION:
            raise TransferError(f"{path} was written by a later version; upgrade lookalike")
        spec = StoreSpec(
            bundle_id=plain["bundle"],
            bits=plain["bits"],
            dims=plain["dims"],
            metric=plain["metric"],
        )
        if plain["centres"] is None:
            return spec
        packed = np.frombuffer(base64.b64decode(plain["centres"]), np.uint8)
        return StoreSpec(
            bundle_id=spec.bundle_id,
            bits=spec.bits,
            dims=spec.dims,
            metric=spec.metric,
            centres=packed.reshape(-1, spec.code_bytes),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise TransferError(f"{path} does not say which bundle it belongs to: {error}") from error


def default_source(path: Path) -> str:
    """Return the source of an image whose file names none."""
    return f"import:{path.name}"
