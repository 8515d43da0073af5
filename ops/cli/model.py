"""``lookalike model``: the bundles, and what a bundle's network says of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.catalogue import DEFAULT_BUNDLES, named_bundles
from models.engine import Engine
from models.engines import ENGINES, open_engine
from ops.cli.console import Console, leave, shown, told
from ops.cli.exits import Exit
from ops.cli.model_import import import_
from ops.cli.model_parity import parity
from ops.cli.model_quantise import quantise
from ops.cli.model_topology import topology
from ops.cli.options import Group, settings_options
from workers.bundles import find_bundle
from workers.decode import Decoded, Limits, decode, read_file
from workers.errors import Failed, WorkerError
from workers.records import Problem
from workers.settings import Settings

_BATCH = 64

_LIMITS = ("bundles_dir", "cache_dir", "bundle")


@click.group(cls=Group)
def model() -> None:
    """Model bundles, and what they say of images."""


model.add_command(import_)
model.add_command(parity)
model.add_command(quantise)
model.add_command(topology)


@model.command("list")
@settings_options(*_LIMITS)
@click.pass_obj
def list_(console: Console, settings: Settings) -> None:
    """List the bundles that come with lookalike, those found by name, and the one in use."""
    named = named_bundles(settings.bundles_dir)
    for name in dict.fromkeys((*DEFAULT_BUNDLES, *named, settings.bundle)):
        used = name == settings.bundle
        made = name not in DEFAULT_BUNDLES or any(settings.cache_dir.glob(f"{name}-*"))
        state = "ready" if made else "made on first use"
        mark = "*" if used else " "
        console.result({"name": name, "ready": made, "used": used}, f"{mark} {name:<12} {state}")


@model.command("info")
@settings_options(*_LIMITS)
@click.pass_obj
def info(console: Console, settings: Settings) -> None:
    """Tell what the bundle in use is: its numbers, its licence and its id."""
    described = _described(find_bundle(settings))
    console.result(described, "\n".join(f"{k:<16} {v}" for k, v in described.items()))


@model.command("extract")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bits", is_flag=True, help="Print codes as bits instead of hexadecimal.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write features, codes and paths of the images to this .npz file.",
)
@settings_options(*_LIMITS)
@click.pass_obj
def extract(
    console: Console, images: tuple[Path, ...], bits: bool, output: Path | None, settings: Settings
) -> None:
    """Print the code of image files, without storing anything.

    The .npz file holds paths (N), features (N, D) float32 and codes (N, ceil(B/8)) uint8, the
    most significant bit first. A file that cannot be used is told of and makes the exit code 1.
    """
    bundle = find_bundle(settings)
    done: list[_Extracted] = []
    with open_engine(
        bundle,
        engine=settings.engine,
        threads=settings.engine_threads,
        device=settings.engine_device,
    ) as engine:
        for first in range(0, len(images), _BATCH):
            pairs = _decoded(images[first : first + _BATCH], bundle, settings, console)
            for one in _embedded(pairs, engine):
                done.append(one)
                code = one.bits(bundle.bits) if bits else one.code.tobytes().hex()
                record = {"path": one.path, "id": one.id, "code": code}
                console.result(record, f"{code}  {shown(one.path)}")
    if output is not None:
        _write(output, done, bundle)
    leave(Exit.DONE if len(done) == len(images) else Exit.FAILED)


@dataclass(frozen=True)
class _Extracted:
    path: Path
    id: str
    code: NDArray[np.uint8]
    feature: NDArray[np.float32]

    def bits(self, count: int) -> str:
        return "".join(map(str, np.unpackbits(self.code, count=count)))


def _decoded(
    paths: Sequence[Path], bundle: Bundle, settings: Settings, console: Console
) -> list[tuple[Path, Decoded]]:
    """Return the images that can be used, and tell of the others."""
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    done = []
    for path in paths:
        try:
            data = read_file(path, max_bytes=limits.max_bytes, label=str(path))
            done.append((path, _decode(data, path, bundle, limits)))
        except WorkerError as error:
            problem = Problem.of(error)
            console.result({"path": path, "error": problem.to_dict()}, f"refused  {told(problem)}")
    return done


def _embedded(pairs: Sequence[tuple[Path, Decoded]], engine: Engine) -> list[_Extracted]:
    if not pairs:
        return []
    embedding = engine.embed(np.stack([decoded.pixels for _, decoded in pairs]))
    return [
        _Extracted(path, decoded.id, code, feature)
        for (path, decoded), code, feature in zip(
            pairs, embedding.codes, embedding.features, strict=True
        )
    ]


def _decode(data: bytes, path: Path, bundle: Bundle, limits: Limits) -> Decoded:
    return decode(data, label=str(path), preprocess=bundle.preprocess, limits=limits)[0]


def _write(output: Path, done: Sequence[_Extracted], bundle: Bundle) -> None:
    if not done:
        return
    try:
        with output.open("wb") as file:
            np.savez(
                file,
                bundle=np.array(bundle.id),
                paths=np.array([str(one.path) for one in done]),
                ids=np.array([one.id for one in done]),
                features=np.stack([one.feature for one in done]),
                codes=np.stack([one.code for one in done]),
            )
    except OSError as error:
        raise Failed(
            f"{output} cannot be written: {error.strerror}.",
            remedy="Choose another --output.",
            code="cannot_write",
        ) from error


def _described(bundle: Bundle) -> dict[str, Any]:
    engines = [one for one in ENGINES if one != "caffe" or bundle.caffe is not None]
    return {
        "id": bundle.id,
        "path": str(bundle.path),
        "licence": bundle.licence,
        "bits": bundle.bits,
        "dims": bundle.dims,
        "metric": bundle.metric,
        "input_px": bundle.preprocess.input_px,
        "code_threshold": bundle.code_threshold,
        "centres": 0 if bundle.centres is None else len(bundle.centres),
        "code_weight": bundle.code_weight,
        "source": bundle.source,
        "engines": " ".join(engines),
        "sha256": bundle.sha256,
    }
