"""``lookalike model parity``: do ONNX Runtime and Caffe say the same of a bundle's network?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from models.bundle import Bundle
from models.parity import FEATURE_TOLERANCE, NEAR_THRESHOLD, Parity, compare
from ops.bench.photos import DEMO
from ops.cli.console import Console, leave
from ops.cli.exits import Exit
from ops.cli.options import Command, settings_options
from ops.cli.pixels import drawn, pixels_of
from workers.bundles import find_bundle
from workers.settings import Settings


@click.command("parity", cls=Command)
@click.argument("bundle")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=DEMO,
    help="Folder of real images; by default the photos that come with lookalike.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Images of random pixels, and at most as many real ones.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the pixels and the choice.")
@settings_options("bundles_dir", "cache_dir", "engine_threads")
@click.pass_obj
def parity(
    console: Console, bundle: str, images: Path, count: int, seed: int, settings: Settings
) -> None:
    """Run both engines on a bundle and compare what they say.

    BUNDLE is the name of one that comes with lookalike, or a directory. The exit code is 1 where
    a feature or a bit differs by more than rounding explains.
    """
    ready = find_bundle(settings, bundle, needs_code=False)
    pixels = pixels_of(drawn(images, count, seed), ready, settings, console)
    found = compare(ready, pixels, count=count, seed=seed, threads=settings.engine_threads)
    record = {
        "bundle": ready.id,
        "random": count,
        "real": len(pixels),
        **asdict(found),
        "within_tolerance": found.within_tolerance,
    }
    console.result(record, _told(ready, found, real=len(pixels)))
    leave(Exit.DONE if found.within_tolerance else Exit.FAILED)


def _told(bundle: Bundle, found: Parity, *, real: int) -> str:
    verdict = "the engines agree" if found.within_tolerance else "THE ENGINES DISAGREE"
    rows = {
        "images": f"{found.images}, {real} of them real, the others random pixels",
        "max_abs_diff": f"{found.max_abs_diff:.3g} of features; {FEATURE_TOLERANCE:g} is too much",
        "of latent values": f"{found.max_abs_diff_latent:.3g}",
        "bits_differing": f"{found.bits_differing} of {found.bits:,}",
        "bits_wrong": f"{found.bits_wrong} of those are not near the threshold; 0 is fine",
        "near the threshold": f"{found.bits_near_threshold}, at most {NEAR_THRESHOLD:g} from it",
        "images_per_s": f"{found.onnx_images_per_s:.1f} ONNX Runtime, "
        f"{found.caffe_images_per_s:.1f} Caffe",
    }
    lines = [f"{name:<20} {value}" for name, value in rows.items()]
    return "\n".join([f"{bundle.id}: {verdict}", *lines])
