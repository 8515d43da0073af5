"""Pictures whose class can be seen, and a network that is small and real."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from models.bundle import Bundle
from models.bundle_writer import write_bundle
from models.preprocess import Preprocess
from tests.models.conftest import SIDE_PX, tiny_network

COLOURS = {"blue": (40, 60, 200), "green": (30, 160, 60), "red": (200, 40, 50)}


def class_folders(root: Path, each: int, *, seed: int = 0, classes: int = 3) -> Path:
    """Fill a folder with a folder of pictures for each class, a colour loosely kept."""
    rng = np.random.default_rng(seed)
    for name, colour in list(COLOURS.items())[:classes]:
        (root / name).mkdir(parents=True)
        for number in range(each):
            noise = rng.normal(0, 70, 3) + rng.normal(0, 40, (16, 16, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def tiny_bundle(path: Path, *, name: str, bits: int, code_weight: float = 0.0) -> Path:
    """Write a bundle of a convolution and a latent layer, and return its directory."""
    path.mkdir()
    network = tiny_network(bits=bits)
    bundle = Bundle(
        path=path,
        name=name,
        licence="Apache-2.0",
        bits=bits,
        dims=6,
        metric="cosine",
        preprocess=Preprocess(
            input_px=SIDE_PX,
            resize_px=SIDE_PX,
            resize_rule="stretch",
            resample="bilinear",
            channel_order="RGB",
            mean=(127.0, 127.0, 127.0),
            scale=1 / 128,
        ),
        input_name="input",
        feature_name="feature",
        latent_name="latent_values",
        code_threshold=0.5,
        code_weight=code_weight,
        sha256=hashlib.sha256(network).hexdigest(),
    )
    write_bundle(bundle, network)
    return path
