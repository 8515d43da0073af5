"""What codes may be charged for beside wrong classes. Needs PyTorch.

Everywhere: `values` are latent values from -1 to 1, shape=(N, B).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from models.errors import Diverged


def dissimilarity(values: torch.Tensor, labels: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Charge for images of one class whose codes differ more than those of other classes.

    The cross-entropy between who shares a class and whose values are near: Khosla et al.,
    "Supervised Contrastive Learning", NeurIPS 2020, equation 2, on codes.

    Args:
        values: shape=(N, B).
        labels: shape=(N,).
        sharpness: One over the temperature, for a product of codes that goes from -1 to 1.
    """
    itself = torch.eye(len(labels), dtype=torch.bool)
    same = (labels[:, None] == labels) & ~itself
    # The mean of products is 1 where all bits agree and -1 where none does.
    products = sharpness * (values @ values.T) / values.shape[1]
    near = products.masked_fill(itself, -torch.inf).log_softmax(1).masked_fill(itself, 0)
    # An image that is alone of its class has nobody to be near to.
    return -((same * near).sum(1) / same.sum(1).clamp(min=1)).mean()


def imbalance(values: torch.Tensor) -> torch.Tensor:
    """Charge for bits that most images have alike: the mean square of each bit's mean."""
    return (values.mean(0) ** 2).mean()


def indecision(values: torch.Tensor) -> torch.Tensor:
    """Charge for values far from -1 and 1, which rounding to bits moves most."""
    return ((1 - values.abs()) ** 2).mean()


def descend(optimiser: Any, loss: torch.Tensor, *, when: str, rate: float) -> float:
    """Take one step down a loss.

    Args:
        optimiser: Any of PyTorch's.
        loss: What to lower.
        when: Which step it is, for the error.
        rate: The highest learning rate, for the error.

    Returns:
        The loss.

    Raises:
        Diverged: The loss is not a number, or the step is not one.
    """
    value = float(loss.detach())
    try:
        if not math.isfinite(value):
            raise OverflowError(f"it is {value}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    # PyTorch's own, where a step leaves the range of its numbers.
    except (OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "overflow" not in str(error):
            raise
        raise Diverged(
            f"the loss is not a number in {when}; lower --rate (it is {rate:g}) and start anew"
        ) from error
    return value
