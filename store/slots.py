"""Which slots of the segments' files hold the features of which rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.errors import StoreDamaged
from store.layout import SEGMENT_ENTRY
from store.segments import SEGMENT_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Segment(NamedTuple):
    """What counts in a segment's file.

    Attributes:
        number: Of the segment.
        version: Of its file.
        slots: Slots that count.
        dead: Slots of deleted images among them.
        places: Of a compacted segment the rows in its slots, less the segment's first row:
            ascending, shape=(slots,), dtype=uint16. None where slot and place are the same.
    """

    number: int
    version: int
    slots: int
    dead: int
    places: NDArray[np.uint16] | None

    def slots_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of rows of this segment, ascending as they are, shape=(N,).

        Raises:
            StoreDamaged: A row has none.
        """
        wanted = rows - self.number * SEGMENT_ROWS
        slots = wanted if self.places is None else np.searchsorted(self.places, wanted)
        lacking = len(slots) > 0 and slots[-1] >= self.slots
        if lacking or (self.places is not None and (self.places[slots] != wanted).any()):
            raise StoreDamaged("a stored image lacks its feature; run the store check")
        return slots

    def pack(self) -> bytes:
        """Encode it as a value of the table `segments`."""
        entry = np.array([(self.version, self.slots, self.dead)], SEGMENT_ENTRY)
        return entry.tobytes() + (b"" if self.places is None else self.places.tobytes())


class Part(NamedTuple):
    """Those of some rows that are in one segment.

    Attributes:
        place: Where they stand among the rows.
        segment: Where they are.
        slots: Their slots in it, shape=(N,), ascending.
    """

    place: slice
    segment: Segment
    slots: NDArray[np.int64]


def unpack_segment(number: int, packed: Any) -> Segment:
    """Decode a value of the table `segments`.

    Raises:
        StoreDamaged: It is of another length than it says.
    """
    size = SEGMENT_ENTRY.itemsize
    if len(packed) < size:
        raise StoreDamaged(f"the entry of segment {number} cannot be read; restore a backup")
    version, slots, dead = np.frombuffer(packed[:size], SEGMENT_ENTRY)[0].tolist()
    if len(packed) not in (size, size + slots * 2):
        raise StoreDamaged(f"the entry of segment {number} cannot be read; restore a backup")
    places = np.frombuffer(bytes(packed[size:]), np.uint16) if len(packed) > size else None
    return Segment(number, version, slots, dead, places)
