"""Tables as they were: one table's own events, replayed by the same projection into a file of its own.

A table's read model is computed from its own stream alone, so that nothing else has to be replayed. docs/history.md says how it
is kept quick and why it cannot differ from what was shown then.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog
from sqlalchemy.pool import NullPool

import stoa_contracts
from stoa_chassis.database import Database
from stoa_chassis.log import Log
from stoa_chassis.projection import EventStore
from stoa_contracts.envelope import Envelope
from stoa_tables.models import read_model, snapshot, snapshot_part
from stoa_tables.problems import InvalidRequestError, NotFoundError
from stoa_tables.projection import TablesProjection
from stoa_tables.store import Store

__all__ = ["AsOf", "Moment", "Moments", "code_version", "open_file", "replay"]

_T = TypeVar("_T")

_BATCH = 1000
_THREADS = 2
_MAX_FILES = 16

_events, _steps, _step_events = (read_model.tables[name] for name in ("row_event", "edit_step", "edit_step_event"))

#: What would make the files grow with every event and shows nothing of a table. Which events concern a row is the same at any
#: moment, and nobody undoes anything in the past; but what is known of corrections before a step is needed where it was undone later.
_LEFT_OUT = (sa.delete(_events), sa.delete(_steps), sa.delete(_step_events).where(_step_events.c.corrected.is_(None)))


@dataclass(frozen=True)
class AsOf:
    """A moment as a person names it: a position of the log or a time."""

    at: int | datetime

    def resolve(self, connection: sa.Connection, log: Log) -> int:
        """Give the position.

        Raises
        ------
        InvalidRequestError
            If the log has not come so far yet.
        """
        if isinstance(self.at, datetime):
            return log.position_at(connection, self.at)
        head = log.head(connection)
        if self.at > head:
            raise InvalidRequestError(f"The log is at position {head}; it has no position {self.at} yet", head=head)
        return self.at


@dataclass(frozen=True)
class Moment:
    """A table as it was."""

    table: str
    """Its id."""

    version: int
    """Of its stream; 0 where it did not exist."""

    path: Path
    """A SQLite file with the tables of the read model, which hold this table alone."""


@cache
def code_version() -> str:
    """Name the code that computes the read model, so that no snapshot of another version is read.

    It changes with every file of the service and of the contracts: a snapshot is quickly made again.
    """
    found = hashlib.sha256()
    for package in (Path(__file__).parent, *map(Path, stoa_contracts.__path__)):
        for path in sorted(package.rglob("*.py")):
            found.update(f"{path.relative_to(package)}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


@contextmanager
def open_file(path: Path) -> Iterator[sa.Connection]:
    """Open a file of the read model of one table; what is written is kept at the end."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # A file that a crash leaves behind is never read again.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-16384")

    with engine.begin() as connection:
        yield connection


def replay(file: sa.Connection, envelopes: Sequence[Envelope]) -> None:
    """Change a file of the read model by the next events of the table's stream."""
    TablesProjection().apply_all(file, read_model.tables, envelopes)
    for statement in _LEFT_OUT:
        file.execute(statement)


@dataclass
class _Kept:
    """A file that may be asked for again."""

    path: Path
    size: int
    users: int = 0


class Moments:
    """Makes tables as they were, and keeps some of them for the next page.

    Parameters
    ----------
    database, events
        Of the service.
    max_bytes
        How much disk the files that nobody reads may take.
    """

    def __init__(self, database: Database, events: EventStore, *, max_bytes: int) -> None:
        self._database = database
        self._log = events.log
        self._live = events.tables
        self._max_bytes = max_bytes
        self._folder: Path | None = None
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        self._making: dict[tuple[str, int], threading.Lock] = {}
        self._lock = threading.Lock()
        self._numbers = count()
        # Making a table as it was takes seconds; those who read the present do not wait behind it.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="history")

    async def ask(self, name: str, as_of: AsOf, question: Callable[[Store, int, str], _T]) -> _T:
        """Answer a question from a table as it was.

        Parameters
        ----------
        name
            The table's id, or its name as it is now or was when it was deleted.
        as_of
            When.
        question
            Gets what was there, the position that it shows, and the table's id.

        Raises
        ------
        NotFoundError
            If there was no such table at that moment.
        InvalidRequestError
            If the moment has not come yet.
        """

        def work(connection: sa.Connection) -> _T:
            position = as_of.resolve(connection, self._log)
            table = self.find(connection, name, position)
            with self.open(connection, table, self._log.version_at(connection, table, position)) as moment:
                return self.look(moment, lambda store: question(store, position, table))

        return await self.run(work)

    async def run(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Do something in a read transaction, in a thread in which it may take long."""

        def read() -> _T:
            with self._database.reading() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    @staticmethod
    def look(moment: Moment, question: Callable[[Store], _T]) -> _T:
        """Answer a question from a table as it was."""
        with open_file(moment.path) as connection:
            return question(Store(connection, read_model.tables))

    # --- which table ---------------------------------------------------------------------------------------------------

    def find(self, connection: sa.Connection, name: str, position: int) -> str:
        """Find a table that was there at a position by its id, or by its name as it is now or was when it was deleted.

        Raises
        ------
        NotFoundError
            If there was none.
        """
        known = self.candidates(connection, name)
        gone = None
        for table, deleted in known:
            first = self._log.place(connection, table, 1)
            if first is None or first[0] > position:
                continue
            if deleted and self._last_position(connection, table) <= position:
                gone = gone or self._last_position(connection, table)
                continue
            return table
        if gone is not None:
            raise NotFoundError(f"The table {name!r} was deleted at position {gone}", table=name, deleted=gone)
        if known:
            raise NotFoundError(f"There was no table {name!r} yet at position {position}", table=name)
        raise NotFoundError(f"There is no table {name!r}, and never was", table=name)

    def candidates(self, connection: sa.Connection, name: str) -> list[tuple[str, bool]]:
        """List the tables that an id or a name may mean, with whether they were deleted: the present one first, then the newest."""
        if "\0" in name:
            return []
        item = self._live["worktable"]
        statement = (
            sa.select(item.c.id, item.c.deleted)
            .where(sa.or_(item.c.id == name, item.c.folded_name == name.casefold()))
            .order_by(item.c.deleted, item.c.id.desc())
        )
        return [(entry.id, bool(entry.deleted)) for entry in connection.execute(statement)]

    def _last_position(self, connection: sa.Connection, table: str) -> int:
        place = self._log.place(connection, table, self._log.version(connection, table))
        return 0 if place is None else place[0]

    # --- files ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, connection: sa.Connection, table: str, version: int) -> Iterator[Moment]:
        """Make a table as it was at a version of its stream, or take what was made before."""
        key = (table, version)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None:
                    kept.users += 1
                    self._kept.move_to_end(key)
            if kept is None:
                path = self._make(connection, table, version)
                kept = _Kept(path, path.stat().st_size, users=1)
                with self._lock:
                    self._kept[key] = kept
        try:
            yield Moment(table, version, kept.path)
        finally:
            with self._lock:
                kept.users -= 1
                self._tidy()

    def _tidy(self) -> None:
        total = sum(kept.size for kept in self._kept.values())
        for key, kept in list(self._kept.items()):
            if total <= self._max_bytes and len(self._kept) <= _MAX_FILES:
                break
            if not kept.users:
                total -= kept.size
                del self._kept[key]
                self._making.pop(key, None)
                kept.path.unlink(missing_ok=True)

    def new_file(self) -> Path:
        """Name a file that does not exist yet."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="stoa-history-"))
            return self._folder / f"{next(self._numbers)}.sqlite"

    def _make(self, connection: sa.Connection, table: str, version: int) -> Path:
        path = self.new_file()
        try:
            done = self._begin(connection, table, version, path)
            with open_file(path) as file:
                while done < version:
                    envelopes = self._log.read_stream(connection, table, after=done, until=version, limit=_BATCH)
                    replay(file, envelopes)
                    done = envelopes[-1].streamversion
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _begin(self, connection: sa.Connection, table: str, version: int, path: Path) -> int:
        """Fill a file from the nearest snapshot or file before a version; gives the version at which it is."""
        restored = self.restore(connection, table, version, path)
        with ExitStack() as stack:
            with self._lock:
                nearer = [each for (of, each) in self._kept if of == table and restored < each <= version]
                if not nearer:
                    return restored
                kept = self._kept[table, max(nearer)]
                kept.users += 1
                stack.callback(self._release, kept)
            shutil.copyfile(kept.path, path)
            return max(nearer)

    def _release(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1

    def restore(self, connection: sa.Connection, table: str, version: int, path: Path) -> int:
        """Fill a file from the newest sound snapshot up to a version, or with nothing; gives the version at which it is."""
        logger = structlog.get_logger(__name__)
        statement = (
            sa.select(snapshot)
            .where(snapshot.c.table_id == table, snapshot.c.code == code_version(), snapshot.c.version <= version)
            .order_by(snapshot.c.version.desc())
        )
        for found in connection.execute(statement).all():
            place = self._log.place(connection, table, found.version)
            # A log that was restored from a backup may have gone on differently.
            if place is not None and place[1] == found.chain and _unpack(connection, found, path):
                return int(found.version)
            logger.warning("a snapshot does not fit the log and is not used", table=table, version=found.version)
        path.unlink(missing_ok=True)
        with open_file(path) as file:
            # The file is empty; to ask so for each table takes longer than to make it.
            read_model.create_all(file, checkfirst=False)
        return 0

    def close(self) -> None:
        """Wait for what is being made, and remove every file."""
        self._threads.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _unpack(connection: sa.Connection, found: Any, path: Path) -> bool:
    """Write the content of a snapshot to a file, a part at a time; tells whether it is what was written."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in count():
            statement = sa.select(snapshot_part.c.content).where(
                snapshot_part.c.snapshot == found.id, snapshot_part.c.part == part
            )
            content = connection.execute(statement).scalar_one_or_none()
            if content is None:
                break
            try:
                unpacked = zlib.decompress(content)
            except zlib.error:
                return False
            digest.update(unpacked)
            file.write(unpacked)
    return digest.hexdigest() == str(found.sha256)
