"""``lookalike worker``: the processes that do the work when RabbitMQ is the broker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping

import click

from ops.cli.console import Console
from ops.cli.exits import Exit
from ops.cli.options import COLLECTION, Command, environment_of, settings_options
from ops.cli.session import ready_bundle
from ops.cli.site import STOP_SIGNALS, calling
from ops.lock import make_data_dir
from ops.reachability import broker_problem
from ops.supervisor import Event, Supervisor
from workers.errors import InvalidRequest
from workers.lanes import LANES, lane_of
from workers.process import run_worker
from workers.settings import Settings


def _lane_counts(function: click.decorators.FC) -> click.decorators.FC:
    """Give a command an option for the number of workers in each lane."""
    for lane in reversed(LANES):
        function = click.option(
            f"--{lane.name}",
            type=click.IntRange(min=0),
            default=lane.workers,
            show_default=True,
            help=f"Processes for {' and '.join(lane.queues)}.",
        )(function)
    return function


@click.command(cls=Command)
@click.option(
    "--lane",
    type=click.Choice([lane.name for lane in LANES]),
    help="Be one worker of this lane, instead of starting a process for each.",
)
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --lane: tells the workers of a lane apart, in logs and in the broker.",
)
@_lane_counts
@click.option("--supervised", is_flag=True, hidden=True, help="End with standard input.")
@settings_options(*COLLECTION)
@click.pass_obj
def worker(
    console: Console,
    /,
    lane: str | None,
    number: int,
    supervised: bool,
    settings: Settings,
    **counts: int,
) -> None:
    """Work off the queues of RabbitMQ until Ctrl-C or SIGTERM.

    Starts a process for each worker of each lane, starts those again that die, and ends them in
    good order: each finishes the message it is at. What a killed one was at is delivered again.
    """
    if settings.embedded:
        raise InvalidRequest(
            "There is no queue to work off: on the embedded default the workers run inside "
            "`lookalike serve` and `lookalike ingest`.",
            remedy="Set LOOKALIKE_BROKER_URL to the address of RabbitMQ for workers of their own.",
            code="embedded_broker",
        )
    if supervised:
        _end_with_standard_input()
    else:
        _prepare(settings, console)
    if lane is not None:
        run_worker(settings, lane_of(lane), number=number)
    else:
        _supervise(settings, console, counts)


def _prepare(settings: Settings, console: Console) -> None:
    make_data_dir(settings.data_dir)
    ready_bundle(settings, console)
    problem = broker_problem(settings)
    if problem is not None:
        console.note(f"{problem.message} {problem.remedy} The workers keep trying.")


def _supervise(settings: Settings, console: Console, counts: Mapping[str, int]) -> None:
    commands = dict(worker_commands(counts))
    if not commands:
        raise InvalidRequest("There is no worker to start.", remedy="Ask for at least one.")

    def tell(event: Event) -> None:
        console.result({"event": event.what, **_details(event)}, _sentence(event))

    supervisor = Supervisor(commands, env=environment_of(settings), fatal=[Exit.USAGE], tell=tell)
    with calling(supervisor.stop, on=STOP_SIGNALS):
        supervisor.run()
    console.note("All workers have ended.")


def worker_commands(counts: Mapping[str, int]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the command of each worker of the lanes."""
    program = [sys.executable, "-m", "ops.cli", "worker", "--supervised"]
    for lane, count in counts.items():
        for number in range(1, count + 1):
            yield f"{lane}-{number}", [*program, "--lane", lane, "--number", str(number)]


def _details(event: Event) -> dict[str, object]:
    details = {
        "worker": event.name,
        "pid": event.pid,
        "exit_code": event.exit_code,
        "restart_s": event.pause_s,
    }
    return {name: value for name, value in details.items() if value is not None}


def _sentence(event: Event) -> str:
    if event.what == "started":
        return f"{event.name} started as process {event.pid}."
    how = (
        f"was killed by {signal.Signals(-event.exit_code).name}"
        if event.exit_code is not None and event.exit_code < 0
        else f"ended with {event.exit_code}"
    )
    return f"{event.name} (process {event.pid}) {how}; it is started again in {event.pause_s:g} s."


def _end_with_standard_input() -> None:
    """Ask this process to end when the supervisor has died, whatever killed it."""

    def watch() -> None:
        # Not through sys.stdin: a thread that waits in it would hold its lock at exit.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
