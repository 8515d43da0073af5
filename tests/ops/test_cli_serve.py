"""``lookalike serve`` and interrupted commands, as processes that get signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from ops.cli.site import is_loopback
from ops.lock import ServerLock, server_of
from tests.ops.conftest import PATIENCE_S, Environment, Run, objects, process
from tests.workers.pictures import jpeg
from tests.workers.sites import site
from workers.errors import Conflict

Server = tuple[subprocess.Popen[str], str]


@contextmanager
def serving(env: Environment, *args: object) -> Iterator[Server]:
    """Run a site, and wait until it says where it listens."""
    with process("serve", "--port", 0, "--json", *args, env=env) as server:
        yield server, listening(server)


def listening(server: subprocess.Popen[str]) -> str:
    """Return the address that a server prints once it listens."""
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line, server.communicate()[1]
    told = json.loads(line)
    assert told["event"] == "listening"
    return str(told["url"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_answers_and_ends_well_when_asked_to(
    cli_env: Environment, tmp_path: Path, number: signal.Signals
) -> None:
    with serving(cli_env, "--data-dir", tmp_path) as (server, url):
        with urllib.request.urlopen(f"{url}api/v1/status") as answer:
            assert json.load(answer)["broker"] == "embedded"
        server.send_signal(number)
        out, err = server.communicate(timeout=PATIENCE_S)
    assert server.returncode == Exit.DONE, err
    assert out == ""
    assert "Stopping" in err
    assert "Traceback" not in err
    assert server_of(tmp_path) is None


def test_a_server_takes_in_no_folder_it_was_not_given(
    cli_env: Environment, tmp_path: Path
) -> None:
    with serving(cli_env, "--data-dir", tmp_path / "data") as (server, url):
        body = json.dumps({"kind": "folder", "path": str(tmp_path)}).encode()
        asked = urllib.request.Request(
            f"{url}api/v1/jobs", body, {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked)
        with refused.value as answer:
            assert json.load(answer)["error"]["code"] == "folder_not_allowed"
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE_S)


def test_a_second_server_is_refused_and_told_of_the_first(
    cli_env: Environment, run: Run, tmp_path: Path
) -> None:
    with serving(cli_env, "--data-dir", tmp_path) as (server, url):
        second = run("serve", "--port", 0, "--data-dir", tmp_path, "--json")
        assert second.exit_code == Exit.UNAVAILABLE
        (told,) = objects(second)
        assert told["error"]["code"] == "server_running"
        assert url in told["error"]["message"]
        assert str(server.pid) in told["error"]["message"]
        server.send_signal(signal.SIGKILL)
        server.communicate()
    # The kernel gave the lock back.
    with ServerLock(tmp_path):
        assert server_of(tmp_path) == {"pid": os.getpid()}


def test_a_port_that_is_taken_is_named(run: Run, collection: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", port, "--data-dir", collection)
    assert result.exit_code == Exit.UNAVAILABLE
    assert str(port) in result.stderr
    assert "--port" in result.stderr


def test_a_bundle_that_does_not_fit_the_store_is_refused_before_serving(
    run: Run, collection: Path
) -> None:
    result = run("serve", "--port", 0, "--data-dir", collection, "--bundle", "lite0-20")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "lite0-20" in result.stderr
    assert result.stdout == ""


def test_only_one_process_holds_the_lock_of_a_data_directory(tmp_path: Path) -> None:
    with ServerLock(tmp_path / "new") as lock:
        lock.announce("http://127.0.0.1:1/")
        with pytest.raises(Conflict, match=r"http://127\.0\.0\.1:1/"):
            ServerLock(tmp_path / "new").__enter__()
        assert server_of(tmp_path / "new") is not None  # looking did not take it away
    with ServerLock(tmp_path / "new"):
        pass


def test_a_host_that_others_reach_is_warned_of(cli_env: Environment, tmp_path: Path) -> None:
    with serving(cli_env, "--data-dir", tmp_path, "--host", "0.0.0.0") as (server, _):
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=PATIENCE_S)
    assert "no login" in err


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("photos.example.org", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_job_and_keeps_what_it_took_in(
    cli_env: Environment, run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    env = {**cli_env, "LOOKALIKE_ALLOW_PRIVATE_ADDRESSES": "1", "LOOKALIKE_BATCH_IMAGES": "1"}
    env["LOOKALIKE_WINDOW_BATCHES"] = "1"
    release, second = threading.Event(), threading.Event()

    def held() -> tuple[int, str, bytes]:
        second.set()
        release.wait(PATIENCE_S)
        return 200, "image/jpeg", jpeg(2)

    with site() as running:
        urls = [running.add("/0.jpg", jpeg(0), "image/jpeg")]
        urls += [f"{running.url}/{each}.jpg" for each in range(1, 20)]
        running.answers |= {f"/{each}.jpg": held for each in range(1, 20)}
        with process("ingest", *urls, "--data-dir", tmp_path, "--json", env=env) as ingest:
            assert second.wait(PATIENCE_S)
            ingest.send_signal(number)
            assert ingest.stderr is not None
            told = next(line for line in ingest.stderr if "Cancelling" in line)
            release.set()
            out, err = ingest.communicate(timeout=PATIENCE_S)
    assert "what was taken in stays" in told
    assert ingest.returncode == Exit.INTERRUPTED, err
    (done,) = [json.loads(line) for line in out.splitlines()]
    counts = done["job"]["counts"]
    assert done["job"]["state"] == "cancelled"
    assert counts["submitted"] == 20
    assert (counts["indexed"], counts["cancelled"], counts["pending"]) == (2, 18, 0)
    assert len(objects(run("images", "--data-dir", tmp_path, "--json"))) == 2


def test_the_demo_serves_on_a_free_port_when_its_own_is_taken(
    cli_env: Environment, photos: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = ["demo", "--images", photos, "--demo-dir", tmp_path / "demo", "--port", port]
        with process(*args, "--json", env=cli_env) as demo:
            assert demo.stdout is not None
            assert json.loads(demo.stdout.readline())["images"] == 6
            with urllib.request.urlopen(f"{listening(demo)}healthz") as answer:
                assert answer.status == 200
            demo.send_signal(signal.SIGINT)
            _, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == Exit.DONE, err
    assert "free port" in err
