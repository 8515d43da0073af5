"""``lookalike model topology``: networks with a code layer, to be trained with stock Caffe."""

from __future__ import annotations

from pathlib import Path

import click

from models.caffe import topologies
from models.errors import BundleError
from models.whole import whole_directory
from ops.cli.console import Console
from ops.cli.options import Command


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
    help="Directory to make, of deploy.prototxt, train_val.prototxt and solver.prototxt.",
)
@click.pass_obj
def topology(console: Console, network: str, bits: int, classes: int, out: Path) -> None:
    """Write CaffeNet or AlexNet with a latent layer, and the paper's training recipe."""
    files = {
        "deploy.prototxt": topologies.deploy(network, bits=bits),
        "train_val.prototxt": topologies.train_val(network, bits=bits, classes=classes),
        "solver.prototxt": topologies.solver(network, bits=bits),
    }
    if out.exists():
        raise BundleError(f"{out} is there already; delete it, or choose another --out")
    with whole_directory(out, remedy="choose another --out") as made:
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8")
    for name in files:
        console.result({"path": out / name}, str(out / name))
