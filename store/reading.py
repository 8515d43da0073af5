"""Reading what is known of many images at once: their records as hits, and their features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from store.errors import StoreDamaged
from store.layout import HEAD, Fields, row_key, unpack_fields
from store.spec import Features, Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.snapshot import Snapshot
    from store.spec import Partial


def hits_of(store: Snapshot, answer: Partial) -> list[Hit]:
    """Return the hits of an answer with their records; images that are gone are left out.

    Raises:
        StoreDamaged: An image is in the content index and has no readable record.
    """
    records = _records_of(store, rows_of(store, answer.ids))
    distances, hamming = answer.distances.tolist(), answer.hamming.tolist()
    return [
        Hit(
            id=record.id.hex(),
            distance=distance,
            hamming=bits,
            sources=record.sources,
            labels=record.labels,
            width_px=record.width_px,
            height_px=record.height_px,
            format=record.format,
            added_at=record.added_at,
        )
        for record, distance, bits in zip(records, distances, hamming, strict=True)
        if record is not None
    ]


def features_of(store: Snapshot, ids: NDArray[np.uint8]) -> Features:
    """Return the features of images as they are stored.

    Args:
        store: Where they are.
        ids: shape=(M, 16).

    Raises:
        StoreDamaged: An image has no feature.
    """
    rows = rows_of(store, ids)
    there = rows >= 0
    wanted, places = np.unique(rows[there], return_inverse=True)
    heads = np.empty(len(wanted), HEAD)
    values = np.empty((len(wanted), store.spec.dims), np.int8)
    store.features(wanted, heads, values)
    heads = heads[places]
    return Features(there, values[places], heads["scale"], heads["square"])


def rows_of(store: Snapshot, ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the rows of images, shape=(M, 16), and -1 where there is no such image."""
    names: list[bytes] = np.ascontiguousarray(ids).view("V16").reshape(-1).tolist()
    get, content = store.txn.get, store.tables.content
    # In the order of the table, where one is near the one before.
    found = {name: get(name, db=content) for name in sorted(names)}
    rows = [-1 if row is None else int.from_bytes(row, "big") for row in map(found.get, names)]
    return np.array(rows, np.int64)


def _records_of(store: Snapshot, rows: NDArray[np.int64]) -> list[Fields | None]:
    """Return the records of rows, and None for a row of -1."""
    get, images = store.txn.get, store.tables.images
    found: dict[int, Fields] = {}
    for row in np.unique(rows[rows >= 0]).tolist():
        packed = get(row_key(row), db=images)
        if packed is None:
            raise StoreDamaged("a stored image lacks its record; run the store check")
        found[row] = unpack_fields(row, packed)
    return [found.get(row) for row in rows.tolist()]
