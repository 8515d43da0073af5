"""What people are told of a job that is over."""

from __future__ import annotations

import pytest

from ops.cli.follow import describe, reasons
from workers.records import Counts, Job, JobKind, JobState


def over(counts: Counts, state: JobState = JobState.DONE) -> Job:
    """Return a job that took two seconds."""
    return Job(
        id="abc",
        kind=JobKind.FOLDER,
        label="photos",
        state=state,
        counts=counts,
        listing_done=True,
        created_at=1.0,
        started_at=1.0,
        finished_at=3.0,
        rate_per_s=5.0,
        eta_s=None,
        error=None,
    )


def test_the_rate_of_a_cancelled_job_is_left_out() -> None:
    # Most of what counts as finished was never begun.
    counts = Counts(submitted=10, indexed=1, cancelled=9)
    assert "images/s" in describe(over(counts))[0]
    assert "images/s" not in describe(over(counts, JobState.CANCELLED))[0]


@pytest.mark.parametrize(
    ("counts", "more"),
    [
        (
            Counts(submitted=6, rejected=6),
            "  and 6 more: `lookalike jobs show abc --items rejected`",
        ),
        (Counts(submitted=6, failed=6), "  and 6 more: `lookalike jobs show abc --items failed`"),
        (
            Counts(submitted=3, rejected=1, failed=2),
            (
                "  and 3 more: `lookalike jobs show abc --items rejected` "
                "and `lookalike jobs show abc --items failed`"
            ),
        ),
    ],
)
def test_where_the_other_refused_items_are_is_told(counts: Counts, more: str) -> None:
    assert reasons(over(counts), []) == [more]


def test_a_job_without_refused_items_has_no_reasons() -> None:
    assert reasons(over(Counts(submitted=2, indexed=2)), []) == []
