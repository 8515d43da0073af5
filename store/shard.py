"""A shard: the images of one LMDB environment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from store import segments, writing
from store.buckets import open_buckets
from store.candidates import Candidates, Share, find_candidates
from store.check import check_records
from store.compaction import clear_drafts
from store.datafile import data_path, inspect, page_problems
from store.environment import MAP_BYTES, Environment, translated
from store.errors import NotAStore, StoreDamaged
from store.filing import Keys
from store.layout import FORMAT, Tables, Txn, open_tables, read_header, write_header
from store.matching import insist_on_match
from store.mirror import Mirror
from store.reading import features_of, hits_of
from store.search import search
from store.segments import SegmentMoved, Segments
from store.snapshot import Cache, Snapshot
from store.spec import (
    CheckReport,
    Features,
    Hit,
    Image,
    Inserted,
    NewImage,
    Partial,
    Query,
    ShardStats,
    StoreSpec,
)
from store.upkeep import Upkeep
from store.validation import check_group, check_query
from store.values import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import lmdb
    from numpy.typing import NDArray

    from store.buckets import Buckets

    T = TypeVar("T")

_TRIES = 5
"""How often a read begins anew because a segment was compacted under it."""


class Shard(Upkeep):
    """Images that are stored and searched together; made by `open` or `open_existing`.

    Threads of a process share one object. Any number of processes may have the same shard open:
    one writes at a time, readers never wait, and each read sees what was committed before it
    began. After a fork the child must open the shard itself, which works if the parent had not
    opened it before.

    Every method raises `StoreClosed` after `close()` or in a forked child, and `StoreDamaged`
    when it meets contradictions.
    """

    def __init__(
        self, path: Path, env: Environment, tables: Tables, spec: StoreSpec, files: Segments
    ) -> None:
        self._path = path
        self._env = env
        self._tables = tables
        self._spec = spec
        self._files = files
        self._keys = Keys(spec)
        self._cache = Cache(Mirror(self._keys, self._read))

    @classmethod
    def open(cls, path: Path | str, spec: StoreSpec, *, map_bytes: int = MAP_BYTES) -> Self:
        """Open a shard, or create it where there is none.

        Args:
            path: Folder of the shard.
            spec: What the shard is for.
            map_bytes: First size of the memory map; it grows by itself.

        Raises:
            StoreMismatch: It was built with another bundle.
            StoreVersionError: It has a newer format.
            StoreInUse: This process has it open.
            StoreReadOnly: The folder may not be written.
            NotAStore: The path is something else.
            StoreDamaged: The data file is cut off.
            ValueError: The spec contradicts itself.
        """
        open_buckets(spec)
        return cls._open(Path(path), spec, map_bytes)

    @classmethod
    def open_existing(cls, path: Path | str) -> Self:
        """Open a shard that is there, for the bundle that it was built with.

        Raises:
            NotAStore: There is no shard.
            StoreError: As for `open`.
        """
        folder = Path(path)
        with translated(folder):
            header = inspect(folder)
        if header is None:
            raise NotAStore(f"there is no store in {folder}; check the path, or ingest first")
        return cls._open(folder, None, MAP_BYTES)

    @classmethod
    def _open(cls, folder: Path, wanted: StoreSpec | None, map_bytes: int) -> Self:
        env = Environment(folder, map_bytes=map_bytes)
        try:
            tables, spec = env.setup(partial(_tables_and_spec, wanted))
            if wanted is not None:
                insist_on_match(folder, spec, wanted)
            shard = cls(folder, env, tables, spec, _segment_files(folder, spec))
            env.write(lambda txn: _sort_out_files(shard._snapshot(txn)))
        except BaseException:
            env.close()
            raise
        return shard

    @property
    def path(self) -> Path:
        """Folder of the shard."""
        return self._path

    @property
    def spec(self) -> StoreSpec:
        """What the shard was made for."""
        return self._spec

    def insert(self, batch: Sequence[NewImage]) -> list[Inserted]:
        """Store a batch of images in one transaction: all of them or none.

        On return the batch is on the disk and every search that begins finds it. Delivering
        the same (id, origin) again changes nothing and has the same outcome.

        Returns:
            The outcome of each image, in order.

        Raises:
            ValueError: An id, code, feature or label has the wrong form; nothing was stored.
            StoreFull: There is no room; nothing was stored.
        """
        if not batch:
            return []
        prepared = writing.prepare(batch, self._spec, self._keys)
        return self._write(lambda store: writing.insert(store, prepared, self._keys))

    def delete(self, ids: Sequence[str]) -> list[bool]:
        """Remove images in one transaction; no search that begins later finds them.

        Returns:
            For each id whether it was there.

        Raises:
            StoreFull: There is no room for the change; nothing was removed.
        """
        if not ids:
            return []
        return self._write(lambda store: writing.delete(store, ids, self._keys))

    def search(self, query: Query, *, group: int = 0, groups: int = 1) -> Partial:
        """Find the images that are most like a query.

        With several groups, only images whose row leaves `group` when divided by `groups` are
        compared. Merging the answers of all groups gives what one search of
        everything gives.

        Raises:
            ValueError: The query or the group has the wrong form.
        """
        check_query(query, self._spec)
        check_group(group, groups)
        share = Share(group, groups)
        return self._read(lambda store: search(store, self._buckets(store), [query], share))[0]

    def search_many(self, queries: Sequence[Query]) -> list[Partial]:
        """Answer several queries at one moment; a feature that several compare is read once.

        Raises:
            ValueError: A query has the wrong form.
        """
        for query in queries:
            check_query(query, self._spec)
        if not queries:
            return []
        whole = Share(0, 1)
        return self._read(lambda store: search(store, self._buckets(store), queries, whole))

    def candidates(self, query: Query) -> Candidates:
        """Find the images whose codes are nearest to a query's, the first half of a search.

        Raises:
            ValueError: The query has the wrong form.
        """
        check_query(query, self._spec)
        whole = Share(0, 1)
        return self._read(
            lambda store: find_candidates(
                store, self._buckets(store), query, whole, lambda _: None
            )
        )

    def hits(self, answer: Partial) -> list[Hit]:
        """Read the records of an answer; images that were deleted since are left out."""
        return self._read(lambda store: hits_of(store, answer))

    def features(self, ids: NDArray[np.uint8]) -> Features:
        """Read the features of many images, far faster than one by one.

        Args:
            ids: shape=(M, 16), as in `Partial`.
        """
        return self._read(lambda store: features_of(store, ids))

    def get(self, identity: str) -> Image | None:
        """Return the record of an image, or None where there is none of this id."""

        def work(store: Snapshot) -> Image | None:
            row = store.row_of(identity)
            return None if row is None else store.record(row).image

        return self._read(work)

    def vectors(self, identity: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Return what an image is compared by, or None where there is none of this id.

        Returns:
            Code, shape=(W,), dtype=uint8, and feature, shape=(D,), dtype=float32, rounded as
            it is stored.
        """

        def work(store: Snapshot) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
            row = store.row_of(identity)
            if row is None:
                return None
            heads, values = store.feature(row)
            code = np.frombuffer(store.record(row).code, np.uint8)
            return code, restore(values, heads["scale"])[0]

        return self._read(work)

    def recent(self, limit: int, before_row: int | None = None) -> list[Image]:
        """Return the newest images, newest first; with a row, those older than it.

        Raises:
            ValueError: The limit is less than 1, or the row less than 0.
        """
        if limit < 1 or (before_row is not None and before_row < 0):
            raise ValueError(
                f"expected a limit from 1 and a row from 0, got {limit}, {before_row}"
            )

        def work(store: Snapshot) -> list[Image]:
            records = store.records_before(before_row)
            return [record.image for _, record in zip(range(limit), records, strict=False)]

        return self._read(work)

    def labels(self) -> dict[str, int]:
        """Return each label with the number of its images."""
        return self._read(Snapshot.labels)

    def count(self) -> int:
        """Return the number of images."""
        return self._read(Snapshot.count)

    def warm_up(self) -> None:
        """Read the codes into memory and wait for it; searches have it done in the background."""
        self._read(self._cache.mirror.begin)
        self._cache.mirror.wait()

    def stats(self) -> ShardStats:
        """Return figures about the shard."""
        return ShardStats(
            path=str(self._path),
            format=FORMAT,
            bundle_id=self._spec.bundle_id,
            bits=self._spec.bits,
            dims=self._spec.dims,
            metric=self._spec.metric,
            file_bytes=data_path(self._path).stat().st_blocks * 512 + self._files.file_bytes(),
            map_bytes=self._env.map_bytes(),
            readers=self._env.readers(),
            **self._read(self._figures),
        )

    def check(self) -> CheckReport:
        """Cross-check every record and name what is wrong. Writers wait meanwhile."""
        # The walk over the pages comes first: LMDB itself trusts them, and might crash.
        problems = self._env.write(lambda _: page_problems(self._path))
        if problems:
            return CheckReport(images=self.count(), problems=tuple(problems))
        try:
            return self._read(self._checked)
        except StoreDamaged as error:
            return CheckReport(images=self.count(), problems=(str(error),))

    def close(self) -> None:
        """Wait for running calls of other threads, and close. Again does nothing."""
        self._env.close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, store: Snapshot) -> CheckReport:
        """Check a snapshot; it takes long, so files that are compacted meanwhile are kept."""
        with self._files.kept():
            for segment in store.segments():
                if store.files.is_whole(segment.number, segment.version, segment.slots):
                    store.mapped(segment)
            return check_records(store, self._keys)

    def _figures(self, store: Snapshot) -> dict[str, Any]:
        directory = store.directory()
        files = list(store.segments())
        return {
            "images": store.count(),
            "rows_used": store.number("next_row"),
            "buckets": len(directory.keys),
            "largest_bucket": int(directory.counts.max(initial=0)),
            "generation": store.number("generation"),
            "centres": self._buckets(store).centres,
            "segments": len(files),
            "dead_slots": sum(segment.dead for segment in files),
            "used_bytes": store.used_bytes(),
        }

    def _buckets(self, store: Snapshot) -> Buckets:
        return self._keys.current(store).buckets

    def _snapshot(self, txn: Txn, cache: Cache | None = None) -> Snapshot:
        return Snapshot(txn, self._tables, self._spec, self._files, cache)

    def _write(self, work: Callable[[Snapshot], T]) -> T:
        return self._env.write(lambda txn: work(self._snapshot(txn)))

    def _read(self, work: Callable[[Snapshot], T]) -> T:
        for _ in range(_TRIES):
            with suppress(SegmentMoved):
                return self._env.read(lambda txn: work(self._snapshot(txn, self._cache)))
        raise StoreDamaged(f"a file of {self._files.folder} is missing; restore a backup")


def _tables_and_spec(
    wanted: StoreSpec | None, env: lmdb.Environment, txn: Txn
) -> tuple[Tables, StoreSpec]:
    """Open the tables; create them for a spec if nobody has yet."""
    create = wanted is not None and txn.stat()["entries"] == 0
    tables = open_tables(env, txn, create=create)
    if create and wanted is not None:
        write_header(txn, tables, wanted)
    return tables, read_header(txn, tables)


def _segment_files(folder: Path, spec: StoreSpec) -> Segments:
    with translated(folder):
        (folder / segments.FOLDER).mkdir(exist_ok=True)
    return Segments(folder / segments.FOLDER, spec.dims)


def _sort_out_files(store: Snapshot) -> None:
    """Insist that what was committed is there, and delete what was left over."""
    current = list(store.segments())
    for segment in current:
        store.files.insist_on(segment.number, segment.version, segment.slots)
    store.files.remove_others({(segment.number, segment.version) for segment in current})
    clear_drafts(store.files)
