"""How a command ends: one table for the code, the help and the documentation."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Exit(IntEnum):
    """Exit codes, each with its meaning."""

    meaning: str

    DONE = 0, "Done."
    FAILED = 1, "What was asked for failed, or was refused in part; a check found a problem."
    USAGE = 2, "The command line or a setting cannot be used."
    UNAVAILABLE = 3, "Something needed is missing or taken: broker, ledger, bundle, store, port."
    NOT_FOUND = 4, "There is no such file, image, job or collection."
    DEFECT = 70, "A defect in lookalike; --debug shows where."
    INTERRUPTED = 130, "Interrupted with Ctrl-C or SIGTERM."

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make an exit code that knows its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member
