"""Training examples for fine-tuning: pictures cut and mirrored at random.

What is drawn depends on the seed, the epoch and the image alone, so that a run which was cut off
goes on with the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from models.images import upright_rgb
from models.labelled.corpus import Corpus
from models.preprocess import RESAMPLING, Preprocess

_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """How far an example may differ from its picture.

    Attributes:
        least_area: The smallest share of the picture that is kept; 1 keeps all of it.
        most_stretch: The largest ratio of the kept part's sides.
        mirror: Mirrors half of the examples.
    """

    least_area: float = 0.7
    most_stretch: float = 4 / 3
    mirror: bool = True

    def apply(
        self, image: Image.Image, preprocess: Preprocess, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Make an example of a picture.

        Args:
            image: A picture of mode `RGB`.
            preprocess: Gives the side and the resampling.
            rng: What is drawn from.

        Returns:
            shape=(input_px, input_px, 3), dtype=uint8, RGB.
        """
        side = preprocess.input_px
        # Point sampling of a drawn box would be noise; the network gets used to smooth edges.
        resample = RESAMPLING.get(preprocess.resample, Image.Resampling.BILINEAR)
        # Squeezed into a square, a picture would show what no search sees.
        box = self._box(*image.size, rng) or preprocess.centre(*image.size, share=1)
        pixels = np.array(image.resize((side, side), resample, box=box))
        mirrored = self.mirror and rng.random() < 0.5
        return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels

    def _box(
        self, width: int, height: int, rng: np.random.Generator
    ) -> tuple[float, float, float, float] | None:
        """Draw a part of the picture (Szegedy et al., CVPR 2015, section 6), if one fits."""
        for _ in range(_TRIES):
            area = width * height * rng.uniform(self.least_area, 1)
            bound = math.log(self.most_stretch)
            ratio = math.exp(rng.uniform(-bound, bound))
            across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if across <= width and down <= height:
                left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
                return left, top, left + across, top + down
        return None


class Examples(Dataset[tuple[NDArray[np.uint8], int]]):
    """Pixels and label of an image by (epoch, index); epoch -1 gives the picture as it is."""

    def __init__(
        self, corpus: Corpus, preprocess: Preprocess, augmentation: Augmentation, *, seed: int
    ) -> None:
        self._corpus, self._preprocess = corpus, preprocess
        self._augmentation, self._seed = augmentation, seed

    def __getitem__(self, place: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
        epoch, index = place
        with Image.open(self._corpus.paths[index]) as file:
            image = upright_rgb(file)
        label = int(self._corpus.labels[index])
        if epoch < 0:
            return np.array(self._preprocess.pixels(image)), label
        rng = np.random.default_rng([self._seed, epoch, index])
        return self._augmentation.apply(image, self._preprocess, rng), label


class Batches:
    """The places of one epoch in batches, from a given step on: a batch sampler."""

    def __init__(self, count: int, batch: int, *, seed: int, epoch: int, first: int = 0) -> None:
        """Shuffle `count` images; what does not fill a batch waits for another epoch.

        Args:
            count: How many images there are.
            batch: How many are in a batch.
            seed: Together with `epoch` it fixes the order.
            epoch: Which pass this is; -1 keeps the order and every image.
            first: The step to start at.
        """
        order = np.arange(count)
        if epoch >= 0:
            order = np.random.default_rng([seed, epoch]).permutation(count)
        steps = count // batch if epoch >= 0 else -(-count // batch)
        self._batches = [
            [(epoch, int(index)) for index in order[step * batch : (step + 1) * batch]]
            for step in range(first, steps)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._batches)


def normalised(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Do what `Preprocess.normalise` does on the device where the pixels are.

    Bytes are a quarter of what floats are to send there, and lie as channels last already.

    Args:
        pixels: shape=(N, H, W, 3), dtype=uint8, RGB.
        preprocess: How the network wants its pictures.

    Returns:
        shape=(N, 3, H, W), dtype=float32, channels last in memory.
    """
    mean_image = preprocess.mean_image
    mean = preprocess.mean if mean_image is None else mean_image.transpose(1, 2, 0)
    ordered = pixels if preprocess.channel_order == "RGB" else pixels.flip(3)
    means = torch.tensor(mean, dtype=torch.float32, device=pixels.device)
    return ((ordered.float() - means) * preprocess.scale).permute(0, 3, 1, 2)
