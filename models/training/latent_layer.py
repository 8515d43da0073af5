"""Learns a latent sigmoid layer on features that stay as they are. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SIMILARITY_DIMS = 192
_LEAST_STEPS = 20


@dataclass(frozen=True)
class Recipe:
    """How a latent layer is learned; models/latent/README.md says what each part is worth.

    Attributes:
        epochs: Passes over the images.
        batch: Images per step.
        rate: Highest learning rate; it rises over the first tenth and falls to nothing.
        label_share: How much of the target is the label, the rest is what the network's own
            class layer says.
        similarity: Weight of the term that keeps neighbours; 0 leaves it out.
        sharpness: How strongly that term prefers the nearest.
        stability: Weight of the squared difference between an image and its distorted copy.
        balance: Weight of the squared mean of each bit, in every group of images.
    """

    epochs: int
    batch: int
    rate: float
    label_share: float
    similarity: float
    sharpness: float
    stability: float
    balance: float


@dataclass(frozen=True)
class Examples:
    """What a latent layer learns from.

    Attributes:
        features: shape=(N, D), dtype=float32.
        copies: shape=(N, D), dtype=float32; features of a distorted copy of each image.
        labels: shape=(N,), dtype=int64; rows of the class layer, or -1 where nobody has said:
            such images are kept near their neighbours and told no class.
        groups: shape=(N,), dtype=int64; the kind of picture, each to be spread over all codes.
        class_weight: shape=(C, D), dtype=float32; the network's own class layer.
        class_bias: shape=(C,), dtype=float32.
    """

    features: NDArray[np.float32]
    copies: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    class_weight: NDArray[np.float32]
    class_bias: NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A latent layer: bit b of an image is set where weight[b] @ feature + bias[b] > 0.

    Attributes:
        weight: shape=(B, D), dtype=float16.
        bias: shape=(B,), dtype=float32.
    """

    weight: NDArray[np.float16]
    bias: NDArray[np.float32]

    def codes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Code N features: shape=(N, ceil(B/8)), dtype=uint8, packed."""
        raw = features @ self.weight.astype(np.float32).T + self.bias
        return np.packbits(raw > 0, axis=1)


def learn_latent(examples: Examples, *, bits: int, recipe: Recipe, seed: int) -> Layer:
    """Learn a latent layer in front of a class layer (Lin et al., CVPRW 2015, section 3.2).

    To the classification loss of the paper this adds two terms: images that are alike, by
    feature and by class, get codes that are alike, and a distorted copy keeps its code.

    Args:
        examples: N images.
        bits: B.
        recipe: The settings.
        seed: For the first weights and the order of the images; equal seeds give equal layers
            on one machine.

    Raises:
        ValueError: There are too few images for a run, or a loss is not a number.
    """
    import torch

    steps = recipe.epochs * (len(examples.features) // recipe.batch)
    if steps < _LEAST_STEPS:
        raise ValueError(
            f"expected at least {_LEAST_STEPS} steps, got {steps}; give more images or epochs, or "
            "a smaller batch"
        )
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    learner = _Learner(examples, bits, recipe)
    optimiser = torch.optim.Adam(learner.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=steps, pct_start=0.1
    )
    with progress(total=steps, title=f"{bits} bits", unit="step") as bar:
        for batch in learner.batches():
            loss = learner.loss(batch)
            if not torch.isfinite(loss):
                raise ValueError("the loss is not a number; lower the learning rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.update(1)
    return learner.layer()


class _Learner:
    """The tensors of one run: examples, what they should become, and what is learned."""

    def __init__(self, examples: Examples, bits: int, recipe: Recipe) -> None:
        import torch

        self._recipe = recipe
        self._features = torch.from_numpy(examples.features)
        self._copies = torch.from_numpy(examples.copies)
        self._groups = torch.from_numpy(examples.groups)
        self._targets = torch.from_numpy(_targets(examples, recipe.label_share))
        self._outlines = torch.from_numpy(_outlines(examples.features, examples.groups))
        self._untold = torch.from_numpy(examples.labels < 0)
        self._mean = self._features.mean(0)
        self._spread = self._features.std(0) + 1e-3
        self._latent = torch.nn.Linear(self._features.shape[1], bits)
        self._classes = torch.nn.Linear(bits, self._targets.shape[1])

    def parameters(self) -> list[Any]:
        return [*self._latent.parameters(), *self._classes.parameters()]

    def batches(self) -> Iterator[Any]:
        import torch

        size = self._recipe.batch
        for _ in range(self._recipe.epochs):
            order = torch.randperm(len(self._features))
            for start in range(0, len(order) - size + 1, size):
                yield order[start : start + size]

    def _values(self, features: Any) -> Any:
        """Latent values as -1 to 1, which is twice the sigmoid minus 1."""
        return (self._latent((features - self._mean) / self._spread)).tanh()

    def loss(self, batch: Any) -> Any:
        recipe = self._recipe
        values, targets = self._values(self._features[batch]), self._targets[batch]
        loss = _cross_entropy(targets, self._classes(values))
        if recipe.similarity:
            outlines, groups = self._outlines[batch], self._groups[batch]
            # Where no class says who is alike, the features say it twice.
            by_feature = outlines @ outlines.T * (1 + self._untold[batch].float())[:, None]
            alike = by_feature + targets.sqrt() @ targets.sqrt().T
            loss += recipe.similarity * _neighbours(alike, values, groups, recipe.sharpness)
        if recipe.stability:
            copies = self._values(self._copies[batch])
            loss += recipe.stability * ((values - copies) ** 2).mean()
        if recipe.balance:
            loss += recipe.balance * _imbalance(values, self._groups[batch])
        return loss

    def layer(self) -> Layer:
        """Fold the scaling of the features into the weights."""
        # tanh(x) = 2 sigmoid(2x) - 1, so that the sigmoid sees twice what the tanh saw.
        weight = 2 * (self._latent.weight / self._spread).detach()
        half = weight.numpy().astype(np.float16)
        # With the weights as they are stored, so that what they lost does not move the threshold.
        shift = half.astype(np.float32) @ self._mean.numpy()
        return Layer(half, 2 * self._latent.bias.detach().numpy() - shift)


def _targets(examples: Examples, label_share: float) -> NDArray[np.float32]:
    """Mix what the network's class layer says of each image with its label.

    Without a label it is nothing: of pictures unlike those it knows a class layer says little.
    """
    logits = examples.features @ examples.class_weight.T + examples.class_bias
    logits -= logits.max(1, keepdims=True)
    odds = np.exp(logits)
    targets: NDArray[np.float32] = odds * ((1 - label_share) / odds.sum(1, keepdims=True))
    targets[np.arange(len(targets)), examples.labels] += label_share
    targets[examples.labels < 0] = 0
    return targets


def _outlines(features: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit vectors of the principal components of each group: nearly all of the cosine, cheaper.

    What a whole kind of picture has in common does not tell its pictures apart.
    """
    outlines = np.zeros((len(features), min(_SIMILARITY_DIMS, features.shape[1])), np.float32)
    for group in np.unique(groups):
        members = features[groups == group]
        centred = members - members.mean(0)
        # Every seventh image says enough about the directions.
        _, axes = np.linalg.eigh(centred[::7].T @ centred[::7])
        main = centred @ axes[:, -_SIMILARITY_DIMS:]
        outlines[groups == group] = main / np.linalg.norm(main, axis=1, keepdims=True)
    return outlines


def _cross_entropy(targets: Any, logits: Any) -> Any:
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def _neighbours(alike: Any, values: Any, groups: Any, sharpness: float) -> Any:
    """Cross-entropy between who of a group is near whom by `alike` and by the latent values."""
    itself = alike.new_ones(len(alike)).diag()
    nobody = -1e9 * (itself + (groups[:, None] != groups))
    near = (sharpness * alike + nobody).softmax(1)
    products = values @ values.T / values.shape[1]
    return _cross_entropy(near, 2 * sharpness * products + nobody)


def _imbalance(values: Any, groups: Any) -> Any:
    """Mean square of each bit's mean, summed over the groups that are there."""
    return sum((values[groups == group].mean(0) ** 2).mean() for group in groups.unique())
