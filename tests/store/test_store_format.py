"""Stores written by earlier versions open, and go on working."""

import shutil
from pathlib import Path

import pytest
from store_world import make_id, make_image, make_query, make_spec

from store import Shard

FIXTURES = Path(__file__).parent / "fixtures"
COUNT = 30


def write_fixture(folder, bits):
    """Write what a fixture holds; called once for each format, see `fixtures/README.md`."""
    with Shard.open(folder, make_spec(bits)) as shard:
        shard.insert([make_image(number, bits) for number in range(COUNT)])
        shard.insert([make_image(5, bits, origin="other", source="http://example.org/5")])
        shard.delete([make_id(9)])


@pytest.mark.parametrize("bits", [20, 128])
@pytest.mark.parametrize("version", [1])
def test_a_store_of_an_earlier_format_opens(tmp_path, version, bits):
    shutil.copytree(FIXTURES / f"format-{version}-{bits}-bits", tmp_path / "old")
    with Shard.open(tmp_path / "old", make_spec(bits)) as shard:
        assert shard.check().problems == ()
        assert shard.count() == COUNT - 1
        assert shard.get(make_id(9)) is None
        assert shard.get(make_id(5)).sources == ("/photos/5.jpg", "http://example.org/5")
        write_fixture(tmp_path / "new", bits)
        with Shard.open(tmp_path / "new", make_spec(bits)) as new:
            for candidates in (None, 12):
                query = make_query(make_image(3, bits), candidates=candidates)
                assert shard.search(query).hits == new.search(query).hits
        assert shard.insert([make_image(9, bits)])[0].created
        assert shard.check().problems == ()
