"""Stores of the present format open for ever; those of earlier ones ask to be migrated."""

import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from store_world import FIXTURES, make_id, make_image, make_query, make_spec, unpack_fixture

from store import Shard, StoreVersionError

COUNT = 30


def write_fixture(path, bits):
    """Write a fixture as a .tar.gz; called once for each format, see `fixtures/README.md`."""
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, bits)
        with tarfile.open(path, "w:gz") as archive:
            for part in ("data.mdb", "segments"):
                archive.add(Path(folder, part), part)


def fill(folder, bits):
    with Shard.open(folder, make_spec(bits)) as shard:
        shard.insert([image(number, bits) for number in range(COUNT)])
        again = {"source": "http://example.org/5", "labels": ("five",)}
        shard.insert([make_image(5, bits, origin="other", **again)])
        shard.delete([make_id(9)])


def image(number, bits):
    return make_image(number, bits, labels=("even", "all") if number % 2 == 0 else ("all",))


@pytest.mark.parametrize("bits", [20, 128])
def test_a_store_written_by_the_first_release_of_format_2_opens(tmp_path, bits):
    unpack_fixture(f"format-2-{bits}-bits", tmp_path / "old")
    fill(tmp_path / "new", bits)
    with (
        Shard.open(tmp_path / "old", make_spec(bits)) as shard,
        Shard.open(tmp_path / "new", make_spec(bits)) as new,
    ):
        assert shard.check().problems == ()
        assert shard.count() == COUNT - 1
        assert shard.get(make_id(9)) is None
        assert shard.get(make_id(5)).sources == ("/photos/5.jpg", "http://example.org/5")
        assert shard.get(make_id(5)).labels == ("all", "five")
        assert shard.labels() == {"all": COUNT - 1, "even": COUNT // 2, "five": 1}
        assert shard.recent(COUNT) == new.recent(COUNT)
        for candidates in (None, 12):
            query = make_query(image(3, bits), candidates=candidates)
            assert shard.search(query) == new.search(query)
        assert shard.insert([image(9, bits)])[0].created
        assert shard.check().problems == ()


@pytest.mark.parametrize("bits", [20, 128])
def test_a_store_of_format_1_is_refused_untouched_with_the_command_that_migrates_it(
    tmp_path, bits
):
    shutil.copytree(FIXTURES / f"format-1-{bits}-bits", tmp_path / "old")
    before = (tmp_path / "old" / "data.mdb").read_bytes()
    for use in (
        lambda: Shard.open(tmp_path / "old", make_spec(bits)),
        lambda: Shard.open_existing(tmp_path / "old"),
    ):
        with pytest.raises(StoreVersionError, match=r"format 1.*`lookalike store migrate`"):
            use()
    assert (tmp_path / "old" / "data.mdb").read_bytes() == before
    assert not (tmp_path / "old" / "segments").exists()
