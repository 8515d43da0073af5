"""Errors that people meet: a stable code, a sentence that names the thing, and a remedy."""

from __future__ import annotations


class WorkerError(Exception):
    """Root of everything this package raises.

    Attributes:
        code: Stable snake_case word for programs.
        message: One sentence that names the thing that failed.
        remedy: What to do about it; may be empty where there is nothing to do.
    """

    code = "internal"

    def __init__(self, message: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy
        self.code = code or self.code


class SettingsError(WorkerError):
    """A setting has a value that cannot be used."""

    code = "bad_setting"


class InvalidRequest(WorkerError):
    """The caller asked for something that cannot be meant, such as ``k`` of 0."""

    code = "invalid_request"


class NotFound(WorkerError):
    """The id names nothing that is known here."""

    code = "not_found"


class Conflict(WorkerError):
    """The thing is in a state that does not allow this, or somebody else holds it."""

    code = "conflict"


class Unavailable(WorkerError):
    """A part that is needed, such as the broker, does not answer now; trying again is right."""

    code = "unavailable"


class Rejected(WorkerError):
    """The input itself is at fault; trying again gives the same answer."""

    code = "rejected"


class TooLarge(Rejected):
    """The input is over a limit of bytes or pixels."""

    code = "too_large"


class Failed(WorkerError):
    """The input could not be had or processed this time, through no fault of its own."""

    code = "failed"


def what_and_remedy(error: Exception) -> tuple[str, str]:
    """Split what an error of the store or of a network says, as sentences.

    They say what is wrong and, after the last semicolon, what to do about it; those that quote
    somebody else may leave that out.

    Returns:
        What is wrong, and the remedy, which may be empty. The first letter of all stays: it may
        be that of a path.
    """
    what, _, remedy = str(error).rpartition("; ")
    if not what:
        return sentence(remedy), ""
    return sentence(what), sentence(remedy[:1].upper() + remedy[1:])


def sentence(text: str) -> str:
    """End a message like a sentence."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
