"""Features on disk: written as they come, whole under their name, continued after a kill."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from models.labelled.columns import Column
from models.labelled.errors import CacheError

_FEATURES, _LATENT, _SKIPPED, _STATE = "features.npy", "latent.npy", "skipped.json", "state.json"
# How many images a killed extraction has to look at again, at most.
_PART = 2048


@dataclass(frozen=True)
class Kept:
    """Features of the images that could be read, in the order of the corpus.

    Attributes:
        features: shape=(N, D), dtype=float32, mapped from disk.
        latent: shape=(N, B), dtype=float32, mapped from disk.
        skipped: Place in the corpus of each image that could not be read -> the reason.
    """

    features: NDArray[np.float32]
    latent: NDArray[np.float32]
    skipped: dict[int, str]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what a `Writer` finished.

        Raises:
            CacheError: A file is missing or damaged.
        """
        try:
            # Copy-on-write: whoever changes an array changes their own memory, not the file.
            features, latent = (np.load(folder / name, "c") for name in (_FEATURES, _LATENT))
            skipped = json.loads((folder / _SKIPPED).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CacheError(f"{folder} is damaged: {error}; delete it") from error
        return cls(np.asarray(features), np.asarray(latent), dict(skipped))

    def in_memory(self) -> Self:
        """Return a copy that does without the files."""
        return replace(self, features=self.features.copy(), latent=self.latent.copy())


@dataclass
class _State:
    """How far an extraction is: images looked at, rows written, images skipped."""

    seen: int = 0
    rows: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)


class Writer:
    """Writes the features of a corpus; a context manager.

    Leaving it without an error puts everything in its place at once. After `CacheError` nothing is
    left; after any other error, or a kill, the next writer of the same folder goes on at `begin`.

    Attributes:
        begin: How many images of the corpus need not be looked at again.
    """

    def __init__(self, target: Path, *, count: int, dims: int, bits: int) -> None:
        self.begin = 0
        self._target, self._count, self._widths = target, count, (dims, bits)
        self._part = target.with_name(f"{target.name}.part")
        self._columns: list[Column] = []
        self._state, self._saved = _State(), 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with _disk(self._target), ExitStack() as stack:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            # Another process may be at the same images: what it finishes is used.
            stack.enter_context(FileLock(self._target.with_name(f".{self._target.name}.lock")))
            if self._target.exists():
                self.begin = self._count
            else:
                self._resume(stack)
            self._open = stack.pop_all()
        return self

    def _resume(self, stack: ExitStack) -> None:
        self._part.mkdir(exist_ok=True)
        for name, width in zip((_FEATURES, _LATENT), self._widths, strict=True):
            column = Column(self._part / name, width)
            stack.callback(column.close)
            self._columns.append(column)
        self._state = _read_state(self._part / _STATE)
        if any(column.rows < self._state.rows for column in self._columns):
            # Files that a power cut made shorter than was noted down.
            self._state = _State()
        for column in self._columns:
            column.cut(self._state.rows)
        self.begin = self._saved = self._state.seen
        self._check_space()

    def _check_space(self) -> None:
        needed_bytes = (self._count - self.begin) * sum(self._widths) * 4
        free_bytes = shutil.disk_usage(self._part).free
        if free_bytes < needed_bytes:
            shutil.rmtree(self._part)
            raise CacheError(
                f"{self._target.parent} has {free_bytes >> 20:,} MB free and the features of "
                f"{self._count - self.begin:,} images need {needed_bytes >> 20:,} MB; free some "
                "space or choose another cache folder"
            )

    def add(
        self,
        count: int,
        features: NDArray[np.float32],
        latent: NDArray[np.float32],
        skipped: dict[int, str],
    ) -> None:
        """Add what came of the next images of the corpus.

        Args:
            count: How many images they were.
            features: shape=(R, D), dtype=float32; of those that could be read.
            latent: shape=(R, B), dtype=float32; likewise.
            skipped: Place in the corpus -> reason, of the others.

        Raises:
            CacheError: They cannot be written.
        """
        with self._or_nothing():
            for column, rows in zip(self._columns, (features, latent), strict=True):
                column.add(self._state.rows, rows)
            self._state.seen += count
            self._state.rows += len(features)
            self._state.skipped += skipped.items()
            if self._state.seen - self._saved >= _PART:
                self._save()

    def _save(self) -> None:
        scratch = self._part / f"{_STATE}.new"
        scratch.write_text(json.dumps(vars(self._state)), encoding="utf-8")
        scratch.replace(self._part / _STATE)
        self._saved = self._state.seen

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if not self._columns or isinstance(error, CacheError):
                return
            with self._or_nothing():
                self._save()
                if error is None:
                    self._finish()

    def _finish(self) -> None:
        for column in self._columns:
            column.finish(self._state.rows)
        (self._part / _SKIPPED).write_text(json.dumps(self._state.skipped), encoding="utf-8")
        (self._part / _STATE).unlink()
        self._part.rename(self._target)

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Give the space of a full disk back."""
        try:
            with _disk(self._target):
                yield
        except CacheError:
            shutil.rmtree(self._part, ignore_errors=True)
            raise


def _read_state(path: Path) -> _State:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _State()
    return _State(**fields)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot keep features in {path.parent}: {error.strerror or error}; free some space "
            "or choose another cache folder"
        ) from error
