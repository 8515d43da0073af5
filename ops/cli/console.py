"""What a command says: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import click

from ops.cli.exits import Exit
from workers.records import Problem


class Console:
    """The mouth of one command.

    Attributes:
        json: Whether standard output carries one JSON object per line and nothing else.
        debug: Whether errors come with their traceback.
    """

    def __init__(self, *, json: bool = False, debug: bool = False) -> None:
        self.json = json
        self.debug = debug

    @property
    def live(self) -> bool:
        """Whether a person watches, for whom things may move on the screen."""
        return sys.stderr.isatty()

    def result(self, record: object, text: str) -> None:
        """Print one result: the record as JSON, or the text for people."""
        click.echo(json.dumps(plain(record)) if self.json else text)

    def note(self, text: str) -> None:
        """Tell people something that is no result."""
        click.echo(text, err=True)

    def problem(self, problem: Problem) -> None:
        """Print an error with its remedy."""
        if self.json:
            click.echo(json.dumps({"error": problem.to_dict()}))
        self.note(f"{click.style('Error:', fg='red')} {told(problem)}")

    def fail(self, error: Exception) -> Exit:
        """Print an error of any kind and return the code to exit with."""
        # The stores and models behind these take time to import, and most commands end well.
        from ops.cli.problems import exit_of, problem_of

        if self.debug:
            traceback.print_exception(error, file=sys.stderr)
        self.problem(problem_of(error))
        return exit_of(error)

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Tell people what is being done, and how long it took."""
        begin = perf_counter()
        click.echo(f"{doing} … ", err=True, nl=False)
        try:
            yield
        except BaseException:
            click.echo("failed", err=True)
            raise
        click.echo(f"{perf_counter() - begin:.2f} s", err=True)


def told(problem: Problem) -> str:
    """Return a problem as one line that is safe to print."""
    return shown(f"{problem.message} {problem.remedy}".strip())


def shown(text: object) -> str:
    """Return a name or message from elsewhere as one line that is safe to print.

    What moves the cursor, breaks the line or turns the direction of writing is escaped, as are
    bytes of file names that are no text.
    """
    return "".join(map(_shown_char, str(text)))


def _shown_char(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


def leave(code: Exit) -> NoReturn:
    """End the command with an exit code."""
    raise click.exceptions.Exit(code)


def plain(value: Any) -> Any:
    """Return a record as what JSON has: mappings, lists, numbers and strings."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
