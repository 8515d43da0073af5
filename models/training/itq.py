"""Iterative quantisation (Gong and Lazebnik, CVPR 2011): codes without labels, to compare with."""

import numpy as np
from numpy.typing import NDArray

from models.training.latent_layer import Layer


def learn_itq(features: NDArray[np.float32], *, bits: int, rounds: int, seed: int) -> Layer:
    """Rotate the principal components so that their signs lose least (section 2.2).

    Args:
        features: shape=(N, D), dtype=float32.
        bits: B, at most D.
        rounds: How often signs and rotation take turns.
        seed: For the first rotation.
    """
    mean = features.mean(0)
    centred = features - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    main = centred @ axes[:, -bits:]
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((bits, bits)).astype(np.float32))
    for _ in range(rounds):
        left, _, right = np.linalg.svd(np.sign(main @ rotation).T @ main)
        rotation = (left @ right).T
    weight = (axes[:, -bits:] @ rotation).T.astype(np.float16)
    return Layer(weight, -(weight.astype(np.float32) @ mean))
