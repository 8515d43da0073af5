"""Whether what a caller asks for can be meant; each refusal names what it is about."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from workers.client.parts import check_range
from workers.errors import InvalidRequest
from workers.options import MAX_COLLAPSED_K, MAX_EFFORT, MIN_EFFORT, SearchOptions

MAX_LABELS = 32
MAX_LABEL_CHARS = 64

_MAX_SOURCE_CHARS = 4096


def checked_options(options: SearchOptions, *, max_k: int) -> SearchOptions:
    """Return options with their texts tidied.

    Raises:
        InvalidRequest: One of them is out of range; the code is ``bad_`` and its name.
    """
    check_range("k", options.k, 1, max_k)
    check_range("effort", options.effort, MIN_EFFORT, MAX_EFFORT)
    _check_distance("max_distance", options.max_distance)
    _check_distance("collapse", options.collapse)
    if options.collapse is not None and options.k > MAX_COLLAPSED_K:
        raise InvalidRequest(
            f"k is {options.k:,} with near-duplicates folded.",
            remedy=f"It must be from 1 to {MAX_COLLAPSED_K:,} then.",
            code="bad_k",
        )
    _check_times(options.since, options.until)
    if len(options.source) > _MAX_SOURCE_CHARS:
        raise InvalidRequest(
            f"source has {len(options.source):,} characters.",
            remedy=f"At most {_MAX_SOURCE_CHARS:,} are taken.",
            code="bad_source",
        )
    # A source in the store has no halves of surrogate pairs, which no message could carry.
    source = options.source.encode(errors="replace").decode()
    return replace(options, labels=checked_labels(options.labels), source=source)


def checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels without what surrounds them, each once.

    Raises:
        InvalidRequest: One is empty, too long or holds a comma or control characters, or there
            are too many. The code is ``bad_labels``.
    """
    found = tuple(dict.fromkeys(label.strip() for label in labels))
    for label in found:
        if not label or len(label) > MAX_LABEL_CHARS or "," in label or not label.isprintable():
            raise InvalidRequest(
                f"{label[:MAX_LABEL_CHARS]!r} cannot be a label.",
                remedy=f"A label is 1 to {MAX_LABEL_CHARS} printable characters without a comma.",
                code="bad_labels",
            )
    if len(found) > MAX_LABELS:
        raise InvalidRequest(
            f"{len(found)} labels are too many.",
            remedy=f"Give at most {MAX_LABELS}.",
            code="bad_labels",
        )
    return found


def moment(name: str, given: str | float, *, zone: tzinfo | None = UTC) -> float:
    """Return the Unix time that a caller means, in seconds.

    Args:
        name: What the caller calls it.
        given: Unix time, or ISO 8601; a date alone is its first moment.
        zone: Where a time is read that names no zone; ``None`` is this machine's.

    Raises:
        InvalidRequest: It is no time. The code is ``bad_`` and the name.
    """
    try:
        seconds = float(given)
    except (ValueError, OverflowError):
        seconds = _iso_moment(str(given), zone)
    if math.isfinite(seconds):
        return seconds
    raise InvalidRequest(
        f"{name} is {str(given)[:40]!r}.",
        remedy="Write it as in 2026-11-23, 2026-11-23T18:30:00+01:00, or as Unix time in seconds.",
        code=f"bad_{name}",
    )


def _iso_moment(text: str, zone: tzinfo | None) -> float:
    try:
        read = datetime.fromisoformat(text.strip())
        return (read if read.tzinfo else read.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _check_distance(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise InvalidRequest(
            f"{name} is {value}.", remedy="It must be a number from 0 on.", code=f"bad_{name}"
        )


def _check_times(since: float | None, until: float | None) -> None:
    for name, value in (("since", since), ("until", until)):
        if value is not None and not math.isfinite(value):
            raise InvalidRequest(
                f"{name} is {value}.", remedy="It must be a time.", code=f"bad_{name}"
            )
    if since is not None and until is not None and since >= until:
        raise InvalidRequest(
            "until is not later than since, so that no image can fit.",
            remedy="Give a later one.",
            code="bad_until",
        )
