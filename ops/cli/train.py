"""``lookalike train``: a bundle learned from labelled images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from models.caffe.topologies import TOPOLOGIES
from models.training.bases import PRETRAINED, Base, open_base, refuse_side
from models.training.caffe_bases import CaffeFiles, open_caffemodel, open_topology
from models.training.options import DEVICES, MAX_BITS, MIN_BITS, Options
from models.training.train import Trained, train
from ops.cli.console import Console, shown
from ops.cli.options import Command, Finite, settings_options
from ops.wording import counted
from workers.bundles import find_bundle
from workers.settings import Settings

_CAFFEMODEL = ".caffemodel"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CORPUS = click.Path(path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_WEIGHT = Finite(min=0)
_FROZEN_ONLY = ("similarity", "balance", "quantisation")
_FINETUNE_ONLY = ("cutmix",)
_RECIPE = ("epochs", "batch", "rate", "patience", "seed", *_FROZEN_ONLY, *_FINETUNE_ONLY)
_TOLD = 3


@click.command("train", cls=Command)
@click.option(
    "--data",
    type=_CORPUS,
    required=True,
    help="Folder with a folder of images for each class, or a CSV with the columns path,label.",
)
@click.option(
    "--bits",
    type=click.IntRange(MIN_BITS, MAX_BITS),
    required=True,
    help="Length of the codes.",
)
@click.option(
    "--base",
    required=True,
    help=f"What to start from: {', '.join((*PRETRAINED, *TOPOLOGIES))}, a bundle by name or "
    "directory, or a .caffemodel.",
)
@click.option("--prototxt", type=_FILE, help="With a .caffemodel: its network, of any format.")
@click.option(
    "--mean", help="With a .caffemodel: a .npy or .binaryproto file, or three numbers, blue first."
)
@click.option(
    "--feature",
    default="fc7",
    show_default=True,
    help="With a .caffemodel: the layer or blob of features.",
)
@click.option(
    "--out",
    type=_FOLDER,
    help="Directory of the new bundle; by default --name in the folder of bundles.",
)
@click.option("--name", help="Name of the new bundle; by default that of --out.")
@click.option("--licence", help="SPDX expression of the new weights; by default the base's.")
@click.option(
    "--code-weight",
    type=_WEIGHT,
    help="How much codes count beside features when hits are ordered; by default what finds most "
    "for the held-out images.",
)
@click.option(
    "--validation",
    type=_CORPUS,
    help="Images of the same classes that decide which epoch is best; by default a twentieth of "
    "--data is held out.",
)
@click.option("--finetune", is_flag=True, help="Let the whole network learn, not the code alone.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the images, at most.")
@click.option("--batch", type=click.IntRange(min=1), help="Images per step.")
@click.option("--rate", type=Finite(min=0, min_open=True), help="Highest learning rate.")
@click.option("--patience", type=click.IntRange(min=1), help="Epochs without gain before it ends.")
@click.option(
    "--similarity", type=_WEIGHT, help="Weight of the loss that draws codes of a class together."
)
@click.option("--balance", type=_WEIGHT, help="Weight of the loss that evens the bits out.")
@click.option(
    "--quantisation", type=_WEIGHT, help="Weight of the loss that keeps values off the threshold."
)
@click.option(
    "--cutmix",
    type=Finite(min=0, max=1),
    help="Share of the steps of --finetune that learn from pictures pasted into each other.",
)
@click.option("--seed", type=click.IntRange(min=0), help="For every draw; 0 by default.")
@click.option(
    "--input-px",
    type=click.IntRange(min=32, max=1024),
    help="Side of the network's input, where its features are means over the picture, as those of "
    f"{', '.join(PRETRAINED)} are.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="What --finetune runs on; auto takes a GPU where PyTorch finds one.",
)
@click.option(
    "--cache",
    type=_FOLDER,
    help="Folder that keeps features between runs; by default one in the cache directory.",
)
@settings_options("bundles_dir", "cache_dir", "engine_threads")
@click.pass_obj
def train_(
    console: Console,
    /,
    base: str,
    prototxt: Path | None,
    mean: str | None,
    feature: str,
    out: Path | None,
    name: str | None,
    input_px: int | None,
    cache: Path | None,
    settings: Settings,
    **told: Any,
) -> None:
    """Train a bundle on labelled images.

    Without --finetune only the code is learned, on features that stay as they are: minutes, and
    no GPU is needed. What was interrupted or killed goes on where it was when the same command is
    given again.
    """
    if out is None and name is None:
        raise click.UsageError("Give --out, or --name for a bundle in the folder of bundles.")
    handle = shown(name if out is None else out.absolute())
    out = (out if out is not None else settings.bundles_dir / str(name)).absolute()
    options = _options(name or out.name, told)
    files = CaffeFiles(prototxt, feature, mean)
    start = _base(base, files, input_px, options.recipe.get("seed", 0), settings)
    features = cache if cache is not None else settings.cache_dir / "features"
    trained = train(start, options, out=out, features=features, threads=settings.engine_threads)
    console.result(_record(trained), _text(trained))
    _tell(console, trained, options, handle)


def _base(
    name: str, files: CaffeFiles, input_px: int | None, seed: int, settings: Settings
) -> Base:
    if name.endswith(_CAFFEMODEL):
        if files.prototxt is None:
            raise click.UsageError(f"{name} says nothing of its layers; give its --prototxt too.")
        found = open_caffemodel(Path(name), files)
    elif name in TOPOLOGIES:
        found = open_topology(name, seed=seed)
    else:
        find = partial(find_bundle, settings, needs_code=False)
        return open_base(name, input_px=input_px, find=find)
    refuse_side(found, input_px)
    return found


def _options(name: str, told: dict[str, Any]) -> Options:
    given = {key: told.pop(key) for key in _RECIPE}
    recipe = {key: value for key, value in given.items() if value is not None}
    finetune = told["finetune"]
    if wrong := recipe.keys() & {*(_FROZEN_ONLY if finetune else _FINETUNE_ONLY)}:
        names = ", ".join(f"--{each}" for each in sorted(wrong))
        where = "with" if finetune else "without"
        raise click.UsageError(f"{names} cannot be set {where} --finetune; leave it out.")
    return Options(name=name, recipe=recipe, **told)


def _record(trained: Trained) -> dict[str, Any]:
    bundle = trained.bundle
    return {
        "id": bundle.id,
        "path": str(bundle.path),
        "name": bundle.name,
        "bits": bundle.bits,
        "dims": bundle.dims,
        "caffe": bundle.caffe is not None,
        "images": trained.images,
        "held_out": trained.held_out,
        "skipped": len(trained.skipped),
        "epochs": trained.epochs,
        "accuracy": trained.accuracy,
        "code_weight": bundle.code_weight,
    }


def _text(trained: Trained) -> str:
    return "\n".join(f"{key:<16} {shown(value)}" for key, value in _record(trained).items())


def _tell(console: Console, trained: Trained, options: Options, handle: str) -> None:
    """Say what was left out, and what to do next."""
    if trained.skipped:
        console.note(f"{counted(len(trained.skipped), 'image')} could not be read, such as:")
    for each in trained.skipped[:_TOLD]:
        console.note(f"  {shown(each.path)}: {shown(each.reason)}")
    console.note(f"Measure it: lookalike evaluate {handle} --data {shown(options.data)}")
    console.note(f"Use it:     lookalike ingest PHOTOS --data-dir NEW --bundle {handle}")
