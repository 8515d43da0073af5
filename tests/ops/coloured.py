"""Pictures whose class can be seen: a colour for each, loosely kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (30, 160, 60), "red": (200, 40, 50)}


def class_folders(root: Path, each: int, *, seed: int = 0, classes: int = 3) -> Path:
    """Fill a folder with a folder of pictures for each colour, and return it."""
    rng = np.random.default_rng(seed)
    for name, colour in list(COLOURS.items())[:classes]:
        (root / name).mkdir(parents=True)
        for number in range(each):
            noise = rng.normal(0, 70, 3) + rng.normal(0, 40, (16, 16, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root
