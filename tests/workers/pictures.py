"""Small pictures that differ, made from a seed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, side_px: int = 96) -> Image.Image:
    """Return a smooth random picture; every seed gives another one."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


def jpeg(seed: int, **options: int) -> bytes:
    """Return a picture as the bytes of a JPEG file."""
    out = io.BytesIO()
    picture(seed, **options).save(out, "JPEG", quality=95)
    return out.getvalue()


def folder_of(path: Path, seeds: range) -> Path:
    """Fill a folder with one picture per seed, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (path / f"{seed:04}.jpg").write_bytes(jpeg(seed))
    return path
