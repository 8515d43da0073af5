"""``lookalike worker`` on a real RabbitMQ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.cli.exits import Exit
from ops.cli.worker import worker, worker_commands
from ops.reachability import consumers
from ops.services import RabbitMQ
from tests.ops.conftest import PATIENCE_S, Environment, Run, objects, process
from workers.app import QUEUES
from workers.lanes import LANES, Lane
from workers.settings import Settings

# One of each lane is enough here, and quicker to start.
LEAN = ("--interactive", 1, "--probe", 1, "--bulk", "1")


@pytest.fixture
def env(cli_env: Environment, rabbitmq: RabbitMQ, tmp_path: Path) -> Environment:
    """Settings of a collection whose work goes through RabbitMQ."""
    return {
        **cli_env,
        "LOOKALIKE_BROKER_URL": rabbitmq.url,
        "LOOKALIKE_DATA_DIR": str(tmp_path / "data"),
    }


class Fleet:
    """A supervisor and what it tells about its workers."""

    def __init__(self, supervisor: subprocess.Popen[str]) -> None:
        self.supervisor = supervisor
        self.errors: list[str] = []
        assert supervisor.stderr is not None
        # Read all the time, or a full pipe would stop the workers.
        self._reader = threading.Thread(target=self.errors.extend, args=(supervisor.stderr,))
        self._reader.start()

    def event(self) -> dict[str, Any]:
        assert self.supervisor.stdout is not None
        line = self.supervisor.stdout.readline()
        assert line, "".join(self.errors)
        found: dict[str, Any] = json.loads(line)
        return found

    def wait(self) -> int:
        code = self.supervisor.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code


@contextmanager
def fleet(env: Environment, *args: object) -> Iterator[Fleet]:
    """Run `lookalike worker`; whatever still runs at the end is ended."""
    with process("worker", "--json", *args, env=env) as supervisor:
        running = Fleet(supervisor)
        try:
            yield running
        finally:
            supervisor.terminate()
            running.wait()


def wait_until_consumed(env: Environment) -> None:
    """Wait until somebody takes messages from every queue."""
    settings = Settings.load(env)
    tick = threading.Event()
    for _ in range(int(PATIENCE_S * 10)):
        if all(consumers(settings).values()):
            return
        tick.wait(0.1)
    raise AssertionError(f"nobody takes messages: {consumers(settings)}")


def ended(pid: int) -> bool:
    """Wait until a process that may be nobody's child has ended."""
    tick = threading.Event()
    for _ in range(int(PATIENCE_S * 10)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        tick.wait(0.1)
    return False


def descendants(pid: int) -> set[int]:
    """Return the processes below a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children} | {
        below for child in children for below in descendants(int(child))
    }


def test_the_workers_do_the_work_and_end_when_asked_to(
    env: Environment, run: Run, photos: Path
) -> None:
    with fleet(env, *LEAN) as workers:
        started = [workers.event() for _ in LANES]
        assert {event["event"] for event in started} == {"started"}
        assert {event["worker"] for event in started} == {f"{lane.name}-1" for lane in LANES}
        queued = run("ingest", photos, "--no-wait", "--json", env=env)
        assert queued.exit_code == Exit.DONE
        ingested = run("ingest", photos, "--json", env=env)
        assert ingested.exit_code == Exit.DONE, ingested.stderr
        found = run("search", photos / "0001.jpg", "-k", 1, "--json", env=env)
        assert objects(found)[0]["hits"][0]["sources"] == [str(photos / "0001.jpg")]
        jobs = objects(run("jobs", "--json", env=env))
        assert sum(each["job"]["counts"]["indexed"] for each in jobs) == 6
        doctor = run("doctor", "--json", env=env)
        broker = next(each for each in objects(doctor) if each["name"] == "broker")
        assert broker["state"] == "ok", broker
        workers.supervisor.terminate()
        assert workers.wait() == Exit.DONE
    assert all(ended(event["pid"]) for event in started)


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_the_number_of_workers_is_that_of_the_lanes_unless_told(lane: Lane) -> None:
    option = next(option for option in worker.params if option.name == lane.name)
    assert option.default == lane.workers
    names = [name for name, _ in worker_commands({lane.name: 2})]
    assert names == [f"{lane.name}-1", f"{lane.name}-2"]


def test_a_killed_worker_is_started_again(env: Environment) -> None:
    with fleet(env, "--interactive", 0, "--probe", 1, "--bulk", 0, "--crawl", 0) as workers:
        first = workers.event()
        os.kill(first["pid"], signal.SIGKILL)
        death, again = workers.event(), workers.event()
        assert (death["event"], death["exit_code"]) == ("ended", -signal.SIGKILL)
        assert (again["event"], again["worker"]) == ("started", "probe-1")
        assert again["pid"] != first["pid"]


def test_a_killed_supervisor_leaves_no_orphan(env: Environment, run: Run, photos: Path) -> None:
    with fleet(env, *LEAN) as workers:
        for _ in LANES:
            workers.event()
        wait_until_consumed(env)
        run("ingest", photos, env=env)  # so that there are decoding children, too
        below = descendants(workers.supervisor.pid)
        assert len(below) > len(LANES)
        workers.supervisor.kill()
        assert all(ended(pid) for pid in below)


def test_settings_that_no_worker_can_use_end_the_supervisor(env: Environment) -> None:
    Path(env["LOOKALIKE_DATA_DIR"], "shards", "0-of-1").mkdir(parents=True)
    nobody_else = ("--interactive", 0, "--bulk", 0, "--crawl", 0)
    with fleet({**env, "LOOKALIKE_SHARDS": "2"}, *nobody_else) as workers:
        assert workers.wait() == Exit.UNAVAILABLE
    assert "LOOKALIKE_SHARDS" in "".join(workers.errors)


def test_a_broker_that_is_down_is_named_and_the_worker_keeps_trying(
    cli_env: Environment, tmp_path: Path
) -> None:
    env = {
        **cli_env,
        "LOOKALIKE_BROKER_URL": "amqp://me:secret@127.0.0.1:1//",
        "LOOKALIKE_DATA_DIR": str(tmp_path / "data"),
    }
    with process("worker", "--lane", "crawl", env=env) as alone:
        assert alone.stderr is not None
        first = next(line for line in alone.stderr if "does not answer" in line)
        assert "me:**@127.0.0.1:1" in first
        assert "LOOKALIKE_BROKER_URL" in first
        retry = next(line for line in alone.stderr if "Cannot connect" in line)
        assert "secret" not in retry
        assert alone.poll() is None
        alone.terminate()
        alone.communicate(timeout=PATIENCE_S)


def test_a_search_that_nobody_answers_says_what_to_start(
    env: Environment, run: Run, photos: Path
) -> None:
    (Path(env["LOOKALIKE_DATA_DIR"]) / "shards").mkdir(parents=True)  # a collection without images
    result = run("search", photos / "0000.jpg", "--timeout", "0.5", env=env)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "lookalike worker" in result.stderr


def test_the_doctor_tells_which_queues_nobody_takes_from(env: Environment, run: Run) -> None:
    broker = next(
        each for each in objects(run("doctor", "--json", env=env)) if each["name"] == "broker"
    )
    assert broker["state"] == "warn"
    assert all(queue in broker["message"] for queue in QUEUES)
