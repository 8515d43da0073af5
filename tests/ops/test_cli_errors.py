"""Each kind of error has its exit code, one line for people and an object for programs."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from models.errors import BundleError, OptionError
from ops.cli.exits import Exit
from ops.cli.group import Cli, LazyCommand
from ops.cli.options import Command
from ops.errors import ServiceFailedError
from store.errors import NotAStore, StoreMismatch
from tests.ops.conftest import kept_logging, objects
from workers.errors import (
    Conflict,
    Failed,
    InvalidRequest,
    NotFound,
    Rejected,
    SettingsError,
    Unavailable,
)

UNAVAILABLE_CODES = ("bundle", "store", "network", "no_answer", "broker_down", "no_worker")

raised: list[BaseException] = []


@click.command(cls=Command)
def failing() -> None:
    raise raised[-1]


def fail(error: BaseException, *options: str) -> Result:
    """Run a command that meets an error."""
    raised.append(error)
    command = LazyCommand("failing", "tests.ops.test_cli_errors:failing", "Fails.")
    # pytest knows this module by another name, so its command is handed over directly.
    object.__setattr__(command, "load", lambda: failing)
    with kept_logging():
        return CliRunner().invoke(Cli(commands_by_name=[command]), ["failing", *options])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("No."), Exit.USAGE),
        (InvalidRequest("No."), Exit.USAGE),
        (click.BadParameter("No."), Exit.USAGE),
        (NotFound("No."), Exit.NOT_FOUND),
        (Unavailable("No."), Exit.UNAVAILABLE),
        (Conflict("No."), Exit.UNAVAILABLE),
        (StoreMismatch("no"), Exit.UNAVAILABLE),
        (BundleError("no"), Exit.UNAVAILABLE),
        (OptionError("no"), Exit.USAGE),
        (ServiceFailedError("no"), Exit.UNAVAILABLE),
        (Rejected("No."), Exit.FAILED),
        (Failed("No."), Exit.FAILED),
        *((Rejected("No.", code=code), Exit.UNAVAILABLE) for code in UNAVAILABLE_CODES),
        (Rejected("No.", code="bad_url"), Exit.USAGE),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (ZeroDivisionError("no"), Exit.DEFECT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_has_its_exit_code(error: BaseException, code: Exit) -> None:
    result = fail(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_an_error_is_told_with_its_remedy() -> None:
    error = NotFound("There is no cake.", remedy="Bake one.", code="no_cake")
    assert fail(error).stderr == "Error: There is no cake. Bake one.\n"
    (told,) = objects(fail(error, "--json"))
    assert told == {
        "error": {"code": "no_cake", "message": "There is no cake.", "remedy": "Bake one."}
    }


def test_errors_of_other_rooms_become_sentences_with_a_code() -> None:
    (told,) = objects(fail(StoreMismatch("the store is old: ingest again"), "--json"))
    assert told["error"]["code"] == "store_mismatch"
    assert told["error"]["message"] == "the store is old: ingest again."


def test_a_remedy_after_a_semicolon_is_told_apart() -> None:
    error = NotAStore("/data (old; empty) holds no store; take another path")
    assert fail(error).stderr == "Error: /data (old; empty) holds no store. Take another path.\n"
    (told,) = objects(fail(error, "--json"))
    assert told["error"] == {
        "code": "not_a_store",
        "message": "/data (old; empty) holds no store.",
        "remedy": "Take another path.",
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BundleError("net/Deploy.prototxt has no layer"), "net/Deploy.prototxt has no layer."),
        (BundleError("did you mean 'fc7' or 'fc6'?"), "did you mean 'fc7' or 'fc6'?"),
        (OptionError("c holds the parts"), "c holds the parts."),
        (click.ClickException("give a or b"), "give a or b."),
    ],
)
def test_a_message_keeps_its_words_and_ends_once(error: Exception, told: str) -> None:
    result = fail(error, "--json")
    assert objects(result)[0]["error"]["message"] == told
    assert result.stderr == f"Error: {told}\n"


def test_a_usage_error_ends_before_its_remedy() -> None:
    error = click.UsageError("give --prototxt with --weights, or --onnx")
    assert "or --onnx. Try `" in fail(error).stderr


def test_debug_shows_where_an_error_comes_from() -> None:
    result = fail(ZeroDivisionError("no"), "--debug")
    assert result.exit_code == Exit.DEFECT
    assert "Traceback" in result.stderr
    assert "raise raised[-1]" in result.stderr
    assert result.stdout == ""


def test_what_comes_after_two_dashes_is_no_option() -> None:
    result = fail(NotFound("No."), "--", "--json")
    assert result.stdout == ""
