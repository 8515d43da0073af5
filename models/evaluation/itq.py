"""Iterative quantisation (Gong and Lazebnik, CVPR 2011): codes without labels, to compare with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 50
"""How often signs and rotation take turns; the paper's own number."""


@dataclass(frozen=True)
class Itq:
    """A learned quantiser: bit b of an image is set where weight[b] @ feature + bias[b] > 0.

    Attributes:
        weight: shape=(B, D), dtype=float32.
        bias: shape=(B,), dtype=float32.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def codes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Code N features: shape=(N, ceil(B/8)), dtype=uint8, packed."""
        return np.packbits(features @ self.weight.T + self.bias > 0, axis=1)


def learn_itq(features: NDArray[np.float32], *, bits: int, seed: int, rounds: int = ROUNDS) -> Itq:
    """Rotate the principal components so that their signs lose least (section 2.2).

    Args:
        features: shape=(N, D), dtype=float32.
        bits: B, at most D.
        seed: For the first rotation.
        rounds: How often signs and rotation take turns.

    Raises:
        ValueError: There are more bits than dimensions.
    """
    if bits > features.shape[1]:
        raise ValueError(f"expected at most {features.shape[1]} bits, got {bits}")
    mean = features.mean(0)
    centred = features - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    main = centred @ axes[:, -bits:]
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((bits, bits)).astype(np.float32))
    for _ in range(rounds):
        left, _, right = np.linalg.svd(np.sign(main @ rotation).T @ main)
        rotation = (left @ right).T
    weight = (axes[:, -bits:] @ rotation).T
    return Itq(weight, -(weight @ mean))
