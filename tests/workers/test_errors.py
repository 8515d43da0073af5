"""What the store and networks say is told as what is wrong and what to do about it."""

from __future__ import annotations

import pytest

from workers.errors import what_and_remedy


@pytest.mark.parametrize(
    ("said", "what", "remedy"),
    [
        ("the page is lost; restore a backup", "the page is lost.", "Restore a backup."),
        ("/a is no store (b; c); take another", "/a is no store (b; c).", "Take another."),
        ("the store is closed", "the store is closed.", ""),
        ("is it closed?", "is it closed?", ""),
        ("it fails; ask `who`!", "it fails.", "Ask `who`!"),
        ("", ".", ""),
    ],
)
def test_what_is_wrong_and_the_remedy_are_sentences(said: str, what: str, remedy: str) -> None:
    assert what_and_remedy(ValueError(said)) == (what, remedy)
