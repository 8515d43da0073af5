"""Running the programs that a build is made of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops.errors import OpsError

_SHOWN_LINES = 20


class BuildError(OpsError):
    """Caffe could not be built or installed; the message ends with the remedy."""


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    doing: str,
    remedy: str,
    environ: Mapping[str, str] = os.environ,
    heard: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run a program to its end, its output in a log.

    Args:
        command: Program and arguments.
        log: File that the output is added to.
        doing: What the program does, for the error.
        remedy: What to do when it fails, for the error.
        environ: The program's environment.
        heard: Called with each line of the output.

    Raises:
        BuildError: The program is missing or failed.
    """
    with log.open("a", encoding="utf-8", buffering=1) as copy:
        try:
            process = subprocess.Popen(  # noqa: S603 - a list, and no shell
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(environ),
            )
        except OSError as error:
            raise BuildError(
                f"{doing}: {command[0]} cannot be run: {error.strerror}; {remedy}"
            ) from error
        with process:
            for line in process.stdout or ():
                copy.write(line)
                heard(line)
    if process.returncode:
        raise BuildError(f"{doing} failed; the end of {log}:\n\n{_end(log)}\n\n{remedy}")


def _end(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_SHOWN_LINES:])
