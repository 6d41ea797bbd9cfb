"""One database for one service: SQLite or PostgreSQL behind the same few calls.

Statements run in threads, a whole transaction at a time, and never across an ``await``: docs/decisions/0002 says why.
"""

from __future__ import annotations

import asyncio
import fcntl
import queue
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from stoa_chassis.errors import DatabaseUnavailableError

__all__ = ["Database", "DatabaseUnavailableError"]

T = TypeVar("T")

#: Every write transaction of a service's database on PostgreSQL holds this advisory lock, as SQLite's writers hold theirs.
_WRITER_LOCK = 0x53746F61

_READERS = 4
_MAX_BATCH = 256


@dataclass
class _Write:
    function: Callable[[sa.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = field(default=None)


class Database:
    """A service's own database.

    Writes are serialised: one writer thread takes what waits, runs each piece of work in a savepoint of one transaction,
    and commits them together, so that many small commands share one flush to the disk. An error in one piece undoes that
    piece alone. A result is given back only after the commit.

    Parameters
    ----------
    url
        ``sqlite:///path`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _create_engine(self.url)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._writer_lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reader")
        self._listeners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._closed = False

    def on_commit(self, event: asyncio.Event) -> None:
        """Set an event of the running loop after each commit of this process."""
        self._listeners.append((asyncio.get_running_loop(), event))

    def forget(self, event: asyncio.Event) -> None:
        """Stop setting an event."""
        self._listeners = [item for item in self._listeners if item[1] is not event]

    async def write(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function in the write transaction and commit.

        Parameters
        ----------
        function
            Gets the connection; an exception undoes what it did and is raised here. Nothing else is undone, so it should
            have no other effects.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be reached or the commit failed.
        """
        if self._closed:
            msg = "The database is closed"
            raise DatabaseUnavailableError(msg)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._writer_lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_loop, name="database-writer", daemon=True)
                self._writer.start()
        self._writes.put(_Write(function, loop, future))
        return await future

    async def read(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function in a read transaction: one consistent view.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be reached.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, function)

    def _read(self, function: Callable[[sa.Connection], T]) -> T:
        with self.reading() as connection:
            return function(connection)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a read transaction in this thread."""
        with self._translated(), self.engine.connect() as connection:
            connection.exec_driver_sql(
                "BEGIN" if self.is_sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
            )
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a write transaction in this thread; it is committed at the end, or undone by an exception.

        For command line tools and tests: a service uses `write`.
        """
        with self._translated(), self.engine.connect() as connection, connection.begin():
            self._lock(connection)
            yield connection

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Wait until no other process does the same with this database, and keep others from it meanwhile."""
        if self.is_sqlite:
            with Path(f"{self.url.database}.{what}").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        key = {"key": zlib.crc32(what.encode())}
        # In a transaction the lock would keep that open for as long.
        engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with self._translated(), engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), key)
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)

    def _lock(self, connection: sa.Connection) -> None:
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise DatabaseUnavailableError(self._explain(error)) from error
            raise

    def _explain(self, error: DBAPIError) -> str:
        where = self.url.database if self.is_sqlite else self.url.render_as_string(hide_password=True)
        return f"The database {where} cannot be used: {str(error.orig).strip().splitlines()[0]}"

    def _write_loop(self) -> None:
        while True:
            first = self._writes.get()
            if first is None:
                return
            batch = [first]
            last = False
            while len(batch) < _MAX_BATCH:
                try:
                    item = self._writes.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    last = True
                    break
                batch.append(item)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[_Write]) -> None:
        try:
            with self.writing() as connection:
                if len(batch) == 1:
                    # What fails alone is undone with its transaction: a savepoint would be two statements more.
                    batch[0].result = batch[0].function(connection)
                else:
                    self._carry_out(connection, batch)
        except Exception as error:  # noqa: BLE001 - nothing was committed: everybody who waits has to know
            for item in batch:
                item.error = error
        for item in batch:
            _call(item.loop, _resolve, item)
        for loop, event in self._listeners:
            _call(loop, event.set)

    @staticmethod
    def _carry_out(connection: sa.Connection, batch: list[_Write]) -> None:
        for item in batch:
            try:
                with connection.begin_nested():
                    item.result = item.function(connection)
            except DBAPIError as error:
                if isinstance(error, OperationalError) or error.connection_invalidated:
                    raise
                item.error = error
            except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                item.error = error

    async def aclose(self) -> None:
        """Finish the writes that wait and close every connection."""
        self._closed = True
        writer = self._writer
        if writer is not None:
            self._writes.put(None)
            await asyncio.get_running_loop().run_in_executor(None, writer.join)
        self._readers.shutdown()
        self.engine.dispose()


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)


def _resolve(item: _Write) -> None:
    if item.future.done():
        return
    if item.error is not None:
        item.future.set_exception(item.error)
    else:
        item.future.set_result(item.result)


def _create_engine(url: URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        server = sa.create_engine(url, poolclass=QueuePool, pool_size=_READERS + 1, max_overflow=4, pool_pre_ping=True)

        @sa.event.listens_for(server, "connect")
        def _plan_anew(connection: Any, _record: Any) -> None:
            # A plan that was kept from when a table was small scans it once it is large, until the server's statistics follow.
            connection.execute("SET plan_cache_mode = force_custom_plan")
            connection.commit()

        return server
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        # The driver's own transactions would begin too late: BEGIN IMMEDIATE is sent by us.
        connect_args={"isolation_level": None, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA journal_mode=WAL")
        # What is acknowledged survives a power cut: the log is the truth.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-65536")
        cursor.close()

    return engine
