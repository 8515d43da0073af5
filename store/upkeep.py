"""What keeps a shard small and fast while it is searched and written: the long operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from store import compaction, retraining
from store.compaction import DEAD_SHARE, Compacted, Source
from store.environment import translated
from store.retraining import STEP_ROWS, Retraining
from store.segments import Segments
from store.snapshot import Snapshot
from store.spec import StoreSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from store.filing import Keys

T = TypeVar("T")


class Upkeep(ABC):
    """The part of `store.Shard` that compacts and retrains.

    Everything here is done in short transactions: searches and writes of any process go on, and
    a process that is killed leaves a store that needs no repair.
    """

    _path: Path
    _spec: StoreSpec
    _files: Segments
    _keys: Keys

    def compact(
        self,
        *,
        dead_share: float = DEAD_SHARE,
        most: int | None = None,
        progress: Callable[[Compacted], None] = lambda _: None,
    ) -> list[Compacted]:
        """Give the disk space of deleted features back, segment by segment.

        The last segment stays as it is, because images are still added to it.

        Args:
            dead_share: Segments of which less is dead stay as they are; with 0, all those with a
                dead slot are written anew.
            most: How many segments to compact at most, the deadest first; None is all.
            progress: Told of each segment.

        Returns:
            What was done; segments that another process is at are left out.

        Raises:
            ValueError: The share is not from 0 to 1.
            StoreFull: There is no room for the copy of a segment; those before it are done.
        """
        if not 0 <= dead_share <= 1:
            raise ValueError(f"expected a dead share from 0 to 1, got {dead_share}")
        numbers = self._read(lambda store: compaction.worth_compacting(store, dead_share))
        done = []
        for number in numbers[:most]:
            compacted = self._compact(number)
            if compacted is not None:
                done.append(compacted)
                progress(compacted)
        return done

    def retrain(
        self,
        centres: NDArray[np.uint8] | None = None,
        *,
        step: int = STEP_ROWS,
        progress: Callable[[Retraining], None] = lambda _: None,
    ) -> None:
        """File all images by other centre codes, or go on with what an earlier call began.

        Until it is done searches use the centres of before. See `store.retraining`.

        Args:
            centres: shape=(M, W), dtype=uint8, all different; None goes on, and does nothing
                where nothing is under way. Others than those of before replace them.
            step: Images filed in one transaction.
            progress: Told how far it has come after each step.

        Raises:
            NothingToRetrain: The codes are their own bucket key.
            ValueError: The centres have the wrong form, or the step is less than 1.
            StoreFull: There is no room; freeing some and calling again goes on.
        """
        if centres is not None:
            self.begin_retraining(centres)
        while self.retrain_step(step):
            state = self.retraining()
            if state is not None:
                progress(state)

    def begin_retraining(self, centres: NDArray[np.uint8]) -> None:
        """Begin what `retrain_step` goes on with; see `retrain`."""
        retraining.check_centres(centres, self._spec)
        self._write(lambda store: retraining.begin(store, centres))

    def retrain_step(self, step: int = STEP_ROWS) -> bool:
        """Do the next piece of a retraining; False where nothing is left to do.

        Raises:
            ValueError: The step is less than 1.
        """
        if step < 1:
            raise ValueError(f"expected a step of at least 1, got {step}")
        if self._read(retraining.to_sweep):
            self._write(retraining.sweep)
            return True
        batch = self._read(lambda store: retraining.next_batch(store, self._keys, step))
        if batch is not None:
            filing = batch.key.file(batch.codes)
            self._write(lambda store: retraining.file_batch(store, batch, filing))
            return True
        return self.retraining() is not None and self._write(retraining.switch)

    def retraining(self) -> Retraining | None:
        """Return how far a retraining has come, or None where there is none."""
        return self._read(retraining.under_way)

    def retraining_due(self) -> int:
        """Return how many centre codes to learn, or 0 where retraining would gain little."""
        return self._read(lambda store: retraining.centres_due(store, self._keys))

    def sample_codes(self, count: int, seed: int) -> NDArray[np.uint8]:
        """Draw codes of stored images without repetition, to learn centres from.

        Args:
            count: How many; all of them where there are fewer.
            seed: The same draws the same from an unchanged store.

        Returns:
            shape=(S, W), dtype=uint8.
        """
        return self._read(lambda store: retraining.draw(store, count, seed)).codes

    def sample_ids(self, count: int, seed: int) -> list[str]:
        """Draw ids of stored images without repetition; see `sample_codes`."""

        def work(store: Snapshot) -> list[str]:
            rows = retraining.draw(store, count, seed).rows.tolist()
            return [store.record(row).image.id for row in rows]

        return self._read(work)

    def bucket_sizes(self) -> NDArray[np.int64]:
        """Return the number of images in each occupied bucket, shape=(M,), dtype=int64."""
        return self._read(Snapshot.directory).counts

    def _compact(self, number: int) -> Compacted | None:
        source = self._read(lambda store: compaction.source_of(store, number))
        if source is None:
            return None
        before = self._files.bytes_of(number, source.segment.version)
        with translated(self._path):
            if not self._rewritten(source):
                return None
            after = self._files.bytes_of(number, source.segment.version + 1)
            self._files.remove(number, source.segment.version)
        return Compacted(
            segment=number, slots=len(source.rows) if after else 0, freed_bytes=before - after
        )

    def _rewritten(self, source: Source) -> bool:
        with compaction.draft_of(self._files, source) as draft:
            if draft is None:
                return False
            compaction.copy_live(self._files, source, draft)
            return self._write(lambda store: compaction.adopt(store, source, draft))

    @abstractmethod
    def _read(self, work: Callable[[Snapshot], T]) -> T:
        """Call `work` with a snapshot of the last commit."""

    @abstractmethod
    def _write(self, work: Callable[[Snapshot], T]) -> T:
        """Call `work` with a snapshot that may write, and commit."""
