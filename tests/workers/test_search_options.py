"""What may be asked of a search besides its image: the answers are those of brute force."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle import Bundle
from models.catalogue import ensure_bundle
from store import NewImage, hamming
from tests.workers.conftest import PATIENCE_S
from workers.client import Client
from workers.client.checks import checked_options, moment
from workers.errors import InvalidRequest
from workers.options import MAX_COLLAPSED_K, MAX_EFFORT, SearchOptions
from workers.records import FoundImage, Search, SearchState
from workers.settings import Settings

LABELS = ("cats", "dogs", "été")
SOURCES = ("/photos/2025/", "/photos/2026/", "https://example.org/")
SPREADS = (0.02, 0.2)  # of the pictures of a cluster; clusters are about 1 apart
COUNT = 80


class Collection:
    """A collection of made-up images, in two shards."""

    def __init__(self, client: Client, bundle: Bundle, images: list[NewImage]) -> None:
        self.client, self.bundle, self.images = client, bundle, images


@pytest.fixture(scope="module")
def collection(
    base_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    data_dir = tmp_path_factory.mktemp("collection")
    bundle = ensure_bundle(base_settings.bundle, cache_dir=base_settings.cache_dir)
    with Client.open(replace(base_settings, data_dir=data_dir, shards=2)) as client:
        images = made_up(bundle)
        client._resources.shards.insert(images)
        found(client, images[0])  # what opens on first use belongs to no single test
        yield Collection(client, bundle, images)


def made_up(bundle: Bundle) -> list[NewImage]:
    """Return images in clusters, with labels, sources and times by chance."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((COUNT // 4, bundle.dims))
    return [
        NewImage(
            id=hashlib.sha256(b"%d" % number).hexdigest()[:32],
            code=rng.integers(0, 256, bundle.bits // 8, dtype=np.uint8),
            feature=near(rng, centres[number % len(centres)], by=rng.choice(SPREADS)),
            source=f"{rng.choice(SOURCES)}{number}.jpg",
            origin=f"job:{number}",
            added_at=1_000.0 + int(rng.integers(20)),
            width_px=4,
            height_px=3,
            format="JPEG",
            size_bytes=9,
            labels=tuple(label for label in LABELS if rng.random() < 0.3),
        )
        for number in range(COUNT)
    ]


def near(rng: np.random.Generator, centre: np.ndarray, *, by: float) -> np.ndarray:
    return (centre + by * rng.standard_normal(len(centre))).astype(np.float32)


def found(client: Client, image: NewImage, **options: object) -> Search:
    asked = client.submit_search(image_id=image.id, **options)
    answer = client.wait_search(asked.ticket, PATIENCE_S)
    assert answer.state is SearchState.DONE, answer.error
    return answer


def fits(image: NewImage, options: SearchOptions) -> bool:
    return (
        (not options.labels or bool(set(options.labels) & set(image.labels)))
        and image.source.startswith(options.source)
        and (options.since is None or image.added_at >= options.since)
        and (options.until is None or image.added_at < options.until)
    )


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return 1 - float(one.astype(np.float64) @ other.astype(np.float64) / lengths)


def brute_force(
    collection: Collection, query: NewImage, options: SearchOptions
) -> list[tuple[float, str, tuple[str, ...]]]:
    """Return distance, id and duplicates of the hits that there must be, the nearest first."""
    shards, bundle = collection.client._resources.shards, collection.bundle
    vectors = {image.id: shards.vectors(image.id) for image in collection.images}
    code, feature = vectors[query.id] or (None, None)
    assert code is not None
    assert feature is not None
    ranked = []
    for image in filter(lambda image: fits(image, options), collection.images):
        its_code, its_feature = vectors[image.id] or (code, feature)
        differing = int(hamming(code, its_code[np.newaxis])[0])
        distance = cosine(feature, its_feature) + bundle.code_weight * differing / bundle.bits
        if options.max_distance is None or distance <= options.max_distance:
            ranked.append((distance, image.id, its_feature))
    kept: list[tuple[float, str, np.ndarray, list[str]]] = []
    for distance, name, values in sorted(ranked, key=lambda entry: entry[:2]):
        limit = -1.0 if options.collapse is None else options.collapse
        first = next((one for one in kept if cosine(one[2], values) <= limit), None)
        if first is None:
            kept.append((distance, name, values, []))
        else:
            first[3].append(name)
    return [(distance, name, tuple(alike)) for distance, name, _, alike in kept[: options.k]]


OPTIONS = st.builds(
    SearchOptions,
    k=st.integers(1, COUNT + 5),
    effort=st.just(MAX_EFFORT),
    # Between the distances that occur, so that rounding decides nothing.
    max_distance=st.none() | st.sampled_from([0.05, 0.3, 0.9, 1.02]),
    labels=st.lists(st.sampled_from([*LABELS, "none has it"]), unique=True).map(tuple),
    source=st.sampled_from(["", "/photos/", *SOURCES, "/nowhere"]),
    since=st.none() | st.integers(999, 1_021).map(float),
    until=st.none() | st.integers(999, 1_021).map(float),
    collapse=st.none() | st.sampled_from([0.005, 0.2]),
).filter(lambda asked: asked.since is None or asked.until is None or asked.since < asked.until)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(number=st.integers(0, COUNT - 1), options=OPTIONS)
def test_filter_threshold_and_folding_give_what_brute_force_gives(
    collection: Collection, number: int, options: SearchOptions
) -> None:
    query = collection.images[number]
    answer = found(collection.client, query, **vars(options))
    expected = brute_force(collection, query, options)
    assert answer.options == options
    assert [hit.distance for hit in answer.hits] == pytest.approx(
        [distance for distance, _, _ in expected], abs=1e-3
    )
    assert [hit.id for hit in answer.hits] == [name for _, name, _ in expected]
    for hit, (_, _, alike) in zip(answer.hits, expected, strict=True):
        # Twice as many hits as are wanted are looked at; what is farther away is not seen.
        assert hit.duplicates == alike[: len(hit.duplicates)]
        assert hit.duplicates == alike or 2 * options.k < COUNT
    assert answer.report is not None
    assert answer.report["complete"]
    assert answer.report["folded"] == sum(len(hit.duplicates) for hit in answer.hits)
    for hit in answer.hits:
        assert_told_as_stored(hit, collection)


def assert_told_as_stored(hit: FoundImage, collection: Collection) -> None:
    (image,) = (image for image in collection.images if image.id == hit.id)
    assert (set(hit.labels), hit.added_at) == (set(image.labels), int(image.added_at))
    assert hit.sources == (image.source,)


def test_k_distinct_hits_remain_where_near_duplicates_fill_the_first_ones(
    collection: Collection,
) -> None:
    shards, original = collection.client._resources.shards, collection.images[0]
    rng = np.random.default_rng(0)
    copies = [
        replace(
            original,
            id=f"{number:032x}",
            feature=near(rng, original.feature, by=1e-3),
        )
        for number in range(50)
    ]
    shards.insert(copies)
    try:
        answer = found(collection.client, original, k=3, effort=MAX_EFFORT, collapse=1e-4)
    finally:
        shards.delete([copy.id for copy in copies])
    assert answer.hits[0].id in {original.id, *(copy.id for copy in copies)}
    assert len(answer.hits[0].duplicates) == 50
    assert len(answer.hits) == 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"k": 0}, "bad_k"),
        ({"effort": 11}, "bad_effort"),
        ({"max_distance": -0.1}, "bad_max_distance"),
        ({"max_distance": float("nan")}, "bad_max_distance"),
        ({"collapse": float("inf")}, "bad_collapse"),
        ({"collapse": 0.1, "k": MAX_COLLAPSED_K + 1}, "bad_k"),
        ({"labels": ("a,b",)}, "bad_labels"),
        ({"labels": tuple(str(number) for number in range(33))}, "bad_labels"),
        ({"source": "/" * 5_000}, "bad_source"),
        ({"since": 2.0, "until": 2.0}, "bad_until"),
        ({"since": float("nan")}, "bad_since"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(
    options: dict[str, object], code: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_options(SearchOptions(**options), max_k=10_000)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.remedy


def test_labels_are_tidied_and_a_source_is_text_that_a_message_can_carry() -> None:
    asked = SearchOptions(labels=(" cats ", "cats", "dogs"), source="/caf\udce9")
    tidy = checked_options(asked, max_k=100)
    assert (tidy.labels, tidy.source) == (("cats", "dogs"), "/caf?")


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [
        (12.5, 12.5),
        ("12.5", 12.5),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:01Z", 1.0),
        (" 1970-01-01 00:01 ", 60.0),
    ],
)
def test_a_time_is_a_number_or_iso_8601_in_utc(given_: str | float, seconds: float) -> None:
    assert moment("since", given_) == seconds


@pytest.mark.parametrize("given_", ["", "yesterday", "2026-13-01", "nan", "1e999", 10**400])
def test_what_is_no_time_is_refused_with_the_form_of_one(given_: str | float) -> None:
    with pytest.raises(InvalidRequest, match="2026-11-23T18:30") as caught:
        moment("until", given_)
    assert caught.value.code == "bad_until"
