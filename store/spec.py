"""What a store is made for, what goes in, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np

from store.codes import bytes_per_code, padding_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BITS = 3968
"""LMDB takes at most 511 bytes a value in a sorted list of duplicates; 8 are the row number, and
a code is filled up to words of 8."""

MAX_DIMS = 1 << 17
"""The largest product of two features has to fit into 32 bits."""

MAX_LABEL_BYTES = 500
"""Labels are keys, which LMDB takes up to 511 bytes of."""

METRICS = ("cosine", "l2")


def check_label(label: str) -> None:
    """Raise a ValueError unless an image can have this label."""
    try:
        size = len(label.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_LABEL_BYTES:
        raise ValueError(
            f"expected labels of 1 to {MAX_LABEL_BYTES} bytes in UTF-8, got {label[:40]!r}"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StoreSpec:
    """The model bundle that a store belongs to.

    Attributes:
        bundle_id: Name and digest of the bundle; a store accepts no other.
        bits: Length B of the codes, 1 to `MAX_BITS`.
        dims: Length D of the features, 1 to `MAX_DIMS`.
        metric: "cosine" (1 - cos, 0 to 2) or "l2" (Euclidean distance).
        centres: Centre codes for the bucket key of codes longer than 24 bits,
            shape=(M, ceil(B/8)), dtype=uint8, most significant bit first; None takes a few
            fixed ones, which are slower to search. Shorter codes are their own bucket key
            and take none.
    """

    bundle_id: str
    bits: int
    dims: int
    metric: str
    centres: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise ValueError(f"expected 1 to {MAX_BITS} bits, got {self.bits}")
        if not 1 <= self.dims <= MAX_DIMS:
            raise ValueError(f"expected 1 to {MAX_DIMS} dimensions, got {self.dims}")
        if self.metric not in METRICS:
            raise ValueError(f"expected a metric of {METRICS}, got {self.metric!r}")

    @property
    def code_bytes(self) -> int:
        """Bytes W of a packed code."""
        return bytes_per_code(self.bits)

    @property
    def padding_mask(self) -> int:
        """Bits of the last byte of a code that mean nothing and are zero."""
        return padding_mask(self.bits)


@dataclass(frozen=True, eq=False, kw_only=True)
class NewImage:
    """An image to be stored.

    Attributes:
        id: First 16 bytes of the sha256 of the file, as 32 hex digits.
        code: Binary code, shape=(W,), dtype=uint8, most significant bit first, padding zero.
        feature: Feature vector, shape=(D,), dtype=float32.
        source: Where it came from: a path, a URL or "upload:name".
        origin: Token of the work item that brings it; a second delivery of the same item has
            the same token.
        added_at: Unix time in seconds.
        width_px: Width of the upright image.
        height_px: Height of the upright image.
        format: Name of the file format, such as "JPEG".
        size_bytes: Size of the file.
        labels: Words to find it by, each up to `MAX_LABEL_BYTES` long in UTF-8.
    """

    id: str
    code: NDArray[Any]
    feature: NDArray[Any]
    source: str
    origin: str
    added_at: float
    width_px: int
    height_px: int
    format: str
    size_bytes: int
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The record of a stored image. `row` grows with every image and is never used again."""

    row: int
    id: str
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    origin: str
    added_at: float
    width_px: int
    height_px: int
    format: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inserted:
    """The outcome of one image of a batch.

    `created` tells whether this origin brought the image into the store, now or at an earlier
    delivery; otherwise the image was there and has gained a source.
    """

    id: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which images may be found; every condition that is given must hold.

    Attributes:
        labels: The image has at least one of them; none at all is no condition.
        source: One of its sources begins with this.
        since: It was added at this Unix time or later; whole seconds count.
        until: It was added before this Unix time.
    """

    labels: tuple[str, ...] = ()
    source: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """What to look for.

    Attributes:
        code: shape=(W,), dtype=uint8, as in `NewImage`.
        feature: shape=(D,), dtype=float32.
        k: Number of hits wanted, at least 1.
        candidates: How many images are compared by feature (at least k are); None compares
            every image.
        code_weight: What the share of differing code bits adds to the distance of features, at
            least 0: hits are ordered by feature distance + code_weight * Hamming distance / B.
        max_distance: Hits are at most this far, by the distance that orders them.
        filter: Which images may be found; None lets all pass.
    """

    code: NDArray[Any]
    feature: NDArray[Any]
    k: int
    candidates: int | None
    code_weight: float = 0.0
    max_distance: float | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An image that was found, with enough of its record to be shown.

    `distance` is what the hits are ordered by, see `Query.code_weight`; `hamming` counts the bits
    in which the codes differ.
    """

    id: str
    distance: float
    hamming: int
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    width_px: int
    height_px: int
    format: str
    added_at: float


class Features(NamedTuple):
    """Features as they are stored: those of N images that are there, of M that were asked for.

    Attributes:
        there: Which are there, shape=(M,), dtype=bool.
        values: shape=(N, D), dtype=int8.
        scales: What the values are multiplied by, shape=(N,), dtype=float32.
        squares: Sums of the squared values, shape=(N,), dtype=uint32.
    """

    there: NDArray[np.bool_]
    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    squares: NDArray[np.uint32]


Stage = Literal["plan", "gather", "rerank"]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Partial:
    """The answer of one shard, or of one group of its buckets.

    The hits are the nearest images that were compared, ordered by (distance, id). With a filter
    the counts and the radius speak of the images that pass it.

    Attributes:
        ids: First 16 bytes of sha256, shape=(K, 16), dtype=uint8.
        distances: See `Query.code_weight`, shape=(K,), dtype=float32.
        hamming: Bits in which the codes differ, shape=(K,), dtype=uint16.
        buckets: Buckets that were looked into.
        radius: Every image whose code lies within this Hamming distance of the query's was
            compared by feature; -1 promises nothing, the number of bits promises everything.
        complete: Every image was compared.
        candidates: Images whose code was compared.
        reranked: Images whose feature was compared.
        timings_ms: Time of each stage: "plan" chooses the buckets, "gather" reads codes and
            features, "rerank" computes distances.
    """

    ids: NDArray[Any] = field(default_factory=lambda: np.empty((0, 16), np.uint8))
    distances: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.float32))
    hamming: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.uint16))
    buckets: int = 0
    radius: int = -1
    complete: bool = False
    candidates: int = 0
    reranked: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return K, the number of hits."""
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        """Compare everything but the timings."""
        if not isinstance(other, Partial):
            return NotImplemented
        return {**self.to_dict(), "timings_ms": None} == {**other.to_dict(), "timings_ms": None}

    __hash__ = None  # type: ignore[assignment]

    def names(self) -> list[str]:
        """Return the ids of the hits, as 32 hex digits each."""
        return [identity.hex() for identity in self.ids.view("V16").reshape(-1).tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Return bytes and numbers, as msgpack takes them."""
        plain = {name: getattr(self, name) for name in _PARTIAL_FIELDS}
        for name, kind in _PARTIAL_ARRAYS.items():
            plain[name] = plain[name].astype(kind).tobytes()
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Return the partial that `to_dict` was called on."""
        arrays = {name: np.frombuffer(plain[name], kind) for name, kind in _PARTIAL_ARRAYS.items()}
        return cls(**{**plain, **arrays, "ids": arrays["ids"].reshape(-1, 16)})


_PARTIAL_ARRAYS = {"ids": "u1", "distances": "<f4", "hamming": "<u2"}
_PARTIAL_FIELDS = tuple(each.name for each in fields(Partial))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStats:
    """Figures about a shard at one moment.

    Attributes:
        path: Folder of the shard.
        format: Version of the format on disk.
        bundle_id: Bundle that it was built with.
        bits: Length of the codes.
        dims: Length of the features.
        metric: Metric of the features.
        images: Images stored.
        rows_used: Row numbers given out so far, those of deleted images included.
        buckets: Buckets that hold an image.
        largest_bucket: Images in the fullest bucket.
        generation: How often the buckets' key was retrained.
        centres: Centre codes in use; 0 where a code is its own bucket.
        segments: Files that hold features.
        dead_slots: Slots in them that belonged to deleted images; compaction frees them.
        used_bytes: Size of what is stored.
        file_bytes: Disk space of all files; what it has more than used is there to be used
            again by later writes, or freed by compaction.
        map_bytes: Size of the memory map, which grows by itself.
        readers: Slots in use in the table of readers, over all processes.
    """

    path: str
    format: int
    bundle_id: str
    bits: int
    dims: int
    metric: str
    images: int
    rows_used: int
    buckets: int
    largest_bucket: int
    generation: int
    centres: int
    segments: int
    dead_slots: int
    used_bytes: int
    file_bytes: int
    map_bytes: int
    readers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The outcome of a check: how many images were looked at, and what is wrong."""

    images: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems
