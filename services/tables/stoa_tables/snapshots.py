"""Keeps snapshots of tables, from which the past is near: beside the requests, from the log alone."""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from stoa_chassis.background import pause
from stoa_chassis.database import Database
from stoa_chassis.log import Log, event
from stoa_chassis.projection import EventStore
from stoa_contracts.ids import new_id
from stoa_tables.models import snapshot, snapshot_part
from stoa_tables.moments import Moments, code_version, open_file, replay

__all__ = ["SnapshotKeeper"]

_BATCH = 500
_PART = 4 * 1024 * 1024
_LOOK_AGAIN_AFTER = 5.0

_ENVELOPE = 500

#: Fewer events than these are replayed in less time than a snapshot is read.
_FEWEST = 500


@dataclass
class _Stretch:
    """The events of a table since its last snapshot."""

    table: str
    version: int
    """Of the last snapshot; 0 where there is none."""

    size: int
    """Bytes of the last snapshot."""

    events: int = field(default=0)
    bytes: int = field(default=0)


class SnapshotKeeper:
    """Makes a snapshot of each table whenever much has happened to it, also of what happened before it was started.

    Parameters
    ----------
    database, events, moments
        Of the service.
    every_events, every_bytes
        How many events, or bytes of them, make it worth one.
    """

    def __init__(
        self, database: Database, events: EventStore, moments: Moments, *, every_events: int, every_bytes: int
    ) -> None:
        self._database = database
        self._log: Log = events.log
        self._live = events.tables
        self._moments = moments
        self._every_events = every_events
        self._every_bytes = every_bytes
        self._looked_at: dict[str, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the snapshots until the event is set."""
        await self._database.write(_drop_strangers)
        while not stop.is_set():
            await self.catch_up(stop)
            await pause(stop, _LOOK_AGAIN_AFTER)

    async def catch_up(self, stop: asyncio.Event) -> int:
        """Make the snapshots that are due; gives how many."""
        made = 0
        for table in await self._database.read(self._grown):
            while not stop.is_set() and await self._make_next(table, stop):
                made += 1
        return made

    def _grown(self, connection: sa.Connection) -> list[str]:
        """List the tables to which something worth a look happened since the last look."""
        grown = []
        for table in connection.execute(sa.select(self._live["worktable"].c.id)).scalars().all():
            version = self._log.version(connection, table)
            if version - self._looked_at.get(table, 0) >= min(_FEWEST, self._every_events):
                self._looked_at[table] = version
                grown.append(table)
        return grown

    def _next(self, connection: sa.Connection, table: str) -> tuple[_Stretch, int] | None:
        """Find the version of the next snapshot of a table, if it is there yet."""
        newest = (
            sa.select(snapshot.c.version, snapshot.c.size)
            .where(snapshot.c.table_id == table, snapshot.c.code == code_version())
            .order_by(snapshot.c.version.desc())
            .limit(1)
        )
        found = connection.execute(newest).first()
        stretch = _Stretch(table, found.version, found.size) if found else _Stretch(table, 0, 0)
        sizes = (
            sa.select(event.c.version, sa.func.length(event.c.data).label("size"))
            .where(event.c.stream == table, event.c.version > stretch.version)
            .order_by(event.c.version)
            .limit(_BATCH)
        )
        version = stretch.version
        while True:
            batch = connection.execute(sizes.where(event.c.version > version)).all()
            for item in batch:
                version = item.version
                stretch.events += 1
                stretch.bytes += item.size
                if self._is_worth_it(stretch):
                    return stretch, version
            if len(batch) < _BATCH:
                return None

    def _is_worth_it(self, stretch: _Stretch) -> bool:
        # An event takes more room than its data alone.
        room = stretch.bytes + _ENVELOPE * stretch.events
        much = stretch.events >= self._every_events or stretch.bytes >= self._every_bytes
        # Then snapshots take less room than the log, and reading one takes no longer than to do without it.
        return much and room >= stretch.size

    async def _make_next(self, table: str, stop: asyncio.Event) -> bool:
        found = await self._database.read(lambda connection: self._next(connection, table))
        if found is None:
            return False
        _, version = found
        path = await asyncio.to_thread(self._moments.new_file)
        try:
            done = await self._moments.run(lambda connection: self._moments.restore(connection, table, version, path))
            while done < version:
                begun = time.monotonic()
                done = await self._moments.run(
                    lambda connection, done=done: self._replay(connection, table, done, version, path)  # type: ignore[misc]
                )
                # Those who wait for an answer have half of the time to themselves.
                if await pause(stop, time.monotonic() - begun):
                    return False
            return await self._keep(table, version, path)
        finally:
            path.unlink(missing_ok=True)

    def _replay(self, connection: sa.Connection, table: str, done: int, until: int, path: Path) -> int:
        with open_file(path) as file:
            for _ in range(4):
                envelopes = self._log.read_stream(connection, table, after=done, until=until, limit=_BATCH)
                if not envelopes:
                    break
                replay(file, envelopes)
                done = envelopes[-1].streamversion
        return done

    async def _keep(self, table: str, version: int, path: Path) -> bool:
        """Store a file as a snapshot, in parts, and last of all what makes it one."""
        name, digest, size = new_id(), hashlib.sha256(), 0
        parts = _parts(path)
        number = 0
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            digest.update(part)
            content = await asyncio.to_thread(zlib.compress, part, 1)
            size += len(content)
            entry = {"snapshot": name, "part": number, "content": content}
            await self._database.write(
                lambda connection, entry=entry: connection.execute(sa.insert(snapshot_part), entry)  # type: ignore[misc]
            )
            number += 1

        def finish(connection: sa.Connection) -> bool:
            place = self._log.place(connection, table, version)
            known = sa.select(snapshot.c.id).where(
                snapshot.c.table_id == table, snapshot.c.version == version, snapshot.c.code == code_version()
            )
            kept = sa.select(sa.func.count()).select_from(snapshot_part).where(snapshot_part.c.snapshot == name)
            complete = connection.execute(kept).scalar_one() == number
            if place is None or not complete or connection.execute(known).first() is not None:
                # Another replica was faster, or took the parts for forgotten ones.
                connection.execute(sa.delete(snapshot_part).where(snapshot_part.c.snapshot == name))
                return False
            values: dict[str, Any] = {
                "id": name,
                "table_id": table,
                "version": version,
                "code": code_version(),
                "chain": place[1],
                "sha256": digest.hexdigest(),
                "size": size,
            }
            connection.execute(sa.insert(snapshot).values(values))
            return True

        await self._database.write(finish)
        return True


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART):
            yield part


def _drop_strangers(connection: sa.Connection) -> None:
    """Drop what another version of the code made, and parts that never became a snapshot."""
    connection.execute(sa.delete(snapshot).where(snapshot.c.code != code_version()))
    known = sa.select(snapshot.c.id)
    connection.execute(sa.delete(snapshot_part).where(snapshot_part.c.snapshot.not_in(known)))
