"""From labelled images to a whole bundle, on a network of six features."""

import dataclasses
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle, load_bundle
from models.engines import open_engine
from models.errors import (
    BundleError,
    Diverged,
    ModelError,
    OptionError,
    TrainingBlocked,
    TrainingError,
)
from models.labelled.corpus import read_corpus
from models.labelled.errors import CacheError, CorpusError
from models.labelled.extraction import extract
from models.training import train as flow
from models.training.bases import Base, open_base
from models.training.options import Options
from models.training.train import Trained
from models.training.work import Work

pytest.importorskip("torch")

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
Train = Callable[..., Trained]


def write_colours(root: Path, *, count: int = 16, seed: int = 0) -> Path:
    """Pictures whose colour tells the class."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-40, 41, (12, 10, 3))
            picture = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
            picture.save(root / name / f"{number}.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data")


@pytest.fixture
def base(bundle: Bundle) -> Base:
    return open_base("tiny", input_px=None, find=lambda name: bundle)


@pytest.fixture
def train(base: Base, data: Path, tmp_path: Path) -> Train:
    """Train into `out`; arguments replace the options."""

    def train(out: str = "out", *, base: Base = base, **changes: object) -> Trained:
        options = Options(
            data=data,
            validation=None,
            bits=12,
            name="colours",
            licence=None,
            finetune=False,
            device="cpu",
            recipe={"epochs": 3, "rate": 0.05},
        )
        options = dataclasses.replace(options, **changes)  # type: ignore[arg-type]
        return flow.train(
            base, options, out=tmp_path / out, features=tmp_path / "features", threads=1
        )

    return train


def test_a_bundle_gives_the_codes_that_were_learned(
    train: Train, base: Base, data: Path, tmp_path: Path
) -> None:
    trained = train()
    assert trained.bundle == load_bundle(tmp_path / "out")
    assert (trained.bundle.name, trained.bundle.bits, trained.bundle.dims) == ("colours", 12, 6)
    assert (trained.images, trained.held_out, trained.epochs) == (45, 3, 3)
    assert trained.bundle.centres is None
    assert base.bundle is not None
    with open_engine(trained.bundle, threads=1) as new, open_engine(base.bundle, threads=1) as old:
        after, before = (extract(read_corpus(data), one, cache=None) for one in (new, old))
    assert after.features == pytest.approx(before.features, abs=1e-5)
    codes = after.latent > 0.5
    apart = (codes[:, None] ^ codes).sum(2)
    same = after.corpus.labels[:, None] == after.corpus.labels
    assert apart[same].mean() < apart[~same].mean()
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_log_says_how_it_was_made(train: Train, data: Path, tmp_path: Path) -> None:
    (data / "red" / "0.png").write_text("no image")
    trained = train()
    log = json.loads((tmp_path / "out" / "training.json").read_text())
    assert [each.path for each in trained.skipped] == [data / "red" / "0.png"]
    assert log["data"]["classes"] == {"blue": 16, "green": 16, "red": 15}
    assert log["data"]["skipped"] == 1
    assert log["data"]["skipped_files"][0]["reason"].startswith("not a picture")
    assert log["recipe"]["epochs"] == 3
    assert log["recipe"]["seed"] == 0
    assert log["recipe"]["batch"] > 0
    assert len(log["history"]) == 3
    assert {"python", "torch", "onnxruntime"} <= set(log["versions"])
    assert log["base"] == "tiny"


def test_long_codes_come_with_centres(train: Train) -> None:
    centres = train(bits=32).bundle.centres
    assert centres is not None
    assert centres.shape[1] == 4


def test_one_seed_gives_one_bundle_and_another_gives_another(train: Train) -> None:
    recipe = {"epochs": 3, "rate": 0.05}
    ids = [train(f"out{n}", recipe={**recipe, "seed": n // 2}).bundle.id for n in range(3)]
    assert ids[0] == ids[1] != ids[2]


def test_images_of_their_own_may_decide_which_epoch_is_kept(train: Train, tmp_path: Path) -> None:
    validation = write_colours(tmp_path / "validation", count=2, seed=1)
    trained = train(validation=validation)
    assert (trained.images, trained.held_out) == (48, 6)
    (validation / "red").rename(validation / "yellow")
    with pytest.raises(TrainingError, match=r"differ in the classes red, yellow; give images of"):
        train("other", validation=validation)


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not_stopped(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train("whole", bits=32)
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(bits=32)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.unfinished").is_dir()
    assert train(bits=32).bundle.id == whole.bundle.id
    assert json.loads((tmp_path / "out" / "training.json").read_text())["resumed"]
    assert not (tmp_path / "out.unfinished").exists()


def test_an_unfinished_run_of_other_settings_is_not_mixed_in(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(flow, "_write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train()
    with pytest.raises(TrainingBlocked, match=r"unfinished run with another bits; start that one"):
        train(bits=16)


def test_a_place_that_is_taken_is_refused(train: Train, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingBlocked, match=r"out exists; delete it, or choose another --out"):
        train()


def test_two_processes_do_not_train_into_one_place(tmp_path: Path) -> None:
    first, second = (Work(tmp_path / "out", run={}) for _ in range(2))
    with first, pytest.raises(TrainingBlocked, match="another process is at work"), second:
        pass


def test_a_disk_that_is_full_at_any_moment_leaves_no_bundle(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    kinds = set()

    def full_after(writes: int) -> Callable[[int], None]:
        left = iter(range(writes))

        def limited(descriptor: int) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        return limited

    def attempt() -> ModelError | None:
        try:
            train()
        except ModelError as error:
            return error
        return None

    for writes in range(40):
        monkeypatch.setattr(os, "fsync", full_after(writes))
        # Everything anew: nothing that an earlier try wrote may help this one.
        for folder in ("features", "out.unfinished"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        error = attempt()
        if error is None:
            break
        assert re.search(r"No space left on device; (free|choose)", str(error))
        assert not (tmp_path / "out").exists()
        kinds.add(type(error))
    assert kinds == {CacheError, TrainingError, BundleError}
    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 7}, "codes have 8 to 256 bits, not 7; change --bits"),
        ({"bits": 257}, "8 to 256"),
        (
            {"name": "Two Words"},
            "the name of the bundle is 'Two Words'; use .*; give another --name",
        ),
        ({"name": "lite0-128"}, "comes with lookalike; give another --name"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    train: Train,
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(OptionError, match=message):
        train(**changes)
    assert not list(tmp_path.glob("out*"))


def test_a_gpu_that_is_not_there_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TrainingBlocked, match="finds no GPU; leave --device out"):
        train(device="cuda")


def test_random_weights_must_be_trained_whole(train: Train, base: Base) -> None:
    with pytest.raises(OptionError, match="are random, so its features say nothing; add --fine"):
        train(base=dataclasses.replace(base, learned=False))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_code_weight_must_be_a_number(train: Train, weight: float) -> None:
    with pytest.raises(OptionError, match=r"number of at least 0, .*; change --code-weight"):
        train(code_weight=weight)


@pytest.mark.parametrize("bits", [12, 32])
def test_the_code_weight_is_chosen_on_held_out_images_or_given(
    train: Train, tmp_path: Path, bits: int
) -> None:
    chosen, given = train("chosen", bits=bits), train("given", bits=bits, code_weight=3.5)
    log = json.loads((tmp_path / "chosen" / "training.json").read_text())["code_weight"]
    assert log["weight"] == chosen.bundle.code_weight
    assert (log["queries"], log["database"], log["hits"]) == (3, 45, 45)
    tried = {each["weight"]: each["map"] for each in log["tried"]}
    assert len(tried) == 7
    assert log["weight"] in tried
    assert all(0 < score <= 1 for score in tried.values())
    assert given.bundle.code_weight == 3.5
    assert given.bundle.id == chosen.bundle.id
    log = json.loads((tmp_path / "given" / "training.json").read_text())["code_weight"]
    assert log == {"weight": 3.5}


@pytest.mark.parametrize("finetune", [False, True])
def test_validation_images_search_those_that_were_learned_from(
    train: Train, tmp_path: Path, finetune: bool
) -> None:
    validation = write_colours(tmp_path / "validation", count=2, seed=1)
    (validation / "red" / "0.png").write_text("no image")
    recipe = {"epochs": 1, "batch": 8}
    train(validation=validation, finetune=finetune, recipe=recipe)
    log = json.loads((tmp_path / "out" / "training.json").read_text())["code_weight"]
    assert (log["queries"], log["database"]) == (5, 48)


def test_a_fine_tuned_network_searches_with_what_it_did_not_learn_from(
    train: Train, data: Path, tmp_path: Path
) -> None:
    (data / "red" / "0.png").write_text("no image")
    train(finetune=True, recipe={"epochs": 1, "batch": 8})
    log = json.loads((tmp_path / "out" / "training.json").read_text())["code_weight"]
    assert (log["queries"], log["database"]) == (3, 44)


def test_without_pytorch_the_remedy_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TrainingBlocked, match=r"needs PyTorch; pip install 'lookalike\[train\]'"):
        train()


@pytest.mark.parametrize(
    "broken", ["raise OSError('libc10.so: gone\\nmore')", "import libc10_so_gone", "1 / 0"]
)
def test_of_a_pytorch_that_is_broken_the_reason_is_told_too(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "torch.py").write_text(broken)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    expected = r"cannot be loaded \(.*(gone|zero).*\); pip install 'lookalike\[train\]'$"
    with pytest.raises(TrainingBlocked, match=expected):
        train()


def test_a_run_that_would_fail_again_leaves_nothing_to_resume(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="the loss is not a number"):
        train(recipe={"epochs": 3, "rate": 1e38})
    assert not list(tmp_path.glob("out*"))
    assert train().bundle.bits == 12


def test_what_was_killed_before_it_learned_anything_does_not_hold_another_run_up(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # As after SIGKILL: nobody tidies up.
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        patch.setattr("models.training.stages.extract", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train()
    assert (tmp_path / "out.unfinished" / "run.json").exists()
    assert train(bits=16).bundle.bits == 16


def test_one_class_left_is_not_enough(train: Train, data: Path, tmp_path: Path) -> None:
    for name in ("green", "red"):
        for path in (data / name).iterdir():
            path.write_text("no image")
    with pytest.raises(CorpusError, match=r"only the class 'blue' of .* has images that can be"):
        train()
    assert not list(tmp_path.glob("out*"))
