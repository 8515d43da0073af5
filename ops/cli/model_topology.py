"""``lookalike model topology``: networks with a code layer, to be trained with stock Caffe."""

from __future__ import annotations

from pathlib import Path

import click

from models.caffe import topologies
from ops.cli.console import Console
from ops.cli.options import Command
from ops.errors import OpsError


@click.command("topology", cls=Command)
@click.argument("network", type=click.Choice(list(topologies.TOPOLOGIES)))
@click.option(
    "--bits",
    type=click.IntRange(topologies.MIN_BITS, topologies.MAX_BITS),
    default=48,
    show_default=True,
    help="Bits of the code.",
)
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="Class labels that the code is learned from.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory for deploy.prototxt, train_val.prototxt and solver.prototxt.",
)
@click.pass_obj
def topology(console: Console, network: str, bits: int, classes: int, out: Path) -> None:
    """Write CaffeNet or AlexNet with a latent layer, and the paper's training recipe."""
    files = {
        "deploy.prototxt": topologies.deploy(network, bits=bits),
        "train_val.prototxt": topologies.train_val(network, bits=bits, classes=classes),
        "solver.prototxt": topologies.solver(network, bits=bits),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpsError(
            f"{out} cannot be written: {error.strerror}; choose another --out"
        ) from error
    for name in files:
        console.result({"path": out / name}, str(out / name))
