"""What may be asked of a search besides its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MIN_EFFORT, DEFAULT_EFFORT, MAX_EFFORT = 1, 4, 10
DEFAULT_K = 24
COLLAPSE_DISTANCE = 0.2
"""What suits copies of a photo with the default bundles; docs/quality.md has the measurement."""
MAX_COLLAPSED_K = 1_000
"""Most hits with near-duplicates folded: each hit is compared with all others."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What may be asked of a search besides its image.

    Attributes:
        k: Most hits.
        effort: Time against recall, 1 to 10; see ``workers.searching``.
        max_distance: Hits are at most this far; ``None`` sets no bound.
        labels: Hits have at least one of these; none asks for nothing.
        source: One of a hit's sources starts with this.
        since: Hits were added then or later, Unix time in seconds.
        until: Hits were added before then, Unix time in seconds.
        collapse: Hits whose features are no farther apart than this count as one picture;
            ``None`` keeps them apart.
    """

    k: int = DEFAULT_K
    effort: int = DEFAULT_EFFORT
    max_distance: float | None = None
    labels: tuple[str, ...] = ()
    source: str = ""
    since: float | None = None
    until: float | None = None
    collapse: float | None = None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SearchOptions:
        """Return the options that :meth:`to_dict` was called on, also after a trip as JSON."""
        return cls(**{**plain, "labels": tuple(plain.get("labels", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in plain types."""
        return {**asdict(self), "labels": list(self.labels)}
