"""The work folder of a training run: beside its bundle, kept until the bundle is whole."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from models.errors import Diverged, TrainingBlocked, TrainingError

CHECKPOINT = "checkpoint.pt"
"""Name of the file, in a folder of the work folder, that a run can go on from."""

_RUN = "run.json"


class Work:
    """A folder `OUT.unfinished`; a context manager that lets one process in.

    A run that was killed is taken up again by the next one of the same settings. `publish` puts
    the bundle in its place and deletes the folder; so does an error that came before the first
    checkpoint, or that would come again.

    Attributes:
        path: The folder.
        resumed: Whether an earlier run was here.
    """

    def __init__(self, out: Path, *, run: dict[str, Any]) -> None:
        """Prepare a run.

        Args:
            out: Where the bundle is to be; nothing may be there yet.
            run: What fixes the run, as JSON has it.

        Raises:
            TrainingBlocked: There is something at `out`.
        """
        if out.exists():
            raise TrainingBlocked(f"{out} exists; delete it, or choose another --out")
        self.path = out.with_name(f"{out.name}.unfinished")
        self.resumed = False
        self._out, self._run = out, run
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.path / "lock", timeout=0))
                self._claim()
            except Timeout as error:
                raise TrainingBlocked(
                    f"another process is at work in {self.path}; wait for it, or choose another "
                    "--out"
                ) from error
            except OSError as error:
                raise TrainingError(
                    f"cannot write {self.path}: {error.strerror}; choose another --out"
                ) from error
            self._stack = stack.pop_all()
        return self

    def _claim(self) -> None:
        file = self.path / _RUN
        wanted = json.loads(json.dumps(self._run))
        found = json.loads(file.read_text(encoding="utf-8")) if self._begun else wanted
        if found != wanted:
            others = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            raise TrainingBlocked(
                f"{self.path} is of an unfinished run with another {', '.join(others)}; start "
                "that one again to finish it, or delete the folder"
            )
        self.resumed = self._begun
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps(wanted, indent=2), encoding="utf-8")
        scratch.replace(file)

    @property
    def _begun(self) -> bool:
        """Whether there is anything that took time to make."""
        return any(self.path.glob(f"*/{CHECKPOINT}")) and (self.path / _RUN).exists()

    def publish(self, bundle: Path) -> None:
        """Move the finished bundle from the work folder to its place.

        Raises:
            TrainingError: There is something at its place by now, or it cannot be written.
        """
        try:
            bundle.rename(self._out)
        except OSError as error:
            raise TrainingError(
                f"cannot move {bundle} to {self._out}: {error.strerror}; make room there and "
                "start the same command again"
            ) from error
        shutil.rmtree(self.path, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and (not self._begun or isinstance(error, Diverged)):
            shutil.rmtree(self.path, ignore_errors=True)
        self._stack.close()
