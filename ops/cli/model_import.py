"""``lookalike model import``: a bundle of a network that somebody brings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.bundle import METRICS
from models.mean import is_factor, read_any_mean, read_deviation
from models.pictures import CAFFE_PICTURES, ONNX_PICTURES, Pictures
from models.preprocess import CHANNEL_ORDERS, RESAMPLES, RESIZE_RULES
from ops.cli.console import Console
from ops.cli.options import Command, settings_options
from workers.bundles import find_bundle
from workers.settings import Settings

if TYPE_CHECKING:
    from models.bundle import Bundle

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Caffe's tools and the paper compare fc7 by the Euclidean distance.
_METRIC = {"caffe": "l2", "onnx": "cosine"}


class _Factor(click.ParamType[float]):
    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = click.FLOAT.convert(value, param, ctx)
        if not is_factor(number):
            self.fail(f"{value} is not a positive finite number.", param, ctx)
        return number


def _or(what: str) -> str:
    """Say both defaults of an option that describes pictures."""
    caffe, onnx = (getattr(one, what) for one in (CAFFE_PICTURES, ONNX_PICTURES))
    return f"[default: {caffe} for Caffe files, {onnx} for ONNX]"


@click.command("import", cls=Command)
@click.option("--prototxt", type=_FILE, help="A Caffe network's description, of any format.")
@click.option("--weights", type=_FILE, help="Its caffemodel.")
@click.option("--onnx", type=_FILE, help="An ONNX network, in place of the two Caffe files.")
@click.option("--input", "input_name", help="The ONNX network's input, if it has several.")
@click.option("--feature", required=True, help="Layer, blob or value that is the feature.")
@click.option("--code", help="The same of the code; without one, `lookalike train` learns it.")
@click.option("--name", required=True, help="Name of the bundle, for --bundle.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory of the bundle; by default NAME in the folder of bundles.",
)
@click.option(
    "--mean", help="A .npy or .binaryproto file, or a number, or three such as 104,117,123."
)
@click.option("--mean-by-channel", is_flag=True, help="Take a mean image's mean of each channel.")
@click.option("--std", help="What each channel is divided by: a number, or three.")
@click.option("--scale", type=_Factor(), help="What differences are multiplied by [default: 1].")
@click.option("--channel-order", type=click.Choice(CHANNEL_ORDERS), help=_or("channel_order"))
@click.option(
    "--resize",
    type=click.IntRange(min=1),
    help="Pixels before the centre crop [default: 256 for networks of 224 to 256, no margin for "
    "others].",
)
@click.option(
    "--crop", type=click.IntRange(min=1), help="Side of the input, if the network takes any."
)
@click.option("--resize-rule", type=click.Choice(RESIZE_RULES), help=_or("resize_rule"))
@click.option("--resample", type=click.Choice(RESAMPLES), help=_or("resample"))
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    help=f"How features are compared [default: {_METRIC['caffe']} for Caffe files, "
    f"{_METRIC['onnx']} for ONNX].",
)
@click.option("--licence", help="SPDX expression of the weights' licence.")
@settings_options("bundles_dir", "cache_dir")
@click.pass_obj
def import_(console: Console, /, settings: Settings, **options: Any) -> None:
    """Make a bundle of Caffe files or of an ONNX network.

    Nothing is left behind where the files are wrong. A bundle without a code is a base for
    `lookalike train`.
    """
    _check(options)
    pictures = _pictures(options, CAFFE_PICTURES if options["onnx"] is None else ONNX_PICTURES)
    bundle = _imported(console, options, pictures, settings)
    # Converted now, so that the first search need not wait for it.
    with console.step("Making it ready for use"):
        ready = find_bundle(settings, str(bundle.path), needs_code=False)
    record = {
        "id": ready.id,
        "path": ready.path,
        "source": ready.source,
        "bits": ready.bits,
        "dims": ready.dims,
        "input_px": ready.preprocess.input_px,
        "caffe": ready.caffe is not None,
    }
    console.result(record, _told(ready, settings))


def _check(options: dict[str, Any]) -> None:
    caffe = (options["prototxt"], options["weights"])
    if options["onnx"] is not None and any(caffe):
        raise click.UsageError("give --onnx, or --prototxt with --weights, and not both.")
    if options["onnx"] is None and not all(caffe):
        raise click.UsageError("give --prototxt with --weights, or --onnx.")
    if options["input_name"] and options["onnx"] is None:
        raise click.UsageError("--input is for --onnx; a prototxt says what its input is.")


def _imported(
    console: Console, options: dict[str, Any], pictures: Pictures, settings: Settings
) -> Bundle:
    # Here, because the other commands do without these for most of what they do.
    from models.importing import Named, import_caffe, import_onnx

    source = "caffe" if options["onnx"] is None else "onnx"
    named = Named(
        name=options["name"],
        out=options["out"] or settings.bundles_dir / options["name"],
        metric=options["metric"] or _METRIC[source],
    )
    if options["licence"]:
        named = dataclasses.replace(named, licence=options["licence"])
    shared = {
        "named": named,
        "feature": options["feature"],
        "code": options["code"],
        "pictures": pictures,
    }
    if source == "caffe":
        with console.step("Checking the Caffe files and copying them"):
            return import_caffe(options["prototxt"], options["weights"], **shared)
    with console.step("Converting the network and trying it out"):
        return import_onnx(options["onnx"], input_name=options["input_name"], **shared)


def _pictures(options: dict[str, Any], usual: Pictures) -> Pictures:
    chosen = {
        "resize_px": options["resize"],
        "crop_px": options["crop"],
        **{key: options[key] for key in ("resize_rule", "resample", "channel_order", "scale")},
    }
    if options["mean"] is not None:
        chosen["mean"] = read_any_mean(options["mean"], by_channel=options["mean_by_channel"])
    if options["std"] is not None:
        chosen["deviation"] = read_deviation(options["std"])
    given = {key: value for key, value in chosen.items() if value is not None}
    return dataclasses.replace(usual, **given)


def _told(bundle: Bundle, settings: Settings) -> str:
    found = bundle.path.parent == settings.bundles_dir
    name = bundle.path.name if found else bundle.path
    code = f"a code of {bundle.bits} bits" if bundle.bits else "no code"
    then = (
        f"use it with --bundle {name}"
        if bundle.bits
        else f"learn a code with `lookalike train --base {name}`"
    )
    return f"{bundle.id}: features of {bundle.dims} values, {code}; {then}"
