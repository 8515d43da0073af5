"""Where a training run stands, kept on disk so that it can go on after `kill -9`."""

from __future__ import annotations

import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from models.errors import TrainingError
from models.training.work import CHECKPOINT


class Checkpoint:
    """The latest state of one run in its work folder."""

    def __init__(self, work: Path, *, settings: dict[str, Any], every_s: float) -> None:
        """Look after a work folder.

        Args:
            work: The folder, made if it does not exist.
            settings: What fixes the run; a state of other settings is refused.
            every_s: Least time between two calls of `due` that say yes.
        """
        self._path, self._settings, self._every_s = work / CHECKPOINT, settings, every_s
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Tell whether so much time has passed that the state should be saved."""
        return time.monotonic() - self._saved_at >= self._every_s

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state; a crash leaves the old one or the new one.

        Raises:
            TrainingError: It cannot be written, for example because the disk is full.
        """
        buffer = io.BytesIO()
        torch.save({"settings": self._settings, "state": state}, buffer)
        partial = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise TrainingError(
                f"cannot write {self._path}: {error.strerror}; free some space and start the "
                "same command again, it goes on where it was saved last"
            ) from error
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none.

        Raises:
            TrainingError: The file is damaged, or of a run with other settings.
        """
        if not self._path.exists():
            return None
        try:
            found = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{self._path} cannot be read: {error}; delete it and training starts anew"
            ) from error
        if found["settings"] != self._settings:
            raise TrainingError(
                f"{self._path} belongs to a run with other settings or images; delete "
                f"{self._path.parent} to start anew, or choose another --out"
            )
        state: dict[str, Any] = found["state"]
        return state
