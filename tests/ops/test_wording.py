"""Numbers of things as people say them."""

from __future__ import annotations

import pytest

from ops.wording import counted


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [
        (1, "shard", "1 shard"),
        (0, "image", "0 images"),
        (60_000, "image", "60,000 images"),
        (1, "query", "1 query"),
        (2, "query", "2 queries"),
    ],
)
def test_a_single_thing_is_told_in_the_singular(count: int, thing: str, said: str) -> None:
    assert counted(count, thing) == said
