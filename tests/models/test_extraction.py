import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.bundle import Bundle
from models.engine import Engine
from models.engines import open_engine
from models.labelled import columns, extraction, kept
from models.labelled.corpus import Corpus, read_corpus
from models.labelled.errors import CacheError, CorpusError
from models.labelled.extraction import Extracted, extract
from models.labelled.skipped import Skipped
from models.labelled.views import cropped, distorted, half_size, quality_40, unchanged


class _Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_BATCH", 3)
    monkeypatch.setattr(kept, "_PART", 3)


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Ten images, of which the third and the last cannot be read."""
    for row in range(10):
        path = tmp_path / "photos" / "ab"[row > 4] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    listed = read_corpus(tmp_path / "photos")
    listed.paths[2].write_text("no image")
    listed.paths[9].write_text("no image")
    return listed


def same(first: Extracted, second: Extracted) -> bool:
    return (
        np.array_equal(first.features, second.features)
        and np.array_equal(first.latent, second.latent)
        and first.corpus.paths == second.corpus.paths
        and np.array_equal(first.corpus.labels, second.corpus.labels)
        and first.skipped == second.skipped
    )


def stop_after(engine: Engine, monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let the network run so often and no more."""
    embed, runs = engine.embed, iter(range(batches))

    def counted(pixels: NDArray[np.uint8]) -> object:
        if next(runs, None) is None:
            raise _Stop
        return embed(pixels)

    monkeypatch.setattr(engine, "embed", counted)


def test_rows_are_those_of_single_images_and_unreadable_ones_are_told(
    corpus: Corpus, engine: Engine, tmp_path: Path
) -> None:
    found = extract(corpus, engine, cache=tmp_path / "cache")
    assert len(found.corpus) == len(found.features) == len(found.latent) == 8
    for path, row, latent in zip(found.corpus.paths, found.features, found.latent, strict=True):
        with Image.open(path) as image:
            alone = engine.embed(engine.bundle.preprocess.pixels(image.convert("RGB"))[None])
        assert np.array_equal(alone.features[0], row)
        assert np.array_equal(alone.latent[0], latent)
    reason = "not a picture of a known format; delete or replace it"
    assert found.skipped == (Skipped(corpus.paths[2], reason), Skipped(corpus.paths[9], reason))
    assert found.corpus.labels.tolist() == [0] * 4 + [1] * 4


def test_a_second_time_nothing_is_computed(corpus: Corpus, engine: Engine, tmp_path: Path) -> None:
    first = extract(corpus, engine, cache=tmp_path / "cache")
    engine.close()
    again = extract(corpus, engine, cache=tmp_path / "cache")
    assert same(first, again)
    again.features[:] = 0
    assert same(first, extract(corpus, engine, cache=tmp_path / "cache"))


def test_without_a_cache_the_same_comes_out(
    corpus: Corpus, engine: Engine, tmp_path: Path
) -> None:
    kept_on_disk = extract(corpus, engine, cache=tmp_path / "cache")
    assert same(kept_on_disk, extract(corpus, engine, cache=None))


def test_what_was_stopped_goes_on_where_it_was(
    corpus: Corpus, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(corpus, engine, cache=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(engine, patch, 2)
        with pytest.raises(_Stop):
            extract(corpus, engine, cache=tmp_path / "cache")
    stop_after(engine, monkeypatch, 2)
    assert same(whole, extract(corpus, engine, cache=tmp_path / "cache"))


def test_rows_that_a_killed_process_wrote_but_did_not_note_are_written_again(
    corpus: Corpus, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(corpus, engine, cache=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(engine, patch, 2)
        # As after SIGKILL: nobody tidies up.
        patch.setattr(kept.Writer, "_save", lambda self: None)
        with pytest.raises(_Stop):
            extract(corpus, engine, cache=tmp_path / "cache")
    assert same(whole, extract(corpus, engine, cache=tmp_path / "cache"))


def test_files_shorter_than_noted_are_begun_anew(
    corpus: Corpus, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(corpus, engine, cache=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(engine, patch, 2)
        with pytest.raises(_Stop):
            extract(corpus, engine, cache=tmp_path / "cache")
    (part,) = (tmp_path / "cache").glob("*.part")
    os.truncate(part / "latent.npy", 130)
    assert same(whole, extract(corpus, engine, cache=tmp_path / "cache"))


def test_another_view_seed_or_file_is_computed_anew(
    corpus: Corpus, engine: Engine, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    found = [
        extract(corpus, engine, view=view, seed=seed, cache=cache).features.tobytes()
        for view, seed in ((unchanged, 0), (distorted, 0), (distorted, 1))
    ]
    Image.new("RGB", (9, 9), "red").save(corpus.paths[0])
    found.append(extract(corpus, engine, cache=cache).features.tobytes())
    assert len(set(found)) == 4


def test_a_corpus_without_a_readable_image_is_refused(
    corpus: Corpus, engine: Engine, tmp_path: Path
) -> None:
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(CorpusError, match=r"no image of .* can be read; the first: .*2.png"):
            extract(corpus.take([2, 9]), engine, cache=cache)


def test_a_full_disk_is_named_and_given_its_space_back(
    corpus: Corpus, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = columns.Column.add, iter(range(3))

    def full(self: columns.Column, at: int, rows: NDArray[np.float32]) -> None:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, at, rows)

    with monkeypatch.context() as patch:
        patch.setattr(columns.Column, "add", full)
        with pytest.raises(CacheError, match=r"No space left on device; free some space"):
            extract(corpus, engine, cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert len(extract(corpus, engine, cache=tmp_path / "cache").features) == 8


def test_too_little_space_is_found_before_the_work(
    corpus: Corpus, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 5 << 20})()
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: usage)
    stop_after(engine, monkeypatch, 0)
    many = corpus.take([0] * 200_000)
    with pytest.raises(CacheError, match="has 5 MB free and the features of 200,000 images need"):
        extract(many, engine, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_folder_that_cannot_be_written_is_named(
    corpus: Corpus, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot keep features in .*file"):
        extract(corpus, engine, cache=tmp_path / "file" / "cache")


def test_a_damaged_file_is_named(corpus: Corpus, engine: Engine, tmp_path: Path) -> None:
    extract(corpus, engine, cache=tmp_path / "cache")
    next((tmp_path / "cache").glob("*/features.npy")).write_text("nonsense")
    with pytest.raises(CacheError, match=r"is damaged: .*; delete it"):
        extract(corpus, engine, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("view", "size"),
    [(unchanged, (31, 20)), (half_size, (15, 10)), (quality_40, (31, 20)), (cropped, (28, 18))],
)
def test_copies_have_the_size_that_their_name_says(
    view: extraction.View, size: tuple[int, int]
) -> None:
    assert view(Image.new("RGB", (31, 20), "red"), np.random.default_rng(0)).size == size


def test_distortion_follows_its_generator_and_works_on_one_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    first, second, other = (
        distorted(Image.fromarray(pixels), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert distorted(Image.new("RGB", (1, 1)), np.random.default_rng(0)).size == (1, 1)
    assert half_size(Image.new("RGB", (1, 1)), np.random.default_rng(0)).size == (1, 1)
