"""The servers that tests and benchmarks start: alone, on loopback, ended for certain."""

import os
import signal
import socket
from pathlib import Path

import pytest
from kombu.connection import Connection
from kombu.entity import Queue
from sqlalchemy import create_engine, text

from ops import services
from ops.errors import ServiceFailedError, ServiceMissingError
from ops.services import Daemon, PostgreSQL, RabbitMQ, free_ports


def _daemon(tmp_path: Path, script: str, *, stop_signal: signal.Signals) -> Daemon:
    return Daemon(["sh", "-c", script], log=tmp_path / "log", stop_signal=stop_signal)


def test_free_ports_are_all_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_daemon_that_ends_at_once_fails_with_its_last_words(tmp_path: Path) -> None:
    daemon = _daemon(tmp_path, "echo the disk is full; exit 3", stop_signal=signal.SIGTERM)
    daemon.start()
    with pytest.raises(ServiceFailedError, match="the disk is full"):
        daemon.wait_ready(lambda: False)
    assert daemon.pid is None


def test_a_daemon_that_never_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "START_TIMEOUT_S", 0.1)
    daemon = _daemon(tmp_path, "exec sleep 600", stop_signal=signal.SIGTERM)
    daemon.start()
    with pytest.raises(ServiceFailedError):
        daemon.wait_ready(lambda: False)
    assert daemon.pid is None


def test_a_daemon_that_ignores_its_stop_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "STOP_TIMEOUT_S", 0.1)
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    daemon = _daemon(tmp_path, script, stop_signal=signal.SIGTERM)
    daemon.start()
    daemon.wait_ready(lambda: "ready" in (tmp_path / "log").read_text())
    pid = daemon.pid
    assert pid is not None
    daemon.stop()
    daemon.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        services, "RABBITMQ_SERVER", ("no-such-broker", "/nowhere", "some-package")
    )
    with pytest.raises(
        ServiceMissingError, match=r"no-such-broker.*apt-get install .*some-package"
    ):
        RabbitMQ(tmp_path)


def test_a_persistent_message_outlives_a_restart_of_the_broker(
    rabbitmq: RabbitMQ,
) -> None:
    confirm = {"confirm_publish": True}
    with Connection(rabbitmq.url, transport_options=confirm) as connection:
        queue = Queue("outlives", channel=connection)
        queue.declare()
        connection.Producer().publish({"n": 1}, routing_key="outlives", delivery_mode=2)
    rabbitmq.stop()
    assert rabbitmq.pid is None
    rabbitmq.start()
    with Connection(rabbitmq.url) as connection:
        queue = Queue("outlives")(connection)
        message = queue.get()
        assert message is not None
        assert message.payload == {"n": 1}
        message.ack()
        queue.delete()


def test_the_broker_listens_on_loopback_alone(rabbitmq: RabbitMQ) -> None:
    tree = {rabbitmq.pid, rabbitmq._epmd.pid}
    listening = _listening(tree)
    assert rabbitmq.port in {port for _, port in listening}
    assert len(listening) >= 3  # AMQP, distribution, port mapper
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}
    assert {5672, 25672, 4369}.isdisjoint({port for _, port in listening})


def test_new_databases_are_empty_and_separate(postgres: PostgreSQL) -> None:
    first, second = (create_engine(postgres.new_database(name)) for name in ("one", "two"))
    try:
        with first.begin() as connection:
            connection.execute(text("CREATE TABLE only_here (n int)"))
        tables = text("SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'")
        with first.connect() as here, second.connect() as there:
            assert (here.scalar(tables), there.scalar(tables)) == (1, 0)
    finally:
        first.dispose()
        second.dispose()


def test_the_database_server_does_not_run_as_root(postgres: PostgreSQL) -> None:
    pid = postgres._postgres.pid
    assert pid is not None
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed since the folder was listed
        return ""


def _listening(pids: set[int | None]) -> set[tuple[str, int]]:
    targets = (_target(each) for pid in pids for each in Path(f"/proc/{pid}/fd").iterdir())
    inodes = {
        each.removeprefix("socket:[").removesuffix("]")
        for each in targets
        if each.startswith("socket:")
    }
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                words = [
                    bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)
                ]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found
