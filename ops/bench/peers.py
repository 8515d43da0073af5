"""The indexes of faiss, asked the same as the store, on one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.bench.figures import rounded
from ops.bench.search_ask import Found
from ops.bench.search_names import BLOCK, CANDIDATES, WHOLE
from ops.bench.search_ways import MOST_S, Way

if TYPE_CHECKING:
    from ops.bench.search_build import Collection

MISSING = "faiss is not installed, so there are no peers: pip install 'lookalike[bench]'"

MOST_BYTES = 4 << 30
"""Of all indexes of features together."""

_COPIES = 3.25  # three of floats, one of bytes

_MEMORY = "the index, all of it private"
_CODE_PROBES = (4, 8, 16, 32, 64, 128, 256)
_FEATURE_PROBES = (4, 16, 32, 64, 128, 256)
_FLIPS = (0, 1, 2)
_NEIGHBOURS, _BUILD_DEPTH = 32, 80
_LISTS_PER_ROOT = 4
_TRAINING_ROUNDS = 10
_HNSW_DEPTHS = (1, 2)
_MB = 1e6


def can_compare() -> bool:
    """Tell whether faiss is installed."""
    return find_spec("faiss") is not None


def fit(n: int, dims: int) -> bool:
    """Tell whether the indexes of n features fit into memory together."""
    return _COPIES * n * dims * 4 <= MOST_BYTES


def open_faiss() -> ModuleType:
    """Return faiss, which from now on works on one thread."""
    faiss = import_module("faiss")
    faiss.omp_set_num_threads(1)
    return faiss


def code_ways(collection: Collection, candidates: int) -> Iterator[Way]:
    """Return ways to find candidates by code: all, in the store's own lists, by hashes."""
    faiss, kept = open_faiss(), _Kept(collection)
    wanted = min(candidates, collection.source.n)
    bits = collection.codes.shape[1] * 8
    flat = kept.index("codes-flat", partial(_flat_codes, faiss, collection))
    flat.value.use_heap = False
    yield _code_way(collection, "faiss IndexBinaryFlat", flat, wanted, {})
    lists = kept.index("codes-ivf", partial(_listed_codes, faiss, collection))
    # The scanner that counts is several times as fast as the heap. It takes the default of
    # max_codes, 0 for all, as none, and finds nothing: faiss issue 5555.
    lists.value.use_heap, lists.value.max_codes = False, collection.source.n
    for parameters in _probed(len(collection.centres), _CODE_PROBES):
        yield _code_way(collection, "faiss IndexBinaryIVF", lists, wanted, parameters)
    for hashes, width in ((6, 21), (10, 12)) if bits >= 126 else ((2, bits // 2),):
        name = f"codes-multihash-{hashes}x{width}"
        index = kept.index(name, partial(_hashed_codes, faiss, collection, hashes, width))
        for flips in _FLIPS:
            parameters = {"hashes": hashes, "hash_bits": width, "nflip": flips}
            yield _code_way(collection, "faiss IndexBinaryMultiHash", index, wanted, parameters)


def feature_ways(collection: Collection, k: int) -> Iterator[Way]:
    """Return ways to search the features as floats, and one that rounds them as the store does."""
    faiss, kept = open_faiss(), _Kept(collection)
    features = _Floats(collection)
    flat = kept.index("floats-flat", lambda: _flat_floats(faiss, features))
    yield _feature_way(collection, "faiss IndexFlatIP", flat, k, {})
    lists = max(1, min(collection.source.n // 39, _lists(collection.source.n)))
    for name, rounded_ in (("faiss IndexIVFFlat", False), ("faiss IndexIVFScalarQuantizer", True)):
        file = f"floats-ivf-{lists}{'-int8' if rounded_ else ''}"
        index = kept.index(file, partial(_listed_floats, faiss, features, lists, rounded_))
        for parameters in _probed(lists, _FEATURE_PROBES):
            yield _feature_way(collection, name, index, k, parameters)
    graph = kept.index("floats-hnsw", lambda: _graph(faiss, features))
    for times in _HNSW_DEPTHS:
        parameters = {"M": _NEIGHBOURS, "efConstruction": _BUILD_DEPTH, "efSearch": times * k}
        yield _feature_way(collection, "faiss IndexHNSWFlat", graph, k, parameters)


@dataclass(frozen=True)
class _Index:
    """An index and the size of its file, which is that of its memory."""

    value: Any
    memory_mb: float


@dataclass(frozen=True)
class _Kept:
    """The indexes of a collection, built once."""

    collection: Collection

    def index(self, name: str, build: Callable[[], Any]) -> _Index:
        faiss = open_faiss()
        path = self.collection.folder / f"{name}-{faiss.__version__}.faiss"
        binary = name.startswith("codes")
        if not path.exists():
            making = path.with_name(f".{os.getpid()}-{path.name}")
            (faiss.write_index_binary if binary else faiss.write_index)(build(), str(making))
            making.rename(path)
        read = (faiss.read_index_binary if binary else faiss.read_index)(str(path))
        return _Index(read, rounded(path.stat().st_size / _MB))


@dataclass(frozen=True)
class _Floats:
    """The features of a collection at length 1, block by block."""

    collection: Collection

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        for first in range(0, self.collection.source.n, BLOCK):
            rows = np.arange(first, min(first + BLOCK, self.collection.source.n))
            yield _unit(self.collection.at(rows).features)

    def all(self) -> NDArray[np.float32]:
        return np.concatenate(list(self.blocks()))


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-30))
    unit: NDArray[np.float32] = features / lengths
    return unit


def _probed(lists: int, probes: Sequence[int]) -> list[dict[str, Any]]:
    wanted = sorted({min(count, lists) for count in probes})
    return [{"lists": lists, "nprobe": count} for count in wanted]


def _lists(n: int) -> int:
    return int(2 ** round(np.log2(_LISTS_PER_ROOT * n**0.5)))


def _flat_codes(faiss: ModuleType, collection: Collection) -> Any:
    index = faiss.IndexBinaryFlat(collection.codes.shape[1] * 8)
    index.add(collection.codes)
    return index


def _listed_codes(faiss: ModuleType, collection: Collection) -> Any:
    bits = collection.codes.shape[1] * 8
    quantiser = faiss.IndexBinaryFlat(bits)
    quantiser.add(collection.centres)
    index = faiss.IndexBinaryIVF(quantiser, bits, len(collection.centres))
    index.add(collection.codes)
    return index


def _hashed_codes(faiss: ModuleType, collection: Collection, hashes: int, width: int) -> Any:
    index = faiss.IndexBinaryMultiHash(collection.codes.shape[1] * 8, hashes, width)
    index.add(collection.codes)
    return index


def _flat_floats(faiss: ModuleType, features: _Floats) -> Any:
    return _filled(faiss.IndexFlatIP(features.collection.source.dims), features)


def _listed_floats(faiss: ModuleType, features: _Floats, lists: int, rounded_: bool) -> Any:
    dims = features.collection.source.dims
    quantiser = faiss.IndexFlatIP(dims)
    how = (quantiser, dims, lists)
    if rounded_:
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(*how, kind, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFFlat(*how, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _TRAINING_ROUNDS
    index.train(features.all())
    return _filled(index, features)


def _graph(faiss: ModuleType, features: _Floats) -> Any:
    dims = features.collection.source.dims
    index = faiss.IndexHNSWFlat(dims, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_DEPTH
    return _filled(index, features)


def _filled(index: Any, features: _Floats) -> Any:
    for block in features.blocks():
        index.add(block)
    return index


def _code_way(
    collection: Collection, name: str, index: _Index, wanted: int, parameters: dict[str, Any]
) -> Way:
    codes = collection.queries.codes

    def ask(i: int) -> Found:
        _set(index.value, parameters)
        distances, rows = index.value.search(codes[i : i + 1], wanted)
        return Found(hamming=distances[0][rows[0] >= 0])

    return Way(name, CANDIDATES, ask, _told(index, parameters), wanted, MOST_S)


def _feature_way(
    collection: Collection, name: str, index: _Index, k: int, parameters: dict[str, Any]
) -> Way:
    features = _unit(collection.queries.features)

    def ask(i: int) -> Found:
        _set(index.value, parameters)
        _, rows = index.value.search(features[i : i + 1], k)
        return Found(rows=rows[0][rows[0] >= 0])

    return Way(name, WHOLE, ask, _told(index, parameters), None, MOST_S)


def _told(index: _Index, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "parameters": parameters,
        "memory_mb": index.memory_mb,
        "memory_of": _MEMORY,
    }


def _set(index: Any, parameters: dict[str, Any]) -> None:
    """Set what one index is asked with; several ways share it."""
    for name, value in parameters.items():
        if name in ("nprobe", "nflip"):
            setattr(index, name, value)
        elif name == "efSearch":
            index.hnsw.efSearch = value
