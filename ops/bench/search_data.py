"""What the search is measured on: features and codes, made up or read from a file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ops.bench.search_ask import Vectors
from ops.bench.search_names import BLOCK, QUERIES
from ops.bench.synthetic import Mixture
from ops.errors import OpsError

_SEED = 20

Codes = NDArray[np.uint8]


class Source(Protocol):
    """Images to be stored, and others to search with."""

    n: int
    dims: int
    bits: int

    @property
    def made_of(self) -> str:
        """What the images are, for the reader of figures."""

    def key(self) -> dict[str, Any]:
        """Return what tells these images from others."""

    def write(self, folder: Path) -> None:
        """Write what `at` needs and cannot be made quickly."""

    def at(self, rows: NDArray[Any], folder: Path) -> Vectors:
        """Return some of the images."""

    def queries(self) -> Vectors:
        """Return images that are not stored."""


class Synthetic:
    """Images of a mixture.

    Args:
        n: How many.
        dims: D.
        bits: B.
    """

    def __init__(self, *, n: int, dims: int, bits: int) -> None:
        self.n, self.dims, self.bits = n, dims, bits

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture.make(dims=self.dims, bits=self.bits, seed=_SEED)

    @property
    def made_of(self) -> str:
        """What the images are."""
        return self._mixture.made_of

    def key(self) -> dict[str, Any]:
        """See `Source.key`. Other versions of numpy may draw other numbers."""
        return {"mixture": _SEED, "numpy": np.__version__}

    def write(self, folder: Path) -> None:
        """See `Source.write`."""
        rng = np.random.default_rng([_SEED, 1])
        shape = (self.n, self._mixture.directions.shape[0])
        places = np.lib.format.open_memmap(
            folder / "places.npy", mode="w+", dtype=np.float16, shape=shape
        )
        for first in range(0, self.n, BLOCK):
            count = min(BLOCK, self.n - first)
            places[first : first + count] = self._mixture.places(rng, count)
        places.flush()

    def at(self, rows: NDArray[Any], folder: Path) -> Vectors:
        """See `Source.at`."""
        return self._vectors(np.load(folder / "places.npy", mmap_mode="r")[rows], rows)

    def queries(self) -> Vectors:
        """See `Source.queries`: fresh draws."""
        places = self._mixture.places(np.random.default_rng([_SEED, 2]), QUERIES)
        return self._vectors(places, self.n + np.arange(QUERIES))

    def _vectors(self, places: NDArray[np.float16], rows: NDArray[Any]) -> Vectors:
        features = self._mixture.features(places, rows)
        return Vectors(features, self._mixture.codes(features @ self._mixture.projection))


class FromFile:
    """Images whose features and codes are in a file, as `lookalike model extract` writes it.

    Args:
        path: An .npz file with `features` (N, D) and `codes` (N, W).
        n: How many to store at most.
        bits: B.

    Raises:
        OpsError: The file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, *, n: int, bits: int) -> None:
        self._path, self.bits = path, bits
        read = _read(path, bits)
        order = np.random.default_rng(_SEED).permutation(len(read.codes))
        held_out = min(QUERIES, len(order) // 10)
        if held_out < 1:
            raise OpsError(f"{path} holds fewer than 10 images; give a file of more")
        self._all = read
        self._held_out, self._stored = order[:held_out], np.sort(order[held_out:][:n])
        self.n, self.dims = len(self._stored), read.features.shape[1]

    @property
    def made_of(self) -> str:
        """See `Source.made_of`."""
        return f"{self._path.name}; the queries are images of it that are not stored"

    def key(self) -> dict[str, Any]:
        """See `Source.key`."""
        status = self._path.stat()
        named = str(self._path.resolve())
        return {"file": named, "size": status.st_size, "mtime": status.st_mtime_ns}

    def write(self, folder: Path) -> None:
        """See `Source.write`: nothing."""

    def at(self, rows: NDArray[Any], folder: Path) -> Vectors:  # noqa: ARG002
        """See `Source.at`."""
        return self._pick(self._stored[rows])

    def queries(self) -> Vectors:
        """See `Source.queries`: images held out."""
        return self._pick(self._held_out)

    def _pick(self, chosen: NDArray[Any]) -> Vectors:
        return Vectors(self._all.features[chosen], self._all.codes[chosen])


def _read(path: Path, bits: int) -> Vectors:
    try:
        with np.load(path) as file:
            features, codes = file["features"].astype(np.float32), file["codes"]
    except (OSError, KeyError, ValueError) as error:
        raise OpsError(
            f"{path} holds no `features` and `codes`: {error}; "
            "write it with `lookalike model extract --output`"
        ) from error
    width = -(-bits // 8)
    if codes.dtype != np.uint8 or codes.shape != (len(features), width) or features.ndim != 2:
        raise OpsError(
            f"{path} has codes of shape {codes.shape} and type {codes.dtype}, and --bits {bits} "
            f"asks for ({len(features)}, {width}) and uint8; give the length of its codes"
        )
    return Vectors(features, codes)
