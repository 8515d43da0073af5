"""``lookalike model quantise``: a bundle whose network computes in 8-bit integers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.quantise import SUFFIX, Agreement, agreement, quantise_bundle
from ops.cli.console import Console, shown
from ops.cli.options import Command, settings_options
from ops.cli.pixels import drawn, pixels_of
from workers.bundles import find_bundle
from workers.settings import Settings

# Images beyond those that the ranges come from, to see how far the two networks agree.
_CHECKED = 32


@click.command("quantise", cls=Command)
@click.argument("bundle")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of images like those that will be searched; no labels are needed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"The new bundle's directory; by default NAME{SUFFIX} in the folder of bundles.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Images to draw, from which the range of each layer's values is taken.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@settings_options("bundles_dir", "cache_dir", "engine_threads")
@click.pass_obj
def quantise(
    console: Console,
    bundle: str,
    images: Path,
    out: Path | None,
    count: int,
    seed: int,
    settings: Settings,
) -> None:
    """Make a bundle whose network computes in 8-bit integers, which is faster.

    BUNDLE is the name of one, or a directory. The new one has an id of its own: a collection
    keeps to the bundle that it was begun with. Then both networks run on a few other images of
    the folder, and the command tells how far they agree.
    """
    original = find_bundle(settings, bundle, needs_code=False)
    place = out or settings.bundles_dir / f"{original.name}{SUFFIX}"
    pixels = pixels_of(drawn(images, count + _CHECKED, seed), original, settings, console)
    learned, checked = _parted(pixels, count, seed)
    made = quantise_bundle(original, learned, place)
    found = agreement(original, made, checked, threads=settings.engine_threads)
    record = {"id": made.id, "path": made.path, "of": original.id, **asdict(found)}
    console.result(record, _told(original, made, found))


def _parted(
    pixels: NDArray[np.uint8], count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split into images for the ranges and others; a small folder's must do for both."""
    mixed = pixels[np.random.default_rng(seed).permutation(len(pixels))]
    return mixed[:count], mixed[count:] if len(mixed) > count else mixed


def _told(original: Bundle, made: Bundle, found: Agreement) -> str:
    cosine = f"{found.cosine:.4f} on average, {found.cosine_min:.4f} at least"
    rows = {
        "path": shown(made.path),
        "compared with": f"{original.id} on {found.images} images",
        "cosine of features": cosine,
        "bits_differing": f"{found.bits_differing:.2f} of {made.bits} on average",
    }
    return "\n".join([made.id, *(f"{name:<20} {value}" for name, value in rows.items())])
