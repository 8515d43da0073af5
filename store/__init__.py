"""The image store: codes in buckets, features, records, and the search over them.

A `Shard` is one LMDB environment on disk. What goes in and comes out is in `store.spec`, what
can go wrong in `store.errors`.
"""

from store.codes import bytes_per_code, hamming, pack, unpack
from store.collapse import near_duplicates
from store.datafile import page_problems
from store.errors import (
    NotAStore,
    NothingToRetrain,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreMismatch,
    StoreReadOnly,
    StoreVersionError,
    TransferError,
)
from store.search import merge
from store.shard import Shard
from store.spec import (
    CheckReport,
    Features,
    Filter,
    Hit,
    Image,
    Inserted,
    NewImage,
    Partial,
    Query,
    ShardStats,
    StoreSpec,
)

__all__ = [
    "CheckReport",
    "Features",
    "Filter",
    "Hit",
    "Image",
    "Inserted",
    "NewImage",
    "NotAStore",
    "NothingToRetrain",
    "Partial",
    "Query",
    "Shard",
    "ShardStats",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreMismatch",
    "StoreReadOnly",
    "StoreSpec",
    "StoreVersionError",
    "TransferError",
    "bytes_per_code",
    "hamming",
    "merge",
    "near_duplicates",
    "pack",
    "page_problems",
    "unpack",
]
