"""Many shards are one collection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from store import NewImage, Query
from workers.errors import InvalidRequest, SettingsError, Unavailable
from workers.shards import Shards

DIMS, BITS = 4, 16


def a_bundle(name: str = "tiny@0123456789ab") -> SimpleNamespace:
    return SimpleNamespace(id=name, bits=BITS, dims=DIMS, metric="cosine", centres=None)


@contextmanager
def shards(path: Path, *, count: int, bundle: SimpleNamespace | None = None) -> Iterator[Shards]:
    opened = Shards(path, bundle or a_bundle(), count=count)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


def an_image(number: int) -> NewImage:
    rng = np.random.default_rng(number)
    return NewImage(
        id=hashlib.sha256(b"%d" % number).hexdigest()[:32],
        code=rng.integers(0, 256, BITS // 8, dtype=np.uint8),
        feature=rng.standard_normal(DIMS).astype(np.float32),
        source=f"/photos/{number}.jpg",
        origin=f"job:{number}",
        added_at=1_000.0 + number,
        width_px=4,
        height_px=3,
        format="JPEG",
        size_bytes=9,
    )


IMAGES = [an_image(number) for number in range(20)]


@pytest.mark.parametrize("count", [1, 3])
def test_answers_come_in_the_order_of_what_was_asked(tmp_path: Path, count: int) -> None:
    with shards(tmp_path, count=count) as opened:
        inserted = opened.insert(IMAGES)
        assert [entry.id for entry in inserted] == [image.id for image in IMAGES]
        assert all(entry.created for entry in inserted)
        assert opened.images() == 20
        asked = [IMAGES[3].id, "f" * 32, IMAGES[0].id]
        assert opened.delete(asked) == [True, False, True]
        assert opened.images() == 18
        assert opened.get(IMAGES[3].id) is None
        kept = opened.get(IMAGES[4].id)
        assert kept is not None
        assert kept.sources == ("/photos/4.jpg",)
        vectors = opened.vectors(IMAGES[4].id)
        assert vectors is not None
        assert np.array_equal(vectors[0], IMAGES[4].code)
        assert opened.vectors(IMAGES[3].id) is None


@pytest.mark.parametrize("count", [1, 3])
def test_features_read_in_bulk_are_those_read_one_by_one(tmp_path: Path, count: int) -> None:
    with shards(tmp_path, count=count) as opened:
        opened.insert(IMAGES)
        gone = [IMAGES[2].id, IMAGES[11].id]
        opened.delete(gone)
        names = [image.id for image in reversed(IMAGES)]
        found = opened.features(ids_of(names))
        assert found.there.tolist() == [name not in gone for name in names]
        one_by_one = [opened.vectors(name) for name in names if name not in gone]
        features = np.stack([each[1] for each in one_by_one if each is not None])
        assert np.array_equal(found.values * found.scales[:, None], features)
        assert found.squares.tolist() == (found.values.astype(int) ** 2).sum(axis=1).tolist()
        assert opened.features(ids_of([])).values.shape == (0, DIMS)


def ids_of(names: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)


@pytest.mark.parametrize("count", [1, 3])
def test_an_image_is_found_in_the_shard_it_belongs_to(tmp_path: Path, count: int) -> None:
    with shards(tmp_path, count=count) as opened:
        opened.insert(IMAGES)
        wanted = IMAGES[7]
        query = Query(code=wanted.code, feature=wanted.feature, k=1, candidates=None)
        nearest = [
            hit.id
            for index in range(count)
            for hit in opened.hits(opened.search(index, query, group=0, groups=1))
            if hit.distance < 1e-3
        ]
        assert nearest == [wanted.id]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 7, 20, 50])
def test_the_latest_come_first_page_by_page_and_none_is_missed(
    tmp_path: Path, count: int, limit: int
) -> None:
    with shards(tmp_path, count=count) as opened:
        opened.insert(IMAGES)
        seen: list[str] = []
        before: str | None = None
        for _ in range(30):
            page = opened.recent(limit, before)
            assert len(page.images) <= limit
            seen += [image.id for image in page.images]
            before = page.next
            if before is None:
                break
    assert seen == [image.id for image in reversed(IMAGES)]


@pytest.mark.parametrize(
    "before", ["", "x", "1.x", "-1.2", "1.2.3", "9" * 30 + ".1", "\u0661.1", "1 .2"]
)
def test_a_place_in_the_list_that_is_none_is_refused(tmp_path: Path, before: str) -> None:
    with shards(tmp_path, count=2) as opened, pytest.raises(InvalidRequest, match="`next`"):
        opened.recent(5, before)


def test_another_number_of_shards_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with shards(tmp_path, count=3) as opened:
        opened.insert(IMAGES)
    with pytest.raises(SettingsError, match="Set LOOKALIKE_SHARDS=3"):
        Shards(tmp_path, a_bundle(), count=2)  # type: ignore[arg-type]


def test_another_bundle_is_refused_by_name(tmp_path: Path) -> None:
    with shards(tmp_path, count=1) as opened:
        opened.insert(IMAGES)
    other = a_bundle("other@0123456789ab")
    with (
        shards(tmp_path, count=1, bundle=other) as opened,
        pytest.raises(Unavailable, match=r"other@0123456789ab|tiny@0123456789ab") as caught,
    ):
        opened.images()
    assert caught.value.code == "store"


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    with shards(tmp_path, count=1) as opened:
        opened.insert(IMAGES)
    (data,) = tmp_path.rglob("data.mdb")
    data.write_bytes(data.read_bytes()[:5_000])
    with shards(tmp_path, count=1) as opened, pytest.raises(Unavailable, match=r"0-of-1"):
        opened.get(IMAGES[0].id)


def test_a_closed_collection_opens_again_by_itself(tmp_path: Path) -> None:
    with shards(tmp_path, count=1) as opened:
        opened.insert(IMAGES)
        opened.close()
        opened.close()
        assert opened.images() == 20
