"""Which images a query may find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store.layout import seconds
from store.spec import check_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.snapshot import Snapshot
    from store.spec import Filter


@dataclass(frozen=True, slots=True)
class Sieve:
    """A filter, applied to the images of one snapshot.

    Labels and times are looked up in bulk. A source is looked up in the image's record, which
    costs some microseconds, so it is asked last.
    """

    store: Snapshot
    filter: Filter
    labelled: NDArray[np.int64] | None
    begin: bytes

    @classmethod
    def of(cls, store: Snapshot, wanted: Filter) -> Sieve:
        """Prepare a filter.

        Raises:
            ValueError: It asks for a label that no image can have, or a time that is no number.
        """
        _check(wanted)
        labelled = store.labelled(wanted.labels) if wanted.labels else None
        return cls(store, wanted, labelled, wanted.source.encode(errors="surrogateescape"))

    def passing(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images pass.

        Args:
            rows: shape=(N,), in any order, each once.

        Returns:
            shape=(N,), dtype=bool.
        """
        kept = np.ones(len(rows), np.bool_)
        if self.labelled is not None:
            kept &= np.isin(rows, self.labelled)
        if self.filter.since is not None or self.filter.until is not None:
            kept[kept] = self._in_time(rows[kept])
        if self.filter.source:
            kept[kept] = [self._has_source(row) for row in rows[kept].tolist()]
        return kept

    def _in_time(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        order = np.argsort(rows)
        added = np.empty(len(rows), np.int64)
        added[order] = self.store.heads(rows[order])["added"]
        kept = np.ones(len(rows), np.bool_)
        if self.filter.since is not None:
            kept &= added >= seconds(self.filter.since)
        if self.filter.until is not None:
            kept &= added < seconds(self.filter.until)
        return kept

    def _has_source(self, row: int) -> bool:
        if not self.store.mentions(row, self.begin):
            return False
        sources = self.store.record(row).image.sources
        return any(source.startswith(self.filter.source) for source in sources)


def _check(wanted: Filter) -> None:
    for label in wanted.labels:
        check_label(label)
    for moment in (wanted.since, wanted.until):
        if moment is not None and math.isnan(moment):
            raise ValueError(f"expected a time in seconds, got {moment}")
