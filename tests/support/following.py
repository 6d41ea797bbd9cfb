"""A small world for tests of followers: owners with logs and feeds, and a database in which every application shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from stoa_chassis.bus import EventMessage
from stoa_chassis.database import Database
from stoa_chassis.follower import FeedUnavailableError
from stoa_chassis.log import Log, log_metadata, read_checkpoint
from stoa_contracts.events.tables import RowsRemoved
from tests.chassis.observatory import ORIGIN

if TYPE_CHECKING:
    from stoa_contracts.envelope import Envelope

__all__ = ["NAME", "Owner", "World", "message"]

#: Under which the followers of these tests keep their positions.
NAME = "world"

_metadata = sa.MetaData()

#: One row for each time an event is applied: nothing here refuses a second time.
applied = sa.Table(
    "applied",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String(50), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
)


def message(envelope: Envelope) -> EventMessage:
    """Write an event for the bus."""
    return EventMessage(envelope.bus_subject, envelope.id, envelope.to_bytes(), envelope.log_position)


class Owner:
    """A service whose events are followed. Its log is a list: what a database does to it is tested elsewhere."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.events: list[Envelope] = []
        self.feed_works = True
        self._database = Database("sqlite://")
        self._log = Log(service)
        with self._database.writing() as connection:
            log_metadata.create_all(connection)

    def append(self, count: int, rows: int = 1) -> list[Envelope]:
        """Let something happen."""
        fact = RowsRemoved(table="t", rows=list(range(1, rows + 1)))
        with self._database.writing() as connection:
            new = self._log.append(connection, f"t{len(self.events) % 3}", [fact] * count, ORIGIN)
        self.events += new
        return new

    def close(self) -> None:
        self._database.engine.dispose()


class World:
    """A follower's database, and the owners whom it follows."""

    def __init__(self, url: str, *sources: str) -> None:
        self.url = url
        self.log = Log("executor")
        self.database = Database(url)
        self.owners = {source: Owner(source) for source in sources}
        self.feed_calls = 0
        #: Events that cannot be applied for now, as (source, position).
        self.poison: set[tuple[str, int]] = set()
        with self.database.writing() as connection:
            log_metadata.create_all(connection)
            _metadata.create_all(connection)

    async def feed(self, source: str, after: int, limit: int) -> list[Envelope]:
        """Give an owner's feed."""
        self.feed_calls += 1
        owner = self.owners[source]
        if not owner.feed_works:
            raise FeedUnavailableError(f"The feed of {source} is switched off")
        return owner.events[after : after + limit]

    def apply(self, connection: sa.Connection, envelope: Envelope) -> None:
        """Note that an event was applied."""
        if (envelope.service, envelope.log_position) in self.poison:
            raise RuntimeError(f"{envelope.log_position} is poisoned")
        connection.execute(sa.insert(applied).values(source=envelope.service, position=envelope.log_position))

    def applied(self, source: str) -> list[int]:
        """Tell what was applied of a source, in that order."""
        statement = sa.select(applied.c.position).where(applied.c.source == source).order_by(applied.c.id)
        with self.database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def checkpoint(self, source: str) -> int:
        """Tell what the checkpoint says."""
        with self.database.reading() as connection:
            return read_checkpoint(connection, NAME, source)

    def consumed(self) -> list[tuple[str, int, int, int]]:
        """Tell what a rebuild would replay."""
        with self.database.reading() as connection:
            found = self.log.consumptions(connection, NAME)
        return [(item.source, item.first, item.last, item.own_position) for item in found]

    def close(self) -> None:
        self.database.engine.dispose()
        for owner in self.owners.values():
            owner.close()
