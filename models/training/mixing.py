"""Training examples that are made of two pictures. Needs PyTorch."""

from __future__ import annotations

import math

import numpy as np
import torch


def cut_and_mix(
    images: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste a part of another picture of the batch into each picture.

    CutMix: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features", ICCV 2019, with the same box for the whole batch.

    Args:
        images: shape=(N, 3, H, W).
        targets: Share of each class, shape=(N, C), dtype=float32.
        rng: What is drawn from.

    Returns:
        The images, and of what classes they are now by area.
    """
    height, width = images.shape[2:]
    top, bottom, left, right = _box(height, width, rng)
    other = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    mixed = images.clone(memory_format=torch.preserve_format)
    mixed[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    pasted = (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets, targets[other], pasted)


def _box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a part of a picture: its area evenly, then its middle; the edges cut it off."""
    side = math.sqrt(rng.random())
    down, across = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = _span(down, side * height, height)
    left, right = _span(across, side * width, width)
    return top, bottom, left, right


def _span(middle: float, length: float, end: int) -> tuple[int, int]:
    return max(0, round(middle - length / 2)), min(end, round(middle + length / 2))
