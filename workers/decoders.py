"""Child processes that decode images and can be killed: a hostile file costs only itself.

A child that hangs is killed after the time limit, one that crashes or eats memory is replaced, and
in either case the caller gets a :class:`Failure` for that one file.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

from pebble import ProcessExpired, ProcessPool
from PIL import Image

from models.preprocess import Preprocess
from workers.decode import Decoded, Limits, decode, read_file
from workers.errors import Failed, Rejected, Unavailable, WorkerError
from workers.files import Files, writing
from workers.records import Failure
from workers.settings import Settings

logger = logging.getLogger(__name__)

# Files in one message to a child: fewer messages, and a shorter list to redo when a child dies.
_SLICE = 8
_LOOK_S = 0.5  # between looks whether the pool is still there


@dataclass(frozen=True)
class ToDecode:
    """A file to decode.

    Attributes:
        label: What to call it in an error.
        ticket: The search whose query it is; without one its thumbnail is the collection's.
    """

    path: Path
    label: str
    ticket: str | None = None


@dataclass(frozen=True)
class _Kit:
    """What every child gets once."""

    preprocess: Preprocess
    limits: Limits
    files: Files
    memory_bytes: int
    niceness: int


# Waits for a slice and returns what became of it.
_Answer = Callable[[], list[Decoded | Failure]]


class Decoders:
    """A pool of decoding children, started on first use.

    Args:
        processes: Number of children.
        niceness: Added to the children's; bulk work makes way for searches.
    """

    def __init__(
        self,
        settings: Settings,
        preprocess: Preprocess,
        files: Files,
        *,
        processes: int,
        niceness: int = 0,
    ) -> None:
        limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        kit = _Kit(preprocess, limits, files, settings.decode_memory_bytes, niceness)
        self._timeout_s = settings.decode_timeout_s
        self._processes = processes
        self._kit = kit
        self._lock = threading.Lock()
        self._closed = False
        self._pool = self._new_pool()

    def start(self) -> None:
        """Start the children now rather than with the first file, and wait for one of them."""
        self._schedule([])()

    def decode(self, files: Sequence[ToDecode]) -> list[Decoded | Failure]:
        """Decode files and write their thumbnails.

        Returns:
            One entry per file, in their order.

        Raises:
            Unavailable: A thumbnail cannot be written, or the decoders are closed.
        """
        return [entry for part in self.decode_in_parts(files) for entry in part]

    def decode_in_parts(self, files: Sequence[ToDecode]) -> Iterator[list[Decoded | Failure]]:
        """Decode files; whatever the caller does with one part, the next ones are decoded.

        Yields:
            A few entries at a time, one per file, in their order.

        Raises:
            Unavailable: As from ``decode``.
        """
        slices = [files[first : first + _SLICE] for first in range(0, len(files), _SLICE)]
        answers = [self._schedule(part) for part in slices]
        for part, answer in zip(slices, answers, strict=True):
            yield self._collect(part, answer)

    def close(self) -> None:
        """End the children; what they are at is lost. May be called again."""
        with self._lock:
            self._closed = True
            self._end_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            initializer=_start_child,
            initargs=(self._kit,),
            # A fork would copy the parent's threads' locks, the network's among them.
            context=multiprocessing.get_context("spawn"),
        )

    def _end_pool(self) -> None:
        self._pool.stop()
        self._pool.join()

    def _schedule(self, part: Sequence[ToDecode]) -> _Answer:
        # A whole slice has the time of one file: slices are done in a moment, and one that is
        # not is redone file by file.
        with self._lock:
            if self._closed:
                raise Unavailable("The decoders are closed.", code="closed")
            try:
                future = self._submit(part)
            except RuntimeError:
                logger.warning("A decoder died while it had nothing to do; all are replaced.")
                self._end_pool()
                self._pool = self._new_pool()
                future = self._submit(part)
            return partial(_wait, self._pool, future)

    def _submit(self, part: Sequence[ToDecode]) -> Future[list[Decoded | Failure]]:
        return self._pool.schedule(_decode_all, args=(part,), timeout=self._timeout_s)

    def _collect(self, part: Sequence[ToDecode], answer: _Answer) -> list[Decoded | Failure]:
        try:
            return self._result(part, answer)
        except (TimeoutError, ProcessExpired, BrokenProcessPool) as error:
            if len(part) == 1:
                return [Failure.of(self._lost(part[0], error))]
        # One of them took the child down; only by itself can it be told which.
        alone = [self._schedule([file]) for file in part]
        return [self._collect([file], one)[0] for file, one in zip(part, alone, strict=True)]

    def _result(self, part: Sequence[ToDecode], answer: _Answer) -> list[Decoded | Failure]:
        try:
            return answer()
        except BrokenProcessPool:
            # A child died that was not at work. The pool is broken by it and no file is at fault.
            return self._schedule(part)()

    def _lost(self, file: ToDecode, error: Exception) -> WorkerError:
        if isinstance(error, TimeoutError):
            return Rejected(
                f"{file.label} took more than {self._timeout_s:g} s to decode.",
                remedy="Save it in another format, or raise LOOKALIKE_DECODE_TIMEOUT_S.",
                code="decode_timeout",
            )
        return Failed(
            f"{file.label} took its decoder down.",
            remedy="Save it in another format; if it opens elsewhere, please report it.",
            code="decoder_died",
        )


def _wait(pool: ProcessPool, future: Future[list[Decoded | Failure]]) -> list[Decoded | Failure]:
    """Wait for a slice; a pool that is ended or broken forgets what it had not begun."""
    while pool.active or future.done():
        if wait([future], _LOOK_S).done:
            return future.result()
    raise BrokenProcessPool("The pool was ended.")


_kit: _Kit | None = None


def _start_child(kit: _Kit) -> None:
    global _kit
    _kit = kit
    os.nice(kit.niceness)
    resource.setrlimit(resource.RLIMIT_AS, (kit.memory_bytes, kit.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Our own limit is the one that counts, see workers.decode.
    Image.MAX_IMAGE_PIXELS = kit.limits.max_pixels
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no orphan behind when the worker is killed without a chance to clean up."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode_all(files: Sequence[ToDecode]) -> list[Decoded | Failure]:
    if _kit is None:
        raise RuntimeError("this runs in a decoding child only")
    return [_decode_one(file, _kit) for file in files]


def _decode_one(file: ToDecode, kit: _Kit) -> Decoded | Failure:
    try:
        data = read_file(file.path, max_bytes=kit.limits.max_bytes, label=file.label)
        decoded, thumbnail = decode(
            data, label=file.label, preprocess=kit.preprocess, limits=kit.limits
        )
        target = kit.files.query_thumbnail(file.ticket) if file.ticket else None
        with writing(target or kit.files.thumbnail(decoded.id)) as out:
            out.write(thumbnail)
    except Unavailable:
        raise  # a full disk is no fault of the file
    except WorkerError as error:
        return Failure.of(error)
    except Exception as error:
        logger.exception("%s could not be decoded; the rest of its batch goes on.", file.label)
        return Failure.of(
            Failed(f"{file.label} could not be decoded: {error!r}.", code="internal")
        )
    return decoded
