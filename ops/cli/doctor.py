"""``lookalike doctor``: is everything here that is needed, and does it work."""

from __future__ import annotations

import click

from ops.cli.console import Console, leave, shown
from ops.cli.exits import Exit
from ops.cli.options import COLLECTION, Command, settings_options
from ops.doctor import Finding, State, examine
from workers.settings import Settings

_COLOURS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command(cls=Command)
@settings_options(*COLLECTION)
@click.pass_obj
def doctor(console: Console, settings: Settings) -> None:
    """Check the machine and the settings, a line for each thing; 1 if anything fails.

    No image is stored and no job is made. The data directory is made if it is not there, and the
    model bundle is made ready.
    """
    findings = []
    for finding in examine(settings):
        console.result(finding, _line(finding))
        findings.append(finding)
    failed = any(finding.state is State.FAIL for finding in findings)
    leave(Exit.FAILED if failed else Exit.DONE)


def _line(finding: Finding) -> str:
    state = click.style(f"{finding.state:<4}", fg=_COLOURS[finding.state])
    return f"{state}  {finding.name:<12} {shown(f'{finding.message}  {finding.remedy}')}".rstrip()
