"""Stage 1: a latent and a class layer learn on features that stay as they are.

The latent sigmoid layer stands between the features and the class layer, as in Lin et al., "Deep
Learning of Binary Hash Codes for Fast Image Retrieval", CVPRW 2015, section 3.2. Needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.progress import progress
from models.training.checkpoint import Checkpoint
from models.training.losses import descend, dissimilarity, imbalance, indecision

_AT_ONCE = 8192
# Dimensions that never change would be divided by nothing.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class FrozenRecipe:
    """How a latent layer is learned on frozen features.

    Attributes:
        epochs: Passes over the images, at most.
        batch: Images per step, or an eighth of all images where that is less.
        rate: Highest learning rate of Adam; it rises over the first tenth of the steps and falls
            to nothing along a cosine.
        similarity: Weight of the term that gives images of one class codes that are alike
            (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2).
        sharpness: How strongly that term looks at the nearest: one over its temperature.
        balance: Weight of the squared mean of each bit, which spreads images over all codes.
        quantisation: Weight of the squared distance of the latent values from -1 or 1.
        patience: Epochs in a row that are worse than the best by more than chance, after which
            training stops.
        seed: Fixes the first weights and the order of the images.
    """

    epochs: int = 20
    batch: int = 256
    rate: float = 3e-3
    similarity: float = 2.0
    sharpness: float = 4.0
    balance: float = 0.0
    quantisation: float = 0.0
    patience: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Rows:
    """Some of the rows of a table of features, with their labels.

    Attributes:
        features: shape=(N, D), dtype=float32; may be mapped from disk.
        labels: shape=(N,), dtype=int64.
        chosen: shape=(M,), dtype=int64; which rows.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    chosen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, places: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read features (K, D) and labels (K,) into memory, sorted for the disk's sake."""
        rows = np.sort(self.chosen[places])
        return torch.from_numpy(self.features[rows]), torch.from_numpy(self.labels[rows])


@dataclass(frozen=True)
class Learned:
    """A latent layer: bit b of an image is set where weight[b] @ feature + bias[b] > 0.

    Attributes:
        weight: shape=(B, D), dtype=float32.
        bias: shape=(B,), dtype=float32.
        accuracy: Share of the validation images whose class is read off their code.
        history: A record for each epoch: `epoch`, `loss`, `accuracy`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    accuracy: float
    history: tuple[dict[str, float], ...]


def learn_frozen(
    train: Rows,
    validation: Rows,
    *,
    bits: int,
    classes: int,
    recipe: FrozenRecipe,
    work: Path,
) -> Learned:
    """Learn a latent layer, or go on where an earlier call was cut off.

    The features are brought to mean 0 and deviation 1 first; that is folded into the weights.

    Args:
        train: The images to learn from.
        validation: Other images. The weights of the last epoch that reads their classes as well
            as the best, but for chance (one standard error), are kept: codes go on closing up
            when nothing more is gained in classes.
        bits: B, length of the code.
        classes: How many classes there are.
        recipe: The settings. Equal settings give equal weights on one machine.
        work: Folder for checkpoints; the caller deletes it when all is done.

    Raises:
        Diverged: The loss is not a number.
        TrainingError: A checkpoint is unusable.
    """
    with _one_thread():
        run = _Run(train, validation, bits, classes, recipe, work)
        run.resume()
        with run.progress() as bar:
            while not run.finished:
                run.epoch(bar)
        return run.result()


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads wait for each other longer than products this small take, and round apart."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Layers(torch.nn.Module):
    """What is learned, and what the features are brought to first."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, train: Rows, bits: int, classes: int) -> None:
        super().__init__()
        mean, spread = _moments(train)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("spread", torch.from_numpy(spread))
        self.latent = torch.nn.Linear(len(mean), bits)
        self.classes = torch.nn.Linear(bits, classes)

    def values(self, features: torch.Tensor) -> torch.Tensor:
        """Return the latent values from -1 to 1: twice the sigmoid minus 1."""
        values: torch.Tensor = self.latent((features - self.mean) / self.spread)
        return 2 * values.sigmoid() - 1

    def folded(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weight and bias that make the latent layer of features as they are."""
        with torch.no_grad():
            weight = self.latent.weight / self.spread
            return weight.numpy(), (self.latent.bias - weight @ self.mean).numpy()


def _moments(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each dimension, without all rows in memory at once."""
    sums = np.zeros((2, rows.features.shape[1]))
    for start in range(0, len(rows), _AT_ONCE):
        part = rows.features[rows.chosen[start : start + _AT_ONCE]].astype(np.float64)
        sums += part.sum(0), (part**2).sum(0)
    mean, square = sums / len(rows)
    spread = np.sqrt(np.maximum(square - mean**2, 0)) + _LEAST_SPREAD
    return mean.astype(np.float32), spread.astype(np.float32)


def _share(step: int, total: int) -> float:
    """Which share of the highest rate a step has."""
    rise = max(1, total // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, total - rise))


class _Run:
    """One run: what is learned, how far it is, and what is kept."""

    def __init__(
        self,
        train: Rows,
        validation: Rows,
        bits: int,
        classes: int,
        recipe: FrozenRecipe,
        work: Path,
    ) -> None:
        self._recipe, self._train, self._validation = recipe, train, validation
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self._layers = _Layers(train, bits, classes)
        self._batch = min(recipe.batch, max(1, len(train) // 8))
        self._steps = len(train) // self._batch
        self._optimiser = torch.optim.Adam(self._layers.parameters(), lr=recipe.rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, partial(_share, total=self._steps * recipe.epochs)
        )
        self._history: list[dict[str, float]] = []
        self._kept: dict[str, Any] = {}
        self._accuracy_kept = 0.0
        settings = {**asdict(recipe), "bits": bits, "images": len(train), "classes": classes}
        self._checkpoint = Checkpoint(work, settings=settings, every_s=0)

    @property
    def finished(self) -> bool:
        late = self._accuracies[-self._recipe.patience :]
        stale = len(late) == self._recipe.patience and all(map(self._is_worse, late))
        return stale or len(self._history) >= self._recipe.epochs

    @property
    def _accuracies(self) -> list[float]:
        return [each["accuracy"] for each in self._history]

    def _is_worse(self, accuracy: float) -> bool:
        best = max(self._accuracies, default=0.0)
        return accuracy < best - math.sqrt(best * (1 - best) / len(self._validation))

    def resume(self) -> None:
        """Take up the saved state, where there is one."""
        state = self._checkpoint.load()
        if state is None:
            return
        self._layers.load_state_dict(state["layers"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._history, self._kept = state["history"], state["kept"]
        self._accuracy_kept = state["accuracy"]

    def progress(self) -> Any:
        """Return a bar over all epochs; one of them may be too short to be told of."""
        size = self._steps * self._batch
        begin = size * len(self._history)
        return progress(total=size * self._recipe.epochs, begin=begin, title="learning codes")

    def epoch(self, bar: Any) -> None:
        """Learn from every image once, look at the validation images, and save."""
        number = len(self._history)
        order = np.random.default_rng([self._recipe.seed, number]).permutation(len(self._train))
        used = order[: self._steps * self._batch].reshape(self._steps, self._batch)
        losses = 0.0
        for places in used:
            losses += self._step(places)
            bar.update(len(places))
        loss, accuracy = losses / self._steps, self._accuracy()
        told = {"loss": f"{loss:.3f}", "accuracy": f"{accuracy:.4f}"}
        bar.set_postfix(epoch=number + 1, **told, refresh=False)
        self._close(loss, accuracy)

    def _step(self, places: NDArray[np.int64]) -> float:
        features, labels = self._train.take(places)
        value = descend(
            self._optimiser,
            self._loss(self._layers.values(features), labels),
            when=f"epoch {len(self._history) + 1}",
            rate=self._recipe.rate,
        )
        self._schedule.step()
        return value

    def _loss(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        recipe = self._recipe
        loss = functional.cross_entropy(self._layers.classes(values), labels)
        if recipe.similarity:
            loss = loss + recipe.similarity * dissimilarity(values, labels, recipe.sharpness)
        if recipe.balance:
            loss = loss + recipe.balance * imbalance(values)
        if recipe.quantisation:
            loss = loss + recipe.quantisation * indecision(values)
        return loss

    def _accuracy(self) -> float:
        """Share of the validation images whose class is read off the thresholded code."""
        right = 0
        with torch.inference_mode():
            for start in range(0, len(self._validation), _AT_ONCE):
                places = np.arange(start, min(start + _AT_ONCE, len(self._validation)))
                features, labels = self._validation.take(places)
                scores = self._layers.classes(self._layers.values(features).sign())
                right += int((scores.argmax(1) == labels).sum())
        return right / len(self._validation)

    def _close(self, loss: float, accuracy: float) -> None:
        number = len(self._history) + 1
        self._history.append({"epoch": number, "loss": loss, "accuracy": accuracy})
        if not self._is_worse(accuracy):
            state = self._layers.state_dict()
            self._kept = {name: value.clone() for name, value in state.items()}
            self._accuracy_kept = accuracy
        self._checkpoint.save(
            {
                "layers": self._layers.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "schedule": self._schedule.state_dict(),
                "history": self._history,
                "kept": self._kept,
                "accuracy": self._accuracy_kept,
            }
        )

    def result(self) -> Learned:
        """Return the layer of the epoch that was kept."""
        self._layers.load_state_dict(self._kept)
        return Learned(*self._layers.folded(), self._accuracy_kept, tuple(self._history))
