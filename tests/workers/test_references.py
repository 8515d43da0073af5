"""How images are referred to: any path survives, and what is shown can be printed."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from workers.references import path_of, to_file, to_upload, to_url


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_file_of_any_name_is_found_again(name: bytes) -> None:
    path = Path(os.fsdecode(b"/" + name))
    reference = to_file(path)
    assert path_of(reference.ref) == path
    assert reference.ref.isascii()
    reference.source.encode()


def test_a_plain_path_is_shown_as_it_is() -> None:
    assert to_file(Path("/photos/ä b%.jpg")).source == "/photos/ä b%.jpg"


def test_urls_and_uploads_are_told_apart() -> None:
    assert to_url("http://host/a").ref == to_url("http://host/a").source == "http://host/a"
    assert to_upload("abc", "../a.jpg").ref == "spool:abc"
    assert to_upload("abc", "../a.jpg").source == "upload:../a.jpg"
