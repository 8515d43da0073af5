"""The command line as tests use it: in this process, or as a real one, on data of its own."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.cli import main
from tests.workers.pictures import folder_of
from workers.settings import PREFIX

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

Run = Callable[..., Result]
Environment = dict[str, str]


@pytest.fixture(scope="session")
def cli_env(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Settings of all commands; the data directory is given by each test."""
    return {
        "LOOKALIKE_CACHE_DIR": str(tmp_path_factory.mktemp("cli-cache")),
        "LOOKALIKE_BUNDLES_DIR": str(tmp_path_factory.mktemp("cli-bundles")),
        "LOOKALIKE_DATA_DIR": str(tmp_path_factory.mktemp("cli-default") / "data"),
        "LOOKALIKE_ENGINE_THREADS": "1",
        "LOOKALIKE_DECODERS": "1",
    }


@pytest.fixture(scope="session")
def run(cli_env: Environment) -> Run:
    """Run a command in this process; ``env`` adds settings."""

    def run(*args: object, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Result:
        with kept_logging():
            runner = CliRunner(env={**cli_env, **(env or {})})
            return runner.invoke(main, [str(arg) for arg in args], input=stdin)

    return run


@contextmanager
def kept_logging() -> Iterator[None]:
    """Undo what a command does to the root logger."""
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small pictures."""
    return folder_of(tmp_path_factory.mktemp("photos"), range(6))


@pytest.fixture(scope="session")
def collection(run: Run, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a collection of the six pictures, for tests that only look at it."""
    data_dir = tmp_path_factory.mktemp("cli") / "data"
    result = run("ingest", photos, "--data-dir", data_dir)
    assert result.exit_code == 0, result.stderr
    return data_dir


def objects(result: Result) -> list[dict[str, Any]]:
    """Return what a command printed with ``--json``: an object on each line and nothing else."""
    lines = result.stdout.splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def process(*args: object, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command as a process of its own, which is ended if it still runs."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    running = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", *map(str, args)],
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        running.communicate()
