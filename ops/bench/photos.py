"""The photographs that benchmarks run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from PIL import Image

from ops.errors import OpsError
from workers.crawl import walk

DEMO = Path(__file__).parent.parent / "demo" / "photos"

# Share of each side that one more round over the photographs crops away.
_CROP_STEP = 0.01
_JPEG_QUALITY = 90


def photos_in(folder: Path) -> list[Path]:
    """Return the image files below a folder, in the order that a job takes them.

    Raises:
        OpsError: There are none.
    """
    found = list(walk(folder))
    if not found:
        raise OpsError(f"{folder} holds no images; give a folder that does with --images.")
    return found


def write_variants(target: Path, *, wanted: int, skip: int = 0) -> list[Path]:
    """Write different photographs: the demo ones, cropped a little more every time round.

    Args:
        target: An empty folder; made if absent.
        wanted: How many to write.
        skip: How many of the endless row of variants to pass over.
    """
    target.mkdir(parents=True, exist_ok=True)
    chosen = islice(_variants(photos_in(DEMO)), skip, skip + wanted)
    return [_write(target / f"{number:05}.jpg", *variant) for number, variant in enumerate(chosen)]


def _variants(photos: Sequence[Path]) -> Iterator[tuple[Path, float]]:
    for turn in count(1):
        for photo in photos:
            yield photo, turn * _CROP_STEP


def _write(path: Path, photo: Path, crop: float) -> Path:
    with Image.open(photo) as image:
        width, height = image.size
        box = (int(width * crop), int(height * crop), width, height)
        image.convert("RGB").crop(box).save(path, "JPEG", quality=_JPEG_QUALITY)
    return path
