import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from models.bundle import Bundle
from models.engine import Engine
from models.engines import open_engine
from models.labelled.corpus import read_corpus
from models.training import train_latent
from models.training.latent_figures import copies, retrieval
from models.training.latent_layer import Layer

COLOURS = {"n01": (200, 40, 40), "n02": (40, 200, 40), "n03": (40, 40, 200)}


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


def write_class_folders(root: Path, *, count: int, seed: int) -> Path:
    """Pictures whose colour tells the class."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-40, 41, (24, 30, 3))
            picture = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
            picture.save(root / name / f"{number}.jpg")
    return root


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, threads=1) as opened:
        yield opened


def layer(bits: int) -> Layer:
    weight = np.random.default_rng(0).normal(0, 1, (bits, 6)).astype(np.float16)
    return Layer(weight, np.zeros(bits, np.float32))


def test_figures_of_pictures_that_are_easy_to_tell_apart(engine: Engine, tmp_path: Path) -> None:
    database = read_corpus(write_class_folders(tmp_path / "database", count=6, seed=0))
    queries = read_corpus(write_class_folders(tmp_path / "queries", count=2, seed=1))
    found = retrieval(layer(5), engine, database, queries, seed=0, cache=tmp_path / "cache")
    assert found["features"]["map_at_1000"] == 1.0
    assert found["features"]["precision_at_100"] == pytest.approx(1 / 3, abs=1e-4)
    assert 0 < found["codes"]["map_at_1000"] <= 1
    assert 0 <= found["ones"]["least"] <= found["ones"]["mean"] <= found["ones"]["most"] <= 1


def test_folders_with_other_classes_are_not_compared(engine: Engine, tmp_path: Path) -> None:
    database = read_corpus(write_class_folders(tmp_path / "database", count=1, seed=0))
    queries = replace(database, classes=("a", "b", "c"))
    with pytest.raises(ValueError, match="different classes"):
        retrieval(layer(5), engine, database, queries, seed=0, cache=tmp_path / "cache")


def test_a_layer_that_ignores_the_picture_keeps_every_copy(engine: Engine, tmp_path: Path) -> None:
    photos = read_corpus(write_class_folders(tmp_path / "photos", count=2, seed=0))
    blind = Layer(np.zeros((9, 6), np.float16), np.ones(9, np.float32))
    found = copies(blind, engine, photos, cache=tmp_path / "cache")
    assert found["half_size"] == {"distance": 0, "worst": 0, "nearer_photos_under_3": 1}
    assert (found["photos"], found["between_photos"]) == (6, 0)


def test_the_command_learns_measures_and_writes(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")

    @contextmanager
    def backbone(name: str) -> Iterator[Engine]:
        yield engine

    class Weights:
        def read(self) -> dict[str, np.ndarray]:
            rng = np.random.default_rng(0)
            return {
                "_fc.weight": rng.standard_normal((3, 6)).astype(np.float32),
                "_fc.bias": np.zeros(3, np.float32),
            }

    monkeypatch.setattr(train_latent, "_backbone", backbone)
    monkeypatch.setitem(train_latent.WEIGHTS, "lite0", Weights())  # type: ignore[arg-type]
    monkeypatch.setattr(train_latent, "RECIPE", replace(train_latent.RECIPE, batch=8, epochs=4))
    labelled = write_class_folders(tmp_path / "labelled", count=8, seed=0)
    folders = {
        "--labelled": labelled,
        "--photos": write_class_folders(tmp_path / "photos", count=2, seed=1),
        "--unlabelled": write_class_folders(tmp_path / "unlabelled", count=8, seed=3),
        "--validation": write_class_folders(tmp_path / "validation", count=2, seed=2),
        "--unseen": labelled,
        "--cache": tmp_path / "cache",
        "--out": tmp_path / "tiny.npz",
    }
    arguments = [str(part) for pair in folders.items() for part in pair]
    train_latent.main([*arguments, "--bits", "6", "--centres", "2", "--views", "2"])
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"retrieval", "copies"}
    assert set(figures["copies"]) == {"photos", "unseen"}
    with np.load(tmp_path / "tiny.npz") as arrays:
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    assert shapes == {
        "weight": ((6, 6), np.float16),
        "bias": ((6,), np.float32),
        "centres": ((2, 1), np.uint8),
    }
