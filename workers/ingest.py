"""Taking a batch of items in: fetch, decode, embed, store, and only then write the outcomes.

Any of it may happen twice, since messages are delivered at least once. The store recognises an
item by its origin, so an image that this item brought stays "indexed" at the second delivery, and
an outcome in the ledger is never overwritten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store import Image, Inserted, NewImage
from workers.decode import Decoded, image_id_of, read_file
from workers.decoders import ToDecode
from workers.dispatch import Dispatcher
from workers.errors import SettingsError, Unavailable, WorkerError
from workers.fetch import Fetcher
from workers.files import Files, writing
from workers.ledger import Outcome, Work
from workers.records import Failure, ItemState, Problem
from workers.references import path_of
from workers.resources import Resources
from workers.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

# Fetches of one batch at a time. They wait for other people's servers, so threads cost little,
# and few enough go to one host at once to be polite.
_FETCHES = 4


@dataclass(frozen=True)
class _Fed:
    """An item whose file is at hand."""

    work: Work
    file: ToDecode


def ingest(
    resources: Resources, dispatcher: Dispatcher, job_id: str, item_ids: Sequence[int]
) -> None:
    """Work off one message: give every item that has none its outcome, and send the next ones.

    Args:
        item_ids: Items of one job.
    """
    items = resources.ledger.items
    watch = Stopwatch()
    with watch.stage("claim"):
        claim = items.claim(job_id, item_ids)
    dispatcher.one_by_one(job_id, claim.suspects)
    hopeless = [work for work in claim.works if work.attempts > resources.settings.max_attempts]
    works = [work for work in claim.works if work not in hopeless]
    try:
        outcomes = [_given_up(work) for work in hopeless] + take_in(resources, works, watch)
    except (Unavailable, SettingsError) as error:
        # A full disk or a damaged store is nobody's fault among the items. They wait for the
        # sweep, which sends them again once their lease is over.
        logger.error("Job %s cannot go on now and is tried again later: %s", job_id, error)
        items.release(job_id, [work.id for work in claim.works])
        resources.ledger.jobs.note_trouble(job_id, Problem.of(error))
        resources.ledger.jobs.settle(job_id)  # it may have been cancelled meanwhile
        return
    with watch.stage("ledger"):
        items.finish(outcomes)
        resources.ledger.jobs.note_trouble(job_id, None)
        _tidy(resources.files, claim.works)
        settled = resources.ledger.jobs.settle(job_id)
    if not settled:
        with watch.stage("pump"):
            dispatcher.pump(job_id)
    stages_ms = watch.timings_ms
    logger.debug(
        "Took in %d items of job %s; milliseconds by stage: %s.",
        len(works),
        job_id,
        stages_ms,
        extra={"stages_ms": stages_ms},
    )


def take_in(resources: Resources, works: Sequence[Work], watch: Stopwatch) -> list[Outcome]:
    """Take items into the collection.

    Args:
        watch: Told how long the stages take.

    Returns:
        One outcome per item, in any order. Those that are indexed are durable by then.
    """
    with watch.stage("feed"):
        fed, failed = _feed(resources, works)
    with watch.stage("look_up"):
        there = [_stored_already(resources, entry) for entry in fed]
    unknown = [entry for entry, image in zip(fed, there, strict=True) if image is None]
    fresh: list[tuple[Work, NewImage]] = []
    parts = resources.decoders.decode_in_parts([entry.file for entry in unknown])
    entries = iter(unknown)
    for part in watch.waiting("decode", parts):
        results = list(zip(part, entries, strict=False))
        failed += [_failure(entry.work, bad) for bad, entry in results if isinstance(bad, Failure)]
        good = [(entry.work, ok) for ok, entry in results if isinstance(ok, Decoded)]
        # Part by part, so that the network runs while the next images are decoded.
        with watch.stage("embed"):
            fresh += _embedded(resources, good)
    again = [(entry.work, image) for entry, image in zip(fed, there, strict=True) if image]
    with watch.stage("store"):
        return failed + _note_again(resources, again) + _store(resources, fresh)


def _feed(resources: Resources, works: Sequence[Work]) -> tuple[list[_Fed], list[Outcome]]:
    """Bring the files of all items within reach of the decoders."""
    fed: list[_Fed] = []
    failed: list[Outcome] = []
    for work, path in zip(works, _paths(resources, works), strict=True):
        if isinstance(path, Failure):
            failed.append(_failure(work, path))
        else:
            fed.append(_Fed(work, ToDecode(path, work.source)))
    return fed, failed


def _paths(resources: Resources, works: Sequence[Work]) -> list[Path | Failure]:
    found = [_local_path(resources, work) for work in works]
    remote = [work for work, path in zip(works, found, strict=True) if path is None]
    # The pool starts a thread for each fetch that is asked for, and none for files at hand.
    with ThreadPoolExecutor(_FETCHES) as threads:
        fetched = threads.map(lambda work: _fetched_path(resources, work), remote)
        return [path or next(fetched) for path in found]


def _local_path(resources: Resources, work: Work) -> Path | None:
    kind, _, rest = work.ref.partition(":")
    if kind == "file":
        return path_of(work.ref)
    return resources.files.spooled(rest) if kind == "spool" else None


def _fetched_path(resources: Resources, work: Work) -> Path | Failure:
    try:
        return fetch_to_spool(
            resources.fetcher,
            resources.files,
            work.ref,
            name=_spool_name(work),
            max_bytes=resources.settings.max_image_bytes,
        )
    except Unavailable:
        raise  # a full disk is no fault of the item
    except WorkerError as error:
        return Failure.of(error)


def fetch_to_spool(fetcher: Fetcher, files: Files, url: str, *, name: str, max_bytes: int) -> Path:
    """Fetch a URL into a file of the spool and return its path.

    Raises:
        WorkerError: It cannot be had, see :meth:`workers.fetch.Fetcher.fetch`.
    """
    path = files.spooled(name)
    with writing(path) as sink:
        fetcher.fetch(url, sink, max_bytes=max_bytes)
    return path


def _embedded(
    resources: Resources, good: Sequence[tuple[Work, Decoded]]
) -> list[tuple[Work, NewImage]]:
    if not good:
        return []
    embedding = resources.embed(np.stack([decoded.pixels for _, decoded in good]))
    now = time.time()
    return [
        (
            work,
            NewImage(
                id=decoded.id,
                code=code,
                feature=feature,
                source=work.source,
                origin=work.origin,
                labels=work.labels,
                added_at=now,
                width_px=decoded.width_px,
                height_px=decoded.height_px,
                format=decoded.format,
                size_bytes=decoded.size_bytes,
            ),
        )
        for (work, decoded), code, feature in zip(
            good, embedding.codes, embedding.features, strict=True
        )
    ]


def _store(resources: Resources, fresh: Sequence[tuple[Work, NewImage]]) -> list[Outcome]:
    _keep_uploads(resources.files, fresh)
    inserted = resources.shards.insert([image for _, image in fresh])
    return [_stored(work, entry) for (work, _), entry in zip(fresh, inserted, strict=True)]


def _stored_already(resources: Resources, entry: _Fed) -> Image | None:
    """Return the image that a file is, if the collection has it whole.

    Reading and hashing take a hundredth of what decoding and the network do.
    """
    file = entry.file
    try:
        data = read_file(file.path, max_bytes=resources.settings.max_image_bytes, label=file.label)
    except WorkerError:
        # The decoder meets the same, and says what it is.
        return None
    image = resources.shards.get(image_id_of(data))
    whole = image is not None and resources.files.thumbnail(image.id).exists()
    return image if whole else None


def _note_again(resources: Resources, again: Sequence[tuple[Work, Image]]) -> list[Outcome]:
    """Note where known images came from this time."""
    gone: list[Outcome] = []
    batch: list[NewImage] = []
    kept: list[tuple[Work, Image]] = []
    for work, image in again:
        vectors = resources.shards.vectors(image.id)
        if vectors is None:
            # Deleted since it was looked up: it was there when it came.
            gone.append(Outcome(work.id, ItemState.DUPLICATE, image_id=image.id))
            continue
        kept.append((work, image))
        batch.append(
            NewImage(
                id=image.id,
                code=vectors[0],
                feature=vectors[1],
                source=work.source,
                origin=work.origin,
                labels=work.labels,
                added_at=image.added_at,
                width_px=image.width_px,
                height_px=image.height_px,
                format=image.format,
                size_bytes=image.size_bytes,
            )
        )
    _keep_uploads(resources.files, kept)
    inserted = resources.shards.insert(batch)
    return gone + [_stored(work, entry) for (work, _), entry in zip(kept, inserted, strict=True)]


def _stored(work: Work, inserted: Inserted) -> Outcome:
    state = ItemState.INDEXED if inserted.created else ItemState.DUPLICATE
    return Outcome(work.id, state, image_id=inserted.id)


def _failure(work: Work, failure: Failure) -> Outcome:
    return Outcome(work.id, failure.state, problem=failure.problem)


def _given_up(work: Work) -> Outcome:
    problem = Problem(
        "worker_died",
        f"{work.source} was taken up {work.attempts - 1} times and its worker died each time.",
        "Save it in another format; if it opens elsewhere, please report it.",
    )
    return Outcome(work.id, ItemState.FAILED, problem=problem)


def _spool_name(work: Work) -> str:
    """Return the name of an item's file in the spool; empty for one that stays where it is."""
    kind, _, rest = work.ref.partition(":")
    if kind == "spool":
        return rest
    return "" if kind == "file" else f"item-{work.id}"


def _keep_uploads(files: Files, taken: Sequence[tuple[Work, NewImage | Image]]) -> None:
    for work, image in taken:
        if work.ref.startswith("spool:"):
            files.keep_original(files.spooled(_spool_name(work)), image.id)


def _tidy(files: Files, works: Sequence[Work]) -> None:
    """Empty the spool of what has its outcome; until then a second delivery may need it."""
    for work in works:
        if name := _spool_name(work):
            files.drop(files.spooled(name))
