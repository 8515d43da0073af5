"""What codes may be charged for beside wrong classes. Needs PyTorch.

Everywhere: `values` are latent values from -1 to 1, shape=(N, B).
"""

from __future__ import annotations

import torch


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
