"""Stage 1 on features that are made up; skipped without PyTorch, as training is an extra."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import TrainingError
from models.evaluation.measures import mean_average_precision
from models.evaluation.ranking import rank_codes

torch = pytest.importorskip("torch")

from models.training import frozen  # noqa: E402
from models.training.frozen import FrozenRecipe, Learned, Rows, learn_frozen  # noqa: E402
from models.training.losses import dissimilarity, imbalance, indecision  # noqa: E402

RECIPE = FrozenRecipe(epochs=6, batch=32, rate=0.03)


class _Stop(Exception):
    pass


def classes(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of 8 classes, told apart by 8 of 64 values beside loud ones that say nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    features = rng.normal(50, 1, (count, 64)).astype(np.float32)
    features[np.arange(count), labels] += 6
    features[:, 50:] *= 3
    features[:, 49] = 1.5
    return features, labels


def learn(work: Path, recipe: FrozenRecipe = RECIPE, *, bits: int = 16) -> Learned:
    features, labels = classes(0, 480)
    train, held = (
        Rows(features, labels, np.arange(400)),
        Rows(features, labels, np.arange(400, 480)),
    )
    return learn_frozen(train, held, bits=bits, classes=8, recipe=recipe, work=work)


def codes(learned: Learned, features: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(features @ learned.weight.T + learned.bias > 0, axis=1)


def quality(learned: Learned) -> float:
    (rows, labels), (queries, wanted) = classes(0, 480), classes(9, 100)
    ranking = rank_codes(codes(learned, queries), codes(learned, rows), 40)
    return mean_average_precision(labels[ranking] == wanted[:, None])


def equal(first: Learned, second: Learned) -> bool:
    return (
        np.array_equal(first.weight, second.weight)
        and np.array_equal(first.bias, second.bias)
        and first.history == second.history
    )


def test_codes_put_the_classes_together(tmp_path: Path) -> None:
    learned = learn(tmp_path)
    assert learned.weight.shape == (16, 64)
    assert (learned.weight.dtype, learned.bias.dtype) == (np.float32, np.float32)
    assert learned.accuracy > 0.9
    assert quality(learned) > 0.9
    assert [each["epoch"] for each in learned.history] == [1, 2, 3, 4, 5, 6]


def test_one_seed_gives_one_layer(tmp_path: Path) -> None:
    assert equal(learn(tmp_path / "1"), learn(tmp_path / "2"))
    other = learn(tmp_path / "3", dataclasses.replace(RECIPE, seed=1))
    assert not np.array_equal(other.weight, learn(tmp_path / "4").weight)


def test_the_generator_and_threads_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    learn(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = frozen._Run._step, iter(range(40))

    def stopping(self: frozen._Run, places: NDArray[np.int64]) -> float:
        if next(steps, None) is None:
            raise _Stop
        return step(self, places)

    with monkeypatch.context() as patch:
        patch.setattr(frozen._Run, "_step", stopping)
        with pytest.raises(_Stop):
            learn(tmp_path / "stopped")
    assert equal(learn(tmp_path / "stopped"), learn(tmp_path / "whole"))


def test_a_finished_run_is_not_learned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn(tmp_path)
    monkeypatch.delattr(frozen._Run, "_step")
    assert equal(first, learn(tmp_path))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    learn(tmp_path)
    with pytest.raises(TrainingError, match="belongs to a run with other settings"):
        learn(tmp_path, bits=8)


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"not a number in epoch 1; lower --rate \(it is 1e\+38"
    ):
        learn(tmp_path, dataclasses.replace(RECIPE, rate=1e38))


@pytest.mark.parametrize("count", [2, 3, 17])
def test_few_images_are_learned_in_small_batches(tmp_path: Path, count: int) -> None:
    features, labels = np.eye(17, dtype=np.float32), np.arange(17) % 2
    rows = Rows(features, labels, np.arange(count))
    learned = learn_frozen(
        rows, rows, bits=8, classes=2, recipe=dataclasses.replace(RECIPE, epochs=1), work=tmp_path
    )
    assert np.isfinite(learned.weight).all()


def test_training_ends_when_it_has_become_worse_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.9, 0.88, 0.4, 0.4, 0.99])
    monkeypatch.setattr(frozen._Run, "_accuracy", lambda self: next(accuracies))
    learned = learn(tmp_path, dataclasses.replace(RECIPE, patience=2))
    assert [each["accuracy"] for each in learned.history] == [0.5, 0.9, 0.88, 0.4, 0.4]
    # 0.88 is as good as 0.9 where 80 images decide, and later.
    assert learned.accuracy == 0.88


@pytest.mark.parametrize(
    "terms", [{"similarity": 0.0}, {"similarity": 0.0, "balance": 1.0}, {"quantisation": 1.0}]
)
def test_every_term_can_be_left_out_or_put_in(tmp_path: Path, terms: dict[str, float]) -> None:
    plain = learn(tmp_path / "plain")
    other = learn(tmp_path / "other", dataclasses.replace(RECIPE, **terms))
    assert not np.array_equal(plain.weight, other.weight)


def test_codes_of_one_class_that_agree_are_charged_less_than_codes_that_do_not() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 1], [1, 1], [-1, -1], [-1, -1]])
    mixed = apart[[0, 2, 1, 3]]
    assert dissimilarity(apart, labels, 4.0) < dissimilarity(mixed, labels, 4.0)
    # Nobody shares a class: there is nothing to charge for.
    assert float(dissimilarity(apart, torch.arange(4), 4.0)) == 0


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31))
def test_charges_are_finite_and_at_least_0(bits: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand((count, bits), generator=generator) * 2 - 1
    labels = torch.randint(0, 3, (count,), generator=generator)
    for charge in (dissimilarity(values, labels, 4.0), imbalance(values), indecision(values)):
        assert 0 <= float(charge) < float("inf")
    assert float(imbalance(torch.cat([values, -values]))) == pytest.approx(0, abs=1e-6)
    assert float(indecision(values.sign())) == 0
