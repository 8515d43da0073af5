import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from tqdm import tqdm

from models.evaluation.itq import learn_itq
from models.evaluation.measures import mean_average_precision
from models.evaluation.ranking import rank_codes, rank_features
from models.training.latent_layer import Examples, Layer, Recipe, learn_latent

RECIPE = Recipe(
    epochs=8,
    batch=64,
    rate=0.03,
    label_share=0.5,
    similarity=1.0,
    sharpness=8.0,
    stability=1.0,
    balance=0.3,
)


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads take longer than one on tensors this small."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def classes(seed: int, count: int = 400) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of 8 classes, told apart by 8 of 256 values beside loud ones that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    features = rng.normal(0, 1, (count, 256)).astype(np.float32)
    features[np.arange(count), labels] += 4
    features[:, 200:] *= 3
    return features, labels


def examples() -> Examples:
    features, labels = classes(0)
    rng = np.random.default_rng(1)
    return Examples(
        features=features,
        copies=features + rng.normal(0, 0.1, features.shape).astype(np.float32),
        labels=labels,
        groups=np.arange(len(labels)) % 2,
        class_weight=np.eye(8, 256, dtype=np.float32),
        class_bias=np.zeros(8, np.float32),
    )


def quality(layer: Layer) -> float:
    (rows, labels), (queries, wanted) = classes(0), classes(9, 100)
    ranking = rank_codes(layer.codes(queries), layer.codes(rows), 50)
    return mean_average_precision(labels[ranking] == wanted[:, None])


def test_learned_codes_beat_the_features_they_are_made_of_and_itq(one_thread: None) -> None:
    learned = quality(learn_latent(examples(), bits=16, recipe=RECIPE, seed=0))
    (rows, labels), (queries, wanted) = classes(0), classes(9, 100)
    ranking = rank_features(queries, rows, 50)
    plain = mean_average_precision(labels[ranking] == wanted[:, None])
    itq = quality(learn_itq(rows, bits=16, rounds=20, seed=0))
    assert learned > plain > itq


def test_images_that_nobody_labelled_keep_their_neighbours(one_thread: None) -> None:
    """The class layer looks at one direction; the neighbours differ in others."""
    told = examples()
    rng = np.random.default_rng(5)
    kinds = rng.normal(0, 3, (20, 256)).astype(np.float32)
    strange = kinds[np.repeat(np.arange(20), 20)] + rng.normal(0, 1, (400, 256))
    strange = strange.astype(np.float32)

    def kept(layer: Layer) -> float:
        ranking = rank_codes(layer.codes(strange), layer.codes(strange), 20)
        return float((ranking // 20 == np.arange(400)[:, None] // 20).mean())

    both = Examples(
        features=np.concatenate([told.features, strange]),
        copies=np.concatenate([told.copies, strange]),
        labels=np.concatenate([told.labels, np.full(400, -1)]),
        groups=np.concatenate([told.groups, np.full(400, 2)]),
        class_weight=told.class_weight,
        class_bias=told.class_bias,
    )
    with_them = learn_latent(both, bits=16, recipe=RECIPE, seed=0)
    assert kept(with_them) > kept(learn_latent(told, bits=16, recipe=RECIPE, seed=0)) + 0.02
    assert quality(with_them) > 0.5


def test_one_seed_gives_one_layer(one_thread: None) -> None:
    short = dataclasses.replace(RECIPE, epochs=4)
    first, same, other = (
        learn_latent(examples(), bits=12, recipe=short, seed=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.weight, same.weight)
    assert np.array_equal(first.bias, same.bias)
    assert not np.array_equal(first.weight, other.weight)
    assert (first.weight.dtype, first.bias.dtype) == (np.float16, np.float32)


def test_every_term_can_be_left_out(one_thread: None) -> None:
    bare = dataclasses.replace(RECIPE, epochs=4, similarity=0.0, stability=0.0, balance=0.0)
    assert learn_latent(examples(), bits=8, recipe=bare, seed=0).weight.shape == (8, 256)


def test_balance_spreads_the_bits(one_thread: None) -> None:
    skew = {}
    for weight in (0.0, 20.0):
        recipe = dataclasses.replace(RECIPE, epochs=4, balance=weight)
        layer = learn_latent(examples(), bits=16, recipe=recipe, seed=0)
        ones = np.unpackbits(layer.codes(classes(0)[0]), axis=1).mean(0)
        skew[weight] = float(np.abs(ones - 0.5).mean())
    assert skew[20.0] < skew[0.0]


def test_a_loss_that_is_no_number_is_an_error(one_thread: None) -> None:
    fast = dataclasses.replace(RECIPE, rate=1e38, epochs=4)
    with pytest.raises(ValueError, match="lower the learning rate"):
        learn_latent(examples(), bits=8, recipe=fast, seed=0)


def test_too_few_images_are_refused() -> None:
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="at least 20 steps, got 8"):
        learn_latent(examples(), bits=8, recipe=dataclasses.replace(RECIPE, batch=400), seed=0)


def test_codes_are_packed_signs() -> None:
    layer = Layer(np.array([[1, 0], [0, 1], [1, 1]], np.float16), np.array([0, -2, 0], np.float32))
    codes = layer.codes(np.array([[1, 1], [-1, 3]], np.float32))
    assert np.unpackbits(codes, axis=1, count=3).tolist() == [[1, 0, 1], [0, 1, 1]]


def test_itq_bits_are_balanced() -> None:
    rows = np.random.default_rng(0).normal(5, 1, (500, 32)).astype(np.float32)
    ones = np.unpackbits(learn_itq(rows, bits=8, rounds=5, seed=0).codes(rows), axis=1).mean(0)
    assert np.abs(ones - 0.5).max() < 0.1
