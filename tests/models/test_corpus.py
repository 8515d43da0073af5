from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from models.bundle import Bundle
from models.engines import open_engine
from models.training import corpus


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


def write_photos(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def test_classes_are_folders_or_the_start_of_names(tmp_path: Path) -> None:
    write_photos(tmp_path / "folders", ["b/2.jpg", "a/1.JPEG", "a/3.jpg"])
    write_photos(tmp_path / "flat", ["n02_cat.jpg", "n01_big_dog.jpg"])
    folders, flat = (corpus.list_corpus(tmp_path / name) for name in ("folders", "flat"))
    assert folders.classes == ("a", "b")
    assert [folders.classes[label] for label in folders.labels] == ["a", "a", "b"]
    assert flat.classes == ("n01", "n02")
    assert [path.name for path in flat.paths] == ["n01_big_dog.jpg", "n02_cat.jpg"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image below"):
        corpus.list_corpus(tmp_path)


def test_features_are_those_of_single_images_and_are_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "_BATCH", 3)
    write_photos(tmp_path / "photos", [f"c/{n}.jpg" for n in range(8)])
    listed = corpus.list_corpus(tmp_path / "photos")
    with open_engine(bundle, threads=1) as engine:
        found = corpus.features(listed, engine, cache=tmp_path / "cache")
        for path, row in zip(listed.paths, found, strict=True):
            with Image.open(path) as image:
                pixels = bundle.preprocess.pixels(image.convert("RGB"))
            assert np.array_equal(engine.embed(pixels[None]).features[0], row)
    # A closed engine computes nothing more.
    assert np.array_equal(corpus.features(listed, engine, cache=tmp_path / "cache"), found)


def test_another_view_or_seed_is_computed_anew(bundle: Bundle, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["c/1.jpg"])
    listed, cache = corpus.list_corpus(tmp_path / "photos"), tmp_path / "cache"
    with open_engine(bundle, threads=1) as engine:
        found = [
            corpus.features(listed, engine, view=view, seed=seed, cache=cache)
            for view, seed in ((corpus.unchanged, 0), (corpus.distorted, 0), (corpus.distorted, 1))
        ]
    assert len({rows.tobytes() for rows in found}) == 3


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (corpus.unchanged, (31, 20)),
        (corpus.half_size, (15, 10)),
        (corpus.quality_40, (31, 20)),
        (corpus.cropped, (28, 18)),
    ],
)
def test_copies_have_the_size_that_their_name_says(
    view: corpus.View, size: tuple[int, int]
) -> None:
    picture = Image.new("RGB", (31, 20), "red")
    assert view(picture, np.random.default_rng(0)).size == size


def test_distortion_follows_its_generator_and_works_on_one_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    first, second, other = (
        corpus.distorted(Image.fromarray(pixels), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert first.tobytes() == second.tobytes() != other.tobytes()
    dot = corpus.distorted(Image.new("RGB", (1, 1)), np.random.default_rng(0))
    assert dot.size == (1, 1)
