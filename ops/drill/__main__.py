"""`make drill`: the command."""

from __future__ import annotations

import sys
from pathlib import Path
from random import SystemRandom

import click

from ops.drill.child import Violation
from ops.drill.run import NAMES, drill_all
from ops.drill.stores import Tally


@click.command()
@click.option(
    "--rounds", type=click.IntRange(min=1), default=1_000, show_default=True, help="Of each drill."
)
@click.option(
    "--minutes",
    type=float,
    default=60,
    show_default=True,
    help="Then it ends, however many rounds are left.",
)
@click.option(
    "--only",
    "names",
    multiple=True,
    type=click.Choice(NAMES),
    help="Drill; may be repeated. All by default.",
)
@click.option(
    "--seed", type=int, help="What is drawn is drawn from here; another one each time by default."
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where stores are made; by default in memory.",
)
def main(
    names: tuple[str, ...], rounds: int, minutes: float, seed: int | None, folder: Path | None
) -> None:
    """Kill stores at work, over and over, and compare what is left with what was committed.

    Ends with 1 at the first store that is not what it must be; it is kept.
    """
    seed = SystemRandom().randrange(10**6) if seed is None else seed
    try:
        tallies = drill_all(
            names or NAMES, rounds=rounds, minutes=minutes, seed=seed, folder=folder
        )
    except Violation as violation:
        click.echo(f"Error: {violation}", err=True)
        sys.exit(1)
    for name, tally in tallies:
        click.echo(_line(name, tally))
    click.echo(f"No violation; seed {seed}")


def _line(name: str, tally: Tally) -> str:
    if name == "damage":
        kinds = f"{tally.open:>6,} named, {tally.happened:,} where nothing is in use"
    else:
        kinds = (
            f"{tally.killed:>6,} killed at work, {tally.open:>5,} of them inside a change "
            f"({tally.happened:,} had happened), {tally.changes:,} changes done"
        )
    return f"{name:<8} {tally.rounds:>6,} rounds {tally.seconds:>7.1f} s {kinds}"


if __name__ == "__main__":
    main()
