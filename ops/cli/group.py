"""The top of the command line: commands loaded on demand, and one place where errors end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from ops.cli.console import Console
from ops.cli.exits import Exit

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class LazyCommand:
    """A command that is imported when it is asked for.

    Attributes:
        target: ``module:attribute``.
        summary: What the list of commands says.
    """

    name: str
    target: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class Cli(click.Group):
    """A group of lazily loaded commands; every error ends here in one line and an exit code."""

    def __init__(
        self, *args: Any, commands_by_name: Sequence[LazyCommand] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = {command.name: command for command in commands_by_name}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the help."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command by its name."""
        return self._lazy[cmd_name].load() if cmd_name in self._lazy else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without loading them, and the exit codes."""
        with formatter.section("Commands"):
            formatter.write_dl([(one.name, one.summary) for one in self._lazy.values()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in Exit])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *rest: Any,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit."""
        args = list(sys.argv[1:] if args is None else args)
        # Looked for here, because an error in the command line itself is to be told alike.
        flags = args[: args.index("--")] if "--" in args else args
        console = Console(json="--json" in flags, debug="--debug" in flags)
        _log_to_stderr(debug=console.debug)
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "lookalike", *rest, obj=console, **extra)
        except Exception as error:  # noqa: BLE001 - the edge of the process
            code = console.fail(error)
        sys.exit(code if isinstance(code, int) else 0)


def _log_to_stderr(*, debug: bool) -> None:
    level = logging.INFO if debug else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format=LOG_FORMAT, force=True)
    if not debug:
        # What it refuses is told as the outcome of the item.
        logging.getLogger("requests_hardened").setLevel(logging.ERROR)
