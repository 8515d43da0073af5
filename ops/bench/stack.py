"""A collection with its broker, workers and site, for the time of a benchmark.

Everything runs as users run it, in processes of its own on free ports, below a folder that is
deleted afterwards. Whatever ends the benchmark ends them too.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from ops.errors import OpsError
from ops.services import LOOPBACK, Daemon, rabbitmq_server
from workers.lanes import Lane
from workers.settings import EMBEDDED_BROKER

CHILD = (sys.executable, "-m", "ops.bench.child")
_CLI = (sys.executable, "-m", "ops.cli")


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is deleted afterwards, also when the benchmark is told to end."""
    with (
        _ends_in_order(),
        tempfile.TemporaryDirectory(prefix="lookalike-bench-", ignore_cleanup_errors=True) as name,
    ):
        yield Path(name)


@contextmanager
def broker(folder: Path, *, kind: str) -> Iterator[str]:
    """Run a broker and give its URL.

    Args:
        folder: Where it keeps its data.
        kind: ``rabbitmq`` or ``embedded``, which needs none.
    """
    if kind == "embedded":
        yield EMBEDDED_BROKER
        return
    with rabbitmq_server(folder) as server:
        yield server.url


def environment(folder: Path, broker_url: str, *, roots: Sequence[Path] = ()) -> dict[str, str]:
    """Return what a process needs to know to work on the benchmark's own collection.

    The bundle and the numbers of threads stay as the user has them.

    Args:
        folder: Data directory.
        broker_url: As the broker tells it.
        roots: Folders that the site may be asked to ingest.
    """
    own = {
        "LOOKALIKE_DATA_DIR": str(folder),
        "LOOKALIKE_BROKER_URL": broker_url,
        "LOOKALIKE_LEDGER_URL": "",
        "LOOKALIKE_HOST": LOOPBACK,
        "LOOKALIKE_PORT": "0",
        "LOOKALIKE_FOLDER_ROOTS": os.pathsep.join(map(str, roots)),
    }
    return {**os.environ, **own}


@contextmanager
def noting_workers(
    lanes: Sequence[Lane], *, environ: Mapping[str, str], logs: Path
) -> Iterator[list[Daemon]]:
    """Run the workers of lanes, which note the stages of every batch in a file of the logs."""
    program, stages = [*CHILD, "worker"], str(stages_file(logs))
    places = [(lane.name, str(number)) for lane in lanes for number in range(1, lane.workers + 1)]
    with ExitStack() as stack:
        yield [
            _start(stack, [*program, *place, stages], environ, logs / f"{'-'.join(place)}.log")
            for place in places
        ]


@contextmanager
def all_workers(*, environ: Mapping[str, str], logs: Path) -> Iterator[Daemon]:
    """Run `lookalike worker`."""
    with ExitStack() as stack:
        yield _start(stack, [*_CLI, "worker"], environ, logs / "worker.log")


@contextmanager
def site(*, environ: Mapping[str, str], logs: Path) -> Iterator[str]:
    """Run `lookalike serve` and give its address once it listens."""
    log = logs / "site.log"
    with ExitStack() as stack:
        process = _start(stack, [*_CLI, "serve", "--json"], environ, log)
        process.wait_ready(lambda: _address(log) is not None)
        yield _address(log) or ""


def _address(log: Path) -> str | None:
    found = re.search(r'"url": "http://([^/"]+)/"', log.read_text())
    return found and found[1]


def stages_file(logs: Path) -> Path:
    """Return where the workers note the times of the stages of every batch."""
    return logs / "stages.jsonl"


def insist_alive(processes: Sequence[Daemon], logs: Path) -> None:
    """Raise if a process has ended.

    Raises:
        OpsError: One has; the message has its last words.
    """
    if any(process.pid is None for process in processes):
        raise unfinished("A process of the benchmark has ended early", logs)


def _log_tails(logs: Path) -> str:
    """Return the last words of the processes that had any."""
    said = {path.name: path.read_text(errors="replace").strip() for path in logs.glob("*.log")}
    return "\n".join(f"{name}: {text[-1000:]}" for name, text in sorted(said.items()) if text)


def unfinished(what: str, logs: Path) -> OpsError:
    """Return the error for work that did not come to its end, with what the processes said."""
    return OpsError(f"{what}. The processes said:\n{_log_tails(logs) or 'nothing'}")


def _start(
    stack: ExitStack, command: Sequence[str], environ: Mapping[str, str], log: Path
) -> Daemon:
    child = Daemon(command, log=log, stop_signal=signal.SIGTERM, env=environ)
    child.start()
    stack.callback(child.stop)
    return child


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Make SIGTERM unwind the stack, as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
