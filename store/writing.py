"""Writing: what inserting and deleting do to the tables, inside a transaction of the caller."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from store.layout import (
    DIRECTORY_ENTRY,
    DIRECTORY_KEY,
    Record,
    bucket_key,
    feature_entry,
    new_image_record,
    pack_record,
    read_next_row,
    row_key,
    seal_features,
    write_next_row,
)
from store.spec import Inserted, NewImage, StoreSpec
from store.values import LARGEST, lengths, quantise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from store.buckets import Buckets
    from store.snapshot import Snapshot

MOST_SOURCES = 32
"""The first sources of an image are kept; a picture found on every page would grow for ever."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch with everything computed that needs no transaction: the lock is held shortly."""

    images: Sequence[NewImage]
    keys: list[int]
    radii: list[int]
    features: NDArray[Any]


def prepare(batch: Sequence[NewImage], spec: StoreSpec, buckets: Buckets) -> Prepared:
    """Validate a batch, file its codes and quantise its features.

    Raises:
        ValueError: An id, a code or a feature has the wrong form.
    """
    for new in batch:
        _validate(new, spec)
    codes = np.array([new.code for new in batch], np.uint8).reshape(len(batch), -1)
    floats = np.array([new.feature for new in batch], np.float32).reshape(len(batch), -1)
    keys, radii = buckets.file(codes)
    features = np.zeros(len(batch), feature_entry(spec.dims))
    features["values"], features["scale"] = quantise(floats)
    features["length"] = lengths(features["values"])
    for i, new in enumerate(batch):
        features["id"][i] = np.frombuffer(bytes.fromhex(new.id), np.uint8)
    seal_features(features)
    return Prepared(batch, keys.tolist(), radii.tolist(), features)


def insert(store: Snapshot, batch: Prepared) -> list[Inserted]:
    """Store the images of a batch that are new, and add a source to those that are not.

    Args:
        store: A snapshot whose transaction may write.
        batch: From `prepare`.

    Returns:
        One outcome per image, in order.
    """
    outcomes = []
    first = row = read_next_row(store.txn, store.tables)
    changes: dict[int, list[int]] = {}
    for i, new in enumerate(batch.images):
        known = store.row_of(new.id)
        if known is None:
            _put_image(store, batch, i, row)
            changes.setdefault(batch.keys[i], []).append(batch.radii[i])
            row += 1
        created = known is None or _meet_again(store, store.record(known), new)
        outcomes.append(Inserted(new.id, created))
    for key, radii in changes.items():
        _update_directory(store, key, len(radii), max(radii))
    if row > first:
        write_next_row(store.txn, store.tables, row)
    return outcomes


def delete(store: Snapshot, ids: Sequence[str], buckets: Buckets) -> list[bool]:
    """Remove images.

    Args:
        store: A snapshot whose transaction may write.
        ids: Ids, known or not.
        buckets: How codes are filed.

    Returns:
        For each id whether it was there.
    """
    return [_delete_one(store, identity, buckets) for identity in ids]


def _validate(new: NewImage, spec: StoreSpec) -> None:
    if len(new.id) != 32 or new.id.strip("0123456789abcdef"):
        raise ValueError(f"expected an id of 32 lower-case hex digits, got {new.id!r}")
    check_code(new.code, spec)
    check_feature(new.feature, spec)


def check_code(code: NDArray[Any], spec: StoreSpec) -> None:
    """Raise a ValueError unless a code has the form that the spec asks for."""
    if code.shape != (spec.code_bytes,) or code.dtype != np.uint8:
        raise ValueError(
            f"expected a code of shape ({spec.code_bytes},) and dtype uint8, "
            f"got {code.shape} and {code.dtype}"
        )
    if code[-1] & spec.padding_mask:
        raise ValueError(f"expected zeros after the {spec.bits} bits of the code")


def check_feature(feature: NDArray[Any], spec: StoreSpec) -> None:
    """Raise a ValueError unless a feature has the form that the spec asks for."""
    if feature.shape != (spec.dims,) or feature.dtype != np.float32:
        raise ValueError(
            f"expected a feature of shape ({spec.dims},) and dtype float32, "
            f"got {feature.shape} and {feature.dtype}"
        )
    # Not a number compares as false, and so fails here too.
    if not np.abs(feature).max() < LARGEST:
        raise ValueError(f"expected a feature of finite values below {LARGEST:g}")


def _put_image(store: Snapshot, batch: Prepared, i: int, row: int) -> None:
    """Append one image. Rows only grow, so LMDB need not search, and fills its pages."""
    txn, tables, new, name = store.txn, store.tables, batch.images[i], row_key(row)
    txn.put(bytes.fromhex(new.id), name, db=tables.content)
    txn.put(name, new_image_record(row, new), db=tables.images, append=True)
    txn.put(name, batch.features[i].tobytes(), db=tables.features, append=True)
    txn.put(bucket_key(batch.keys[i]), name + new.code.tobytes(), db=tables.buckets, append=True)


def _meet_again(store: Snapshot, record: Record, new: NewImage) -> bool:
    """Handle an image that is there: the same delivery again, or one more source of it."""
    image = record.image
    if image.origin == new.origin:
        return True
    if new.source not in image.sources and len(image.sources) < MOST_SOURCES:
        longer = replace(image, sources=(*image.sources, new.source))
        packed = pack_record(longer, record.code)
        store.txn.put(row_key(image.row), packed, db=store.tables.images)
    return False


def _delete_one(store: Snapshot, identity: str, buckets: Buckets) -> bool:
    row = store.row_of(identity)
    if row is None:
        return False
    code = store.record(row).code
    keys, _ = buckets.file(np.frombuffer(code, np.uint8)[None])
    key, name = int(keys[0]), row_key(row)
    txn, tables = store.txn, store.tables
    if txn.delete(bucket_key(key), name + code, db=tables.buckets):
        _update_directory(store, key, -1, 0)
    txn.delete(name, db=tables.features)
    txn.delete(name, db=tables.images)
    txn.delete(bytes.fromhex(identity), db=tables.content)
    return True


def _update_directory(store: Snapshot, key: int, added: int, radius: int) -> None:
    """Count images of a bucket in or out. Its radius never shrinks until it is empty."""
    name, count = bucket_key(key), 0
    with store.txn.cursor(store.tables.directory) as cursor:
        if cursor.set_range_dup(DIRECTORY_KEY, name) and cursor.value()[:4] == name:
            old = np.frombuffer(cursor.value(), DIRECTORY_ENTRY)[0]
            count, radius = int(old["count"]), max(radius, int(old["radius"]))
            cursor.delete()
        if count + added > 0:
            entry = np.array([(key, count + added, radius)], DIRECTORY_ENTRY)
            cursor.put(DIRECTORY_KEY, entry.tobytes())
