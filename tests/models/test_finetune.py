"""Fine-tuning learns, survives being cut off, and refuses what it cannot use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tqdm import tqdm

from models.errors import TrainingError
from models.labelled.corpus import Corpus, read_corpus
from models.preprocess import Preprocess

torch = pytest.importorskip("torch")
finetuning = pytest.importorskip("models.training.finetune")
augment = pytest.importorskip("models.training.augment")

SIDE_PX = 16
PREPROCESS = Preprocess(
    input_px=SIDE_PX,
    resize_px=SIDE_PX,
    resize_rule="short-side",
    resample="bilinear",
    channel_order="RGB",
    mean=(127.0, 127.0, 127.0),
    scale=1 / 64,
)
RECIPE = finetuning.FinetuneRecipe(epochs=3, batch=8, rate=0.02, patience=3)
COLOURS = {"blue": (40, 60, 200), "green": (30, 180, 60), "red": (210, 50, 40)}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Forty noisy pictures of each of three colours."""
    rng = np.random.default_rng(3)
    for name, colour in COLOURS.items():
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for index in range(40):
            noise = rng.normal(0, 30, (20, 24, 3)) + colour
            pixels = noise.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return read_corpus(tmp_path / "pictures")


def split(corpus: Corpus) -> tuple[Corpus, Corpus]:
    rows = np.arange(len(corpus))
    return corpus.take(rows[rows % 5 != 0]), corpus.take(rows[rows % 5 == 0])


@pytest.fixture
def graph() -> onnx.ModelProto:
    """A convolution, a normalisation, dropout and a mean: every kind of state there is."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.normal(0, 0.3, (6, 3, 3, 3)),
        "g": np.ones(6),
        "b": np.zeros(6),
        "m": np.zeros(6),
        "v": np.ones(6),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["map"], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["map", "g", "b", "m", "v"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["positive"]),
        helper.make_node("Dropout", ["positive", "ratio"], ["kept"]),
        helper.make_node("GlobalAveragePool", ["kept"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["feature"]),
    ]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", 6])],
        [
            *(numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()),
            numpy_helper.from_array(np.array(0.1, np.float32), "ratio"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8)


def learn(graph: onnx.ModelProto, corpus: Corpus, work: Path, **changes: Any) -> Any:
    train, validation = split(corpus)
    return finetuning.finetune(
        graph,
        train,
        validation=validation,
        preprocess=PREPROCESS,
        bits=8,
        recipe=dataclasses.replace(RECIPE, **changes),
        work=work,
    )


def test_colours_are_told_apart_and_the_graph_gives_features_and_bits(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path
) -> None:
    import onnxruntime

    done = learn(graph, corpus, tmp_path / "work")
    assert [each["epoch"] for each in done.history] == [1, 2, 3]
    assert max(each["accuracy"] for each in done.history) > 0.9
    session = onnxruntime.InferenceSession(done.graph.SerializeToString())
    images = np.zeros((2, 3, SIDE_PX, SIDE_PX), np.float32)
    feature, latent = session.run(["feature", "latent"], {"input": images})
    assert feature.shape == (2, 6)
    assert latent.shape == (2, 8)
    assert ((latent > 0) & (latent < 1)).all()


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [({"avx512_bf16": True}, True), ({"avx2": True}, False), (None, False)],
)
def test_precision_is_mixed_where_a_processor_computes_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool] | None, fast: bool
) -> None:
    if capabilities is None:  # PyTorch before 2.6
        monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    else:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities, raising=False)
    assert finetuning._is_fast_in_bfloat16(torch.device("cpu")) is fast


def test_as_many_steps_as_told_learn_from_mixed_pictures(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = []

    def counted(images: Any, targets: Any, rng: np.random.Generator) -> Any:
        mixed.append(len(images))
        return images, targets

    monkeypatch.setattr(finetuning, "cut_and_mix", counted)
    plain = learn(graph, corpus, tmp_path / "none")
    assert mixed == []
    learn(graph, corpus, tmp_path / "all", cutmix=1.0)
    assert mixed == [8] * 36
    mixed.clear()
    some = learn(graph, corpus, tmp_path / "some", cutmix=0.5)
    assert 8 < len(mixed) < 28
    # What is drawn for the mixing changes nothing else.
    assert some.history == plain.history


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    graph: onnx.ModelProto,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cutmix: float,
) -> None:
    whole = learn(graph, corpus, tmp_path / "whole", cutmix=cutmix)
    monkeypatch.setattr(finetuning, "_CHECKPOINT_S", 0.0)
    learned, steps = finetuning._Run._learn, 0

    def cut_off(run: Any, *batch: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 17:
            raise KeyboardInterrupt
        learned(run, *batch)

    monkeypatch.setattr(finetuning._Run, "_learn", cut_off)
    with pytest.raises(KeyboardInterrupt):
        learn(graph, corpus, tmp_path / "cut", cutmix=cutmix)
    monkeypatch.setattr(finetuning._Run, "_learn", learned)
    resumed = learn(graph, corpus, tmp_path / "cut", cutmix=cutmix)
    assert resumed.history == whole.history
    assert resumed.graph.SerializeToString() == whole.graph.SerializeToString()


def test_a_finished_run_is_not_repeated(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(graph, corpus, tmp_path)
    monkeypatch.setattr(finetuning._Run, "epoch", lambda run: pytest.fail("trained again"))
    assert learn(graph, corpus, tmp_path).history == whole.history


def test_training_stops_when_the_validation_gets_no_better(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.95])
    monkeypatch.setattr(finetuning._Run, "_accuracy", lambda run: next(accuracies))
    done = learn(graph, corpus, tmp_path, epochs=6, patience=2)
    assert [each["accuracy"] for each in done.history] == [0.5, 0.9, 0.8, 0.7]


def test_a_checkpoint_of_another_run_is_refused(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path
) -> None:
    learn(graph, corpus, tmp_path, epochs=1)
    with pytest.raises(TrainingError, match="other settings or images; delete"):
        learn(graph, corpus, tmp_path, epochs=2)


def test_a_damaged_checkpoint_is_named(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path
) -> None:
    learn(graph, corpus, tmp_path, epochs=1)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read.*starts anew"):
        learn(graph, corpus, tmp_path, epochs=1)


def test_a_full_disk_leaves_the_last_checkpoint(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(graph, corpus, tmp_path, epochs=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    saved = finetuning.Checkpoint(tmp_path, settings={}, every_s=0.0)
    with pytest.raises(TrainingError, match="No space left on device; free some space"):
        saved.save({"epoch": 1})
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_a_rate_that_is_far_too_high_is_a_named_error(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"loss is not a number.*lower --rate"):
        learn(graph, corpus, tmp_path, rate=1e38)


def test_fewer_images_than_a_batch_is_a_named_error(
    graph: onnx.ModelProto, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="there are 96 images and a batch has 97"):
        learn(graph, corpus, tmp_path, batch=97)


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    def order(epoch: int, first: int = 0) -> list[int]:
        batches = augment.Batches(20, 5, seed=1, epoch=epoch, first=first)
        return [index for batch in batches for _, index in batch]

    assert sorted(order(0)) == list(range(20))
    assert order(0) != order(1)
    assert order(1, first=2) == order(1)[10:]
    assert order(-1) == list(range(20))


def test_the_last_images_of_a_pass_without_training_are_not_left_out() -> None:
    batches = augment.Batches(7, 3, seed=1, epoch=-1)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert len(augment.Batches(7, 3, seed=1, epoch=0)) == 2


def test_an_example_depends_on_seed_epoch_and_image_alone(corpus: Corpus) -> None:
    def pixels(seed: int, epoch: int, index: int) -> bytes:
        examples = augment.Examples(corpus, PREPROCESS, RECIPE.augmentation, seed=seed)
        return bytes(examples[epoch, index][0].tobytes())

    assert pixels(0, 1, 7) == pixels(0, 1, 7)
    assert len({pixels(0, 1, 7), pixels(1, 1, 7), pixels(0, 2, 7), pixels(0, 1, 8)}) == 4


def test_without_augmentation_an_example_is_the_picture(corpus: Corpus) -> None:
    examples = augment.Examples(corpus, PREPROCESS, RECIPE.augmentation, seed=0)
    with Image.open(corpus.paths[3]) as image:
        expected = PREPROCESS.pixels(image.convert("RGB"))
    pixels, label = examples[-1, 3]
    np.testing.assert_array_equal(pixels, expected)
    assert label == corpus.labels[3]
