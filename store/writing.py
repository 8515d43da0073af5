"""Writing: what inserting and deleting do to the tables, inside a transaction of the caller."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.filing import (
    Filing,
    add_to_buckets,
    generations,
    join_filings,
    remove_from_bucket,
)
from store.layout import (
    HEAD,
    Record,
    new_image_record,
    number_key,
    pack_record,
    row_key,
    seal_features,
    seconds,
    write_number,
)
from store.segments import SEGMENT_ROWS
from store.slots import Segment
from store.spec import Image, Inserted, NewImage, StoreSpec, check_label
from store.validation import check_padding, stacked
from store.values import LARGEST, quantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.filing import Keys
    from store.snapshot import Snapshot

MOST_SOURCES = 32
"""The first sources of an image are kept; a picture found on every page would grow for ever."""

MOST_LABELS = 32
"""And so are its first labels."""

_CHUNK = 64
"""Features rounded at a time, so that what is in between stays in the processor's cache."""

_PART = 512
"""Images that a thread prepares at a time."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch with everything computed that needs no transaction: the lock is held shortly.

    Attributes:
        images: As they were given.
        names: Their ids, 16 bytes each.
        codes: shape=(N, W), dtype=uint8.
        heads: shape=(N,), dtype=HEAD.
        values: shape=(N, D), dtype=int8.
        filing: Where they belong in the generation of buckets that was current before.
    """

    images: Sequence[NewImage]
    names: list[bytes]
    codes: NDArray[np.uint8]
    heads: NDArray[Any]
    values: NDArray[np.int8]
    filing: Filing


class _Fresh(NamedTuple):
    """The images of a batch that are new: their places in it and their rows, shape=(F,)."""

    places: NDArray[np.int64]
    rows: NDArray[np.int64]


def prepare(batch: Sequence[NewImage], spec: StoreSpec, keys: Keys) -> Prepared:
    """Validate a batch, file its codes and quantise its features; a large one on all cores.

    Raises:
        ValueError: An id, a code, a feature or a label has the wrong form.
    """
    codes = stacked([new.code for new in batch], spec.code_bytes, np.uint8, "code")
    check_padding(codes, spec)
    names = _names(batch)
    heads, values = np.zeros(len(batch), HEAD), np.empty((len(batch), spec.dims), np.int8)
    heads["id"] = np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)
    heads["added"] = seconds([new.added_at for new in batch])

    def work(start: int) -> Filing:
        part = slice(start, start + _PART)
        _quantise([new.feature for new in batch[part]], heads[part], values[part])
        return keys.latest.file(codes[part])

    starts = range(0, len(batch), _PART)
    if len(starts) == 1:
        return Prepared(batch, names, codes, heads, values, work(0))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        filings = list(pool.map(work, starts))
    # A retraining may have ended between two parts; filing is cheap to repeat.
    filing = join_filings(filings) or keys.latest.file(codes)
    return Prepared(batch, names, codes, heads, values, filing)


def _quantise(
    features: Sequence[NDArray[Any]], heads: NDArray[Any], values: NDArray[np.int8]
) -> None:
    """Fill in the heads, shape=(N,), and the values, shape=(N, D), of features."""
    for start in range(0, len(features), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        floats = stacked(features[chunk], values.shape[1], np.float32, "feature")
        with np.errstate(invalid="ignore"):
            values[chunk], heads["scale"][chunk], heads["square"][chunk] = quantise(floats)
    # The scale tells of values that are infinite or no numbers, which spares a look at each.
    if not (heads["scale"] < LARGEST / 127).all():
        raise ValueError(f"expected features of finite values below {LARGEST:g}")
    seal_features(heads, values)


def insert(store: Snapshot, batch: Prepared, keys: Keys) -> list[Inserted]:
    """Store the images of a batch that are new, and add a source to those that are not.

    Args:
        store: A snapshot whose transaction may write.
        batch: From `prepare`.
        keys: How codes are filed.

    Returns:
        One outcome per image, in order.
    """
    fresh = _unknown(store, batch)
    if len(fresh.rows):
        _put_features(store, batch, fresh)
        _put_records(store, batch, fresh)
        _put_codes(store, batch, fresh, keys)
        write_number(store.txn, store.tables, "next_row", int(fresh.rows[-1]) + 1)
    new = set(fresh.places.tolist())
    return [
        Inserted(image.id, i in new or _meet_again(store, batch.names[i], image))
        for i, image in enumerate(batch.images)
    ]


def delete(store: Snapshot, ids: Sequence[str], keys: Keys) -> list[bool]:
    """Remove images.

    Args:
        store: A snapshot whose transaction may write.
        ids: Ids, known or not.
        keys: How codes are filed.

    Returns:
        For each id whether it was there.
    """
    rows = [_delete_one(store, identity, keys) for identity in ids]
    for number, dead in Counter(row // SEGMENT_ROWS for row in rows if row is not None).items():
        segment = store.segment(number)
        if segment is not None:
            put_segment(store, segment._replace(dead=segment.dead + dead))
    return [row is not None for row in rows]


def put_segment(store: Snapshot, segment: Segment) -> None:
    """Say what counts in a segment's file."""
    store.txn.put(number_key(segment.number), segment.pack(), db=store.tables.segments)


def _names(batch: Sequence[NewImage]) -> list[bytes]:
    """Return the ids of images as bytes, and look at their labels."""
    for new in batch:
        for label in new.labels:
            check_label(label)
    return [_name(new.id) for new in batch]


def _name(identity: str) -> bytes:
    try:
        name = bytes.fromhex(identity)
    except ValueError:
        name = b""
    if len(name) != 16 or name.hex() != identity:
        raise ValueError(f"expected an id of 32 lower-case hex digits, got {identity!r}")
    return name


def _unknown(store: Snapshot, batch: Prepared) -> _Fresh:
    """Return the images that the store lacks, each id once, with the rows they will have."""
    first = {name: i for i, name in reversed(list(enumerate(batch.names)))}
    get, content = store.txn.get, store.tables.content
    # In the order of the table, where one is near the one before.
    places = sorted(first[name] for name in sorted(first) if get(name, db=content) is None)
    start = store.number("next_row")
    return _Fresh(np.array(places, np.int64), np.arange(start, start + len(places)))


def _put_features(store: Snapshot, batch: Prepared, fresh: _Fresh) -> None:
    """Write heads and values into the slots of their rows, and count the slots."""
    numbers = fresh.rows // SEGMENT_ROWS
    for number in np.unique(numbers).tolist():
        here = numbers == number
        places, slot = fresh.places[here], int(fresh.rows[here][0] % SEGMENT_ROWS)
        # A whole batch is not copied once more.
        part = slice(None) if len(places) == len(batch.images) else places
        segment = store.segment(number) or Segment(number, 0, 0, 0, None)
        store.files.write(number, segment.version, slot, batch.heads[part], batch.values[part])
        put_segment(store, segment._replace(slots=slot + len(places)))


def _put_records(store: Snapshot, batch: Prepared, fresh: _Fresh) -> None:
    """Append records, and index them by id and label; sorted, neighbours share their pages."""
    records, content, labelled = [], [], []
    codes: list[bytes] = batch.codes.view(f"V{batch.codes.shape[1]}")[:, 0].tolist()
    for i, row in zip(fresh.places.tolist(), fresh.rows.tolist(), strict=True):
        new, name = batch.images[i], row_key(row)
        labels = tuple(dict.fromkeys(new.labels))[:MOST_LABELS] if new.labels else ()
        records.append((name, new_image_record(new, batch.names[i], codes[i], labels)))
        content.append((batch.names[i], name))
        labelled += [(label.encode(), name) for label in labels]
    txn, tables = store.txn, store.tables
    txn.cursor(tables.images).putmulti(records, append=True)
    txn.cursor(tables.content).putmulti(sorted(content))
    txn.cursor(tables.labels).putmulti(sorted(labelled))


def _put_codes(store: Snapshot, batch: Prepared, fresh: _Fresh, keys: Keys) -> None:
    """File the codes, in two generations of buckets while the key is being retrained."""
    codes = batch.codes[fresh.places]
    for generation in generations(store):
        if generation == batch.filing.generation:
            filing = batch.filing.of(fresh.places)
        else:
            filing = keys.of(store, generation).file(codes)
        add_to_buckets(store, filing, fresh.rows, codes, newest=True)


def _meet_again(store: Snapshot, name: bytes, new: NewImage) -> bool:
    """Handle an image that is there: the same delivery again, or one more source of it."""
    record = store.record_of(name)
    image = record.image
    if image.origin == new.origin:
        return True
    sources, labels = list(image.sources), list(image.labels)
    if new.source not in sources:
        sources.append(new.source)
    labels += [label for label in dict.fromkeys(new.labels) if label not in labels]
    richer = replace(
        image, sources=tuple(sources[:MOST_SOURCES]), labels=tuple(labels[:MOST_LABELS])
    )
    if richer != image:
        put_again(store, richer, record)
    return False


def put_again(store: Snapshot, richer: Image, record: Record) -> None:
    """Store a record that has gained sources, or labels after those that it had."""
    name = row_key(richer.row)
    store.txn.put(name, pack_record(richer, record.code), db=store.tables.images)
    for label in richer.labels[len(record.image.labels) :]:
        store.txn.put(label.encode(), name, db=store.tables.labels)


def _delete_one(store: Snapshot, identity: str, keys: Keys) -> int | None:
    row = store.row_of(identity)
    if row is None:
        return None
    record, name = store.record(row), row_key(row)
    for generation in generations(store):
        remove_from_bucket(store, keys.of(store, generation), row, record.code)
    txn, tables = store.txn, store.tables
    for label in record.image.labels:
        txn.delete(label.encode(), name, db=tables.labels)
    txn.delete(name, db=tables.images)
    txn.delete(bytes.fromhex(identity), db=tables.content)
    return row
