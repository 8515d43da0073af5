"""Real RabbitMQ and PostgreSQL servers of our own, for benchmarks, drills and tests.

Each server gets free ports on loopback, a data directory of its own and, for RabbitMQ, an own
node name, cookie and port mapper (epmd), so that it never meets a server that is already there.
Nothing is left behind: servers are ended by their process id, and they end by themselves when
the thread that started them dies without ending them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ops.errors import ServiceFailedError, ServiceMissingError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Find TCP ports on loopback that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Daemon:
    """One server process in the foreground, writing to a log file."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self._command = [*_runner(stop_signal, user), *command]
        self._log = log
        self._stop_signal = stop_signal
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the server runs, else None."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else None

    def start(self) -> None:
        """Start the process; it does not answer yet when this returns."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - programs found by _program
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for us to handle
            )

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true.

        Raises:
            ServiceFailedError: The process ended or the time is up; it is ended then.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self.pid is None or time.monotonic() > deadline:
                self.kill()
                raise ServiceFailedError(self._failure())
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process in good order, by force after 20 seconds. Idempotent."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """End the process at once, as a crash would. Idempotent."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _failure(self) -> str:
        tail = self._log.read_text(errors="replace")[-2000:].strip()
        return f"{self._command[-1]} did not come up. Its log ends with:\n{tail}\nSee {self._log}."


class RabbitMQ:
    """A RabbitMQ broker without plugins, for guest on loopback.

    `stop()` and `kill()` keep the data directory, and `start()` after them brings back the same
    durable queues and messages on the same port.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self.port, self._epmd_port, self._dist_port = free_ports(3)
        server, epmd = _program(RABBITMQ_SERVER), _program(EPMD)
        self._data_dir.mkdir(parents=True, exist_ok=True)
        env = self._environment()
        self._epmd = Daemon(
            [epmd, "-address", LOOPBACK, "-port", str(self._epmd_port)],
            log=self._data_dir / "epmd.log",
            stop_signal=signal.SIGTERM,
            env=env,
        )
        self._node = Daemon(
            [server],
            log=self._data_dir / "rabbitmq.log",
            stop_signal=signal.SIGTERM,
            env=env,
        )

    @property
    def url(self) -> str:
        """The broker's address, as Celery takes it."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs, else None."""
        return self._node.pid

    def start(self) -> None:
        """Start the broker and wait until it takes connections.

        Raises:
            ServiceFailedError: It ended or did not answer in time.
        """
        self._write_configuration()
        self._epmd.start()
        self._node.start()
        try:
            self._node.wait_ready(lambda: _speaks_amqp(self.port))
        except ServiceFailedError:
            self._epmd.stop()
            raise

    def stop(self) -> None:
        """Shut the broker down; what it has promised to keep is on disk."""
        self._node.stop()
        self._epmd.stop()

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL).

        RabbitMQ writes new queues to disk a moment after it has confirmed them, so one that was
        just declared may be gone, with its messages.
        """
        self._node.kill()
        self._epmd.stop()

    def _write_configuration(self) -> None:
        (self._data_dir / "home").mkdir(exist_ok=True)
        (self._data_dir / "enabled_plugins").write_text("[].\n")
        for name in ("rabbitmq.conf", "environment"):
            (self._data_dir / name).write_text("")

    def _environment(self) -> dict[str, str]:
        here = self._data_dir
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))
        }
        return inherited | {
            "HOME": str(here / "home"),  # the Erlang cookie is made there
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": "lookalike@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here),
            "RABBITMQ_CONF_ENV_FILE": str(here / "environment"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            # Bound schedulers would all sit on the first cores, beside everybody else's.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-kernel inet_dist_use_interface {127,0,0,1}"),
            # The start script replaces itself by the broker, so that its pid is the broker's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


class PostgreSQL:
    """A PostgreSQL cluster for passing data: nothing is synced to disk.

    Root may not run PostgreSQL; started by root it runs as `postgres` or `nobody`, which must be
    able to reach the data directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        (self.port,) = free_ports(1)
        self._user = _unprivileged_user()
        self._postgres = Daemon(
            [
                _program(POSTGRES),
                *("-D", str(self._data_dir / "cluster"), "-p", str(self.port)),
                *("-k", str(self._data_dir), "-h", LOOPBACK),
                *("-c", "fsync=off", "-c", "full_page_writes=off"),
            ],
            log=self._data_dir / "postgresql.log",
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            user=self._user,
        )

    @property
    def url(self) -> str:
        """The address of the database `postgres`, as SQLAlchemy takes it."""
        return self._url("postgres")

    def start(self) -> None:
        """Make the cluster if there is none, start it and wait until it answers.

        Raises:
            ServiceFailedError: It could not be made or did not answer in time.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        if self._user:
            shutil.chown(self._data_dir, self._user)
        if not (self._data_dir / "cluster").exists():
            options = "--auth=trust --username=lookalike --encoding=UTF8 --locale=C --no-sync"
            self._run(INITDB, *options.split(), "-D", str(self._data_dir / "cluster"))
        self._postgres.start()
        self._postgres.wait_ready(self._answers)

    def stop(self) -> None:
        """Shut the cluster down without waiting for its clients."""
        self._postgres.stop()

    def new_database(self, name: str) -> str:
        """Make an empty database and return its address."""
        self._run(CREATEDB, "-h", LOOPBACK, "-p", str(self.port), "-U", "lookalike", name)
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://lookalike@{LOOPBACK}:{self.port}/{database}"

    def _answers(self) -> bool:
        command = [_program(PG_ISREADY), "-q", "-h", LOOPBACK, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - found by _program

    def _run(self, program: tuple[str, str, str], *arguments: str) -> None:
        command = [*_runner(signal.SIGTERM, self._user), _program(program), *arguments]
        done = subprocess.run(  # noqa: S603 - found by _program
            command, capture_output=True, text=True, check=False, cwd="/"
        )
        if done.returncode:
            raise ServiceFailedError(f"{program[0]} failed: {done.stderr.strip()}")


@contextmanager
def rabbitmq_server(data_dir: Path) -> Iterator[RabbitMQ]:
    """Run a RabbitMQ broker on a free loopback port for the time of a with block.

    Args:
        data_dir: Directory for everything it writes; made if absent.

    Raises:
        ServiceMissingError: RabbitMQ is not installed.
        ServiceFailedError: It did not come up.
    """
    broker = RabbitMQ(data_dir)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def postgresql_server(data_dir: Path) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL cluster on a free loopback port for the time of a with block.

    Args:
        data_dir: Directory for everything it writes; made if absent.

    Raises:
        ServiceMissingError: PostgreSQL is not installed.
        ServiceFailedError: It did not come up.
    """
    cluster = PostgreSQL(data_dir)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


# Program, where to look besides PATH (newest last), Debian package. Debian's rabbitmq-server on
# PATH is a wrapper that changes to the system broker's user and directory: theirs is not ours.
RABBITMQ_SERVER = ("rabbitmq-server", "/usr/lib/rabbitmq/bin", "rabbitmq-server")
EPMD = ("epmd", "/usr/bin", "erlang-base")
POSTGRES = ("postgres", "/usr/lib/postgresql/*/bin", "postgresql")
INITDB = ("initdb", "/usr/lib/postgresql/*/bin", "postgresql")
CREATEDB = ("createdb", "/usr/lib/postgresql/*/bin", "postgresql")
PG_ISREADY = ("pg_isready", "/usr/lib/postgresql/*/bin", "postgresql")


def _program(program: tuple[str, str, str]) -> str:
    name, folders, package = program
    found = sorted(Path("/").glob(f"{folders}/{name}".lstrip("/")))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise ServiceMissingError(
            f"{name} is not installed; run: apt-get install --no-install-recommends {package}"
        )
    return path


def _runner(death_signal: signal.Signals, user: str | None) -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServiceMissingError("setpriv is not installed; run: apt-get install util-linux")
    change = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return [setpriv, f"--pdeathsig={death_signal.name.removeprefix('SIG')}", *change]


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _speaks_amqp(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
    return False
