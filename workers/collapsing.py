"""Folding near-duplicates among the hits of a search into the nearest of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store import Partial, near_duplicates
from workers.options import MAX_COLLAPSED_K

if TYPE_CHECKING:
    from workers.shards import Shards

MOST_HITS = 2 * MAX_COLLAPSED_K
"""Hits that are looked at for one answer."""


@dataclass(frozen=True)
class Kept:
    """A hit that stays.

    Attributes:
        place: Its place among the hits that were looked at.
        duplicates: Ids of those that were folded into it, the nearest first.
    """

    place: int
    duplicates: tuple[str, ...] = ()


def folded(shards: Shards, hits: Partial, *, metric: str, limit: float) -> list[Kept]:
    """Return the hits that stay when near-duplicates are folded, the nearest first.

    Args:
        shards: Where their features are.
        hits: Nearest first.
        metric: Of the features.
        limit: Features no farther apart than this are of one picture.
    """
    names, features = hits.names(), shards.features(hits.ids)
    there = np.flatnonzero(features.there).tolist()
    into: dict[int, list[str]] = {}
    for place, first in zip(there, near_duplicates(features, metric, limit), strict=True):
        into.setdefault(there[int(first)], []).append(names[place])
    return [Kept(place, tuple(of_it[1:])) for place, of_it in into.items()]
