"""What the errors of all rooms are to the command line: an exit code and a line for people."""

from __future__ import annotations

import re

import click

from models.errors import ModelError, OptionError, TrainingBlocked, TrainingError
from models.labelled.errors import CorpusError, MissingCorpus
from ops.cli.exits import Exit
from ops.errors import OpsError
from store.errors import StoreError
from workers.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    SettingsError,
    Unavailable,
    WorkerError,
    sentence,
    what_and_remedy,
)
from workers.records import Problem

# A problem that comes back from a worker has only its code left, so that decides before the class.
_EXIT_OF_CODE = {
    "bad_url": Exit.USAGE,
    "broker_down": Exit.UNAVAILABLE,
    "bundle": Exit.UNAVAILABLE,
    "network": Exit.UNAVAILABLE,
    "no_answer": Exit.UNAVAILABLE,
    "no_worker": Exit.UNAVAILABLE,
    "store": Exit.UNAVAILABLE,
}

# Read from the top: the first class that fits decides.
_EXIT_OF: tuple[tuple[type[Exception], Exit], ...] = (
    (SettingsError, Exit.USAGE),
    (InvalidRequest, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (Unavailable, Exit.UNAVAILABLE),
    (Conflict, Exit.UNAVAILABLE),
    (WorkerError, Exit.FAILED),
    (StoreError, Exit.UNAVAILABLE),
    (MissingCorpus, Exit.NOT_FOUND),
    (CorpusError, Exit.FAILED),
    (OptionError, Exit.USAGE),
    (TrainingBlocked, Exit.UNAVAILABLE),
    (TrainingError, Exit.FAILED),
    (ModelError, Exit.UNAVAILABLE),
    (OpsError, Exit.UNAVAILABLE),
    (click.ClickException, Exit.USAGE),
    (click.Abort, Exit.INTERRUPTED),
)


def exit_of(error: Exception) -> Exit:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, WorkerError) and error.code in _EXIT_OF_CODE:
        return _EXIT_OF_CODE[error.code]
    return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.DEFECT)


def problem_of(error: Exception) -> Problem:
    """Return what people and programs are told about an error."""
    match error:
        case WorkerError():
            return Problem.of(error)
        case click.UsageError():
            help_of = f"{error.ctx.command_path} --help" if error.ctx else "lookalike --help"
            return Problem("usage", sentence(error.format_message()), f"Try `{help_of}`.")
        case click.ClickException():
            return Problem("usage", sentence(error.format_message()))
        case click.Abort():
            return Problem("interrupted", "Interrupted.")
        case OptionError():
            return Problem("usage", *what_and_remedy(error))
        case StoreError() | ModelError() | OpsError():
            return Problem(_snake(type(error).__name__), *what_and_remedy(error))
    return Problem(
        "defect",
        f"lookalike met a defect of its own: {type(error).__name__}: {error}",
        "Run it again with --debug and report what it shows.",
    )


def _snake(name: str) -> str:
    """Return `NotAStore` as `not_a_store`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
