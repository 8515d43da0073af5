"""What was exported and imported is the same collection, and importing twice changes nothing."""

import json
import os
import random
import shutil
import signal
import time
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from store_world import DIMS, find, make_id, make_image, make_query, make_spec

from ops.drill.small import small_segments
from store import Shard, StoreMismatch, transfer
from store.errors import TransferError
from store.exporting import export
from store.importing import home_of, import_images

ROWS = 16
KINDS = ["npz", "parquet"]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK_IMAGES", 7)
    with small_segments(ROWS):
        yield


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"images.{request.param}"


def fill(shard, count=40, bits=20):
    odd = os.fsdecode(b"/photos/caf\xe9.jpg")
    for number in range(count):
        labels = ("even", "größe") if number % 2 == 0 else ()
        image = make_image(number, bits, source=odd if number == 4 else None, labels=labels)
        shard.insert([image])
    shard.insert([make_image(5, bits, origin="other", source="http://example.org/5")])
    shard.delete([make_id(number) for number in (9, 17, 18)])


def opening(folder, *, shards=1, spec=None):
    """What opens the shards of a collection, or makes them for the spec of the file."""

    @contextmanager
    def opened(found):
        with ExitStack() as stack:
            paths = [folder / f"{index}-of-{shards}" for index in range(shards)]
            yield [stack.enter_context(Shard.open(path, spec or found)) for path in paths]

    return opened


def records(shard):
    return [replace(image, row=0) for image in shard.recent(10**6)]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("bits", [20, 128])
def test_an_imported_collection_answers_as_the_exported_one(tmp_path, file, bits, metric, stored):
    centres = np.random.default_rng(0).integers(0, 256, (9, 16)).astype(np.uint8)
    spec = make_spec(bits, metric=metric, centres=centres if bits > 24 else None)
    with Shard.open(tmp_path / "one", spec) as shard:
        fill(shard, bits=bits)
        done = export([shard], file, stored=stored)
        assert done.images == 37
        assert done.bytes == file.stat().st_size
        told = import_images(file, opening(tmp_path / "two"))
        assert (told.images, told.added, told.refused) == (37, 37, 0)
        with Shard.open(tmp_path / "two" / "0-of-1", spec) as other:
            assert other.check().problems == ()
            assert records(other) == records(shard)
            assert other.labels() == shard.labels()
            for number, candidates in ((3, None), (9, None), (5, 12)):
                query = make_query(make_image(number, bits), candidates=candidates, k=37)
                found, expected = find(other, query), find(shard, query)
                if stored or metric == "cosine":
                    assert found == expected
                assert [hit.id for hit in found] == [hit.id for hit in expected]


def test_importing_twice_changes_nothing(tmp_path, file):
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], file)
        before = records(shard)
        told = import_images(file, lambda _: opened_already(shard))
        assert (told.added, told.enriched, told.unchanged) == (0, 0, 37)
        assert records(shard) == before
        assert shard.stats().rows_used == 40


@contextmanager
def opened_already(shard):
    yield [shard]


def test_known_images_gain_sources_and_labels_and_keep_their_own(tmp_path, file):
    with (
        Shard.open(tmp_path / "one", make_spec()) as one,
        Shard.open(tmp_path / "two", make_spec()) as two,
    ):
        one.insert([make_image(n, source=f"/a/{n}", labels=("a",)) for n in range(5)])
        two.insert([make_image(n, source=f"/b/{n}", origin="b", labels=("b",)) for n in (3, 7)])
        export([one], file)
        told = import_images(file, lambda _: opened_already(two))
        assert (told.added, told.enriched, told.unchanged) == (4, 1, 0)
        assert two.get(make_id(3)).sources == ("/b/3", "/a/3")
        assert two.get(make_id(3)).labels == ("b", "a")
        assert two.get(make_id(3)).origin == "b"
        assert two.labels() == {"a": 5, "b": 2}
        assert two.check().problems == ()


def test_shards_are_exported_as_one_and_images_find_their_shard(tmp_path, file):
    with ExitStack() as stack:
        spec = make_spec()
        shards = [stack.enter_context(Shard.open(tmp_path / str(i), spec)) for i in range(3)]
        for number in range(30):
            shards[home_of(make_id(number), 3)].insert([make_image(number)])
        assert export(shards, file).images == 30
    import_images(file, opening(tmp_path / "two", shards=2))
    for index in range(2):
        with Shard.open_existing(tmp_path / "two" / f"{index}-of-2") as shard:
            found = {image.id for image in shard.recent(100)}
            everything = {make_id(number) for number in range(30)}
            assert found == {each for each in everything if int(each[:8], 16) % 2 == index}


def test_numpy_loads_everything_at_once(tmp_path):
    path = tmp_path / "images.npz"
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], path)
        with np.load(path) as found:
            arrays = dict(found)
        assert json.loads(str(arrays["spec"]))["bundle"] == make_spec().bundle_id
        begin = 0
        for i, end in enumerate(arrays["text_ends"].tolist()):
            texts = json.loads(arrays["texts"][begin:end].tobytes())
            image = shard.get(arrays["id"][i].decode())
            assert tuple(texts["sources"]) == image.sources
            assert arrays["added_at"][i] == image.added_at
            assert (arrays["width"][i], arrays["size"][i]) == (640, 12_345)
            code, feature = shard.vectors(image.id)
            assert np.array_equal(arrays["code"][i], code)
            assert np.array_equal(arrays["feature"][i], feature)
            begin = end


def test_pandas_like_tools_read_the_parquet_file(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "images.parquet"
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], path)
        for row in pq.read_table(path).to_pylist():
            image = shard.get(row["id"])
            assert tuple(row["labels"]) == image.labels
            if row["source_bytes"] is None:
                assert tuple(row["sources"]) == image.sources
            assert np.array_equal(row["feature"], shard.vectors(image.id)[1])


def own_vectors(path, **changed):
    """A file of vectors that were computed elsewhere: with id, code and feature only."""
    images = [make_image(number) for number in range(6)]
    arrays = {
        "id": np.array([image.id for image in images]),
        "code": np.array([image.code for image in images]),
        "feature": np.array([image.feature for image in images]).astype(np.float64),
    }
    arrays |= changed
    np.savez_compressed(path, **{name: a for name, a in arrays.items() if a is not None})
    return path


def test_vectors_of_other_tools_are_imported_too(tmp_path):
    path = own_vectors(tmp_path / "own.npz")
    told = import_images(path, opening(tmp_path / "two", spec=make_spec()))
    assert told.added == 6
    with Shard.open_existing(tmp_path / "two" / "0-of-1") as shard:
        assert shard.get(make_id(2)).sources == ("import:own.npz",)
        assert find(shard, make_query(make_image(2), k=1))[0].id == make_id(2)


def test_bad_rows_are_named_and_the_others_are_stored(tmp_path):
    ids = np.array([make_id(number) for number in range(6)])
    ids[1] = "x" * 32
    features = np.array([make_image(number).feature for number in range(6)])
    features[4, 3] = np.nan
    codes = np.array([make_image(number).code for number in range(6)])
    codes[5, -1] |= 1
    path = own_vectors(tmp_path / "own.npz", id=ids, feature=features, code=codes)
    told = import_images(path, opening(tmp_path / "two", spec=make_spec()))
    assert (told.added, told.refused) == (3, 3)
    assert [problem.partition(",")[0] for problem in told.problems] == ["row 1", "row 4", "row 5"]
    assert "hex digits" in told.problems[0]
    assert "finite" in told.problems[1]


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"code": None}, TransferError, "lacks the array code"),
        ({"feature": np.zeros((5, DIMS), np.float32)}, TransferError, "not as long as id"),
        ({"feature": np.zeros((6, 3), np.float32)}, StoreMismatch, "features of shape"),
        ({"code": np.zeros((6, 9), np.uint8)}, StoreMismatch, "codes of shape"),
        ({"id": np.array([None] * 6)}, TransferError, "objects"),
        ({"spec": np.array("{}")}, TransferError, "which bundle"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, changed, error, told):
    path = own_vectors(tmp_path / "own.npz", **changed)
    with pytest.raises(error, match=told):
        import_images(path, opening(tmp_path / "two", spec=make_spec()))


@pytest.mark.parametrize(
    "other", [make_spec(bundle_id="other@1"), make_spec(24), make_spec(metric="l2")], ids=str
)
def test_a_file_of_another_bundle_is_refused(tmp_path, file, other):
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], file)
    with pytest.raises(StoreMismatch):
        import_images(file, opening(tmp_path / "two", spec=other))


def test_files_of_no_known_kind_or_none_are_told(tmp_path, file):
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        with pytest.raises(TransferError, match=r"\.npz or \.parquet"):
            export([shard], tmp_path / "x.csv")
        with pytest.raises(TransferError, match="no file"):
            import_images(file, lambda _: opened_already(shard))
        file.write_bytes(b"something else")
        with pytest.raises(TransferError, match="cannot be read"):
            import_images(file, lambda _: opened_already(shard))
        assert export([shard], file).images == 0
        assert import_images(file, lambda _: opened_already(shard)).images == 0


def test_a_flipped_bit_in_an_archive_is_found(tmp_path):
    path = tmp_path / "images.npz"
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], path)
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("feature.npy").header_offset
        content = bytearray(path.read_bytes())
        content[start + 400] ^= 1
        path.write_bytes(content)
        with pytest.raises(TransferError, match="CRC"):
            import_images(path, lambda _: opened_already(shard))
    with pytest.raises(TransferError, match="CRC"):
        import_images(path, opening(tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_an_export_that_fails_leaves_the_file_that_was_there(tmp_path, file, monkeypatch):
    file.write_text("before")

    def fail(*_):
        raise KeyboardInterrupt

    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        with pytest.raises(KeyboardInterrupt):
            export([shard], file, progress=fail)
    assert file.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "one"]


def test_an_export_is_of_one_moment_whatever_is_written_meanwhile(tmp_path, file):
    with (
        Shard.open(tmp_path / "one", make_spec()) as shard,
        Shard.open(tmp_path / "two", make_spec()) as other,
    ):
        fill(shard)
        before = records(shard)
        export([shard], file, progress=lambda *_: other.insert([make_image(other.count())]))
        import_images(file, opening(tmp_path / "three"))
        with Shard.open_existing(tmp_path / "three" / "0-of-1") as third:
            assert records(third) == before


def test_an_import_that_is_killed_is_finished_by_the_next(tmp_path, file):
    chance = random.Random(6)
    with Shard.open(tmp_path / "one", make_spec()) as shard:
        fill(shard)
        export([shard], file)
        expected = records(shard)
    for _ in range(8):
        shutil.rmtree(tmp_path / "two", ignore_errors=True)
        child = os.fork()
        if child == 0:
            import_images(file, opening(tmp_path / "two"))
            os._exit(0)
        time.sleep(chance.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        import_images(file, opening(tmp_path / "two"))
        with Shard.open_existing(tmp_path / "two" / "0-of-1") as shard:
            assert records(shard) == expected
            assert shard.check().problems == ()
