"""The log: one append-only table of events, in the same database and transaction as the state it explains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from stoa_contracts.canonical import canonical_json
from stoa_contracts.envelope import Envelope
from stoa_contracts.ids import new_id
from stoa_contracts.registry import Event

__all__ = [
    "APPEND_ONLY",
    "CHAIN_START",
    "Broken",
    "ConflictError",
    "Consumption",
    "Log",
    "Origin",
    "checkpoint",
    "consumption",
    "event",
    "log_metadata",
    "read_checkpoint",
    "read_model",
    "write_checkpoint",
]

#: The chain value before the first event.
CHAIN_START = "0" * 64

#: The tables that every service has, whatever it does.
log_metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

event = sa.Table(
    "event",
    log_metadata,
    sa.Column("position", _position, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("stream", sa.String(200), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("type", sa.String(100), nullable=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("time", sa.String(32), nullable=False, doc="RFC 3339 text, so that no driver rounds it"),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("correlationid", sa.String(200), nullable=False),
    sa.Column("causationid", sa.String(200)),
    sa.Column("traceparent", sa.String(200)),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("chain", sa.String(64), nullable=False),
    sa.UniqueConstraint("stream", "version", name="uq_event_stream_version"),
)

checkpoint = sa.Table(
    "checkpoint",
    log_metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("source", sa.String(100), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

#: Which events of other services were applied between which events of our own: what a rebuild replays, in that order.
consumption = sa.Table(
    "consumption",
    log_metadata,
    sa.Column("id", _position, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("source", sa.String(100), nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("own_position", sa.BigInteger, nullable=False, doc="The head of our log before they were applied"),
)

#: By which version of its projection a read model was computed.
read_model = sa.Table(
    "read_model",
    log_metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False, doc="Empty where it still has to be computed"),
)


# Built once, because building a statement costs more than running it.
_HEAD = sa.select(sa.func.coalesce(sa.func.max(event.c.position), 0))
_VERSION = sa.select(sa.func.coalesce(sa.func.max(event.c.version), 0)).where(event.c.stream == sa.bindparam("stream"))
_LAST = sa.select(event.c.position, event.c.chain).order_by(event.c.position.desc()).limit(1)
_INSERT = sa.insert(event)
_PLACE = sa.select(event.c.position, event.c.chain).where(
    event.c.stream == sa.bindparam("stream"), event.c.version == sa.bindparam("version")
)
_READ = sa.select(event).where(event.c.position > sa.bindparam("b_after")).order_by(event.c.position)
_LIMIT: sa.BindParameter[int] = sa.bindparam("b_limit", type_=sa.Integer)
_READ_SOME = _READ.limit(_LIMIT)
_FOLLOWER = (checkpoint.c.name == sa.bindparam("b_name"), checkpoint.c.source == sa.bindparam("b_source"))
_CHECKPOINT = sa.select(checkpoint.c.position).where(*_FOLLOWER)
_MOVE_CHECKPOINT = sa.update(checkpoint).where(*_FOLLOWER).values(position=sa.bindparam("b_position"))
_NEW_CHECKPOINT = sa.insert(checkpoint)
_CONSUMED = sa.insert(consumption)
_TIME = sa.select(event.c.time).where(event.c.position == sa.bindparam("position"))


class ConflictError(Exception):
    """The stream has moved on since the caller read it."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"Stream {stream} is at version {actual}, not at {expected}")
        self.stream = stream
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True)
class Origin:
    """Who caused an event, and by what."""

    actor: str
    """The person or service on whose behalf it happened."""

    correlationid: str
    """What all events have in common that follow from one request."""

    causationid: str | None = None
    """The id of the event that caused it, where there is one."""

    traceparent: str | None = None
    """W3C Trace Context, section 3.2."""


@dataclass(frozen=True)
class Broken:
    """The first place where a log does not hold what was written."""

    position: int
    id: str | None
    problem: str


@dataclass(frozen=True)
class Consumption:
    """A run of events of another service, and where in our own log they were applied."""

    id: int
    source: str
    first: int
    last: int
    own_position: int


class Log:
    """The log of one service.

    Every method takes the connection of a transaction that the caller opened (`stoa_chassis.database.Database.write` or
    ``read``), so that events and the state they explain are committed together.

    Parameters
    ----------
    service
        The owner of the events.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.source = f"urn:stoa:{service}"
        self.appended = 0
        """How many events were appended through this object: who holds the writer lock sees by it whether any were."""

    def head(self, connection: sa.Connection) -> int:
        """Give the position of the last event, 0 in an empty log."""
        return int(connection.execute(_HEAD).scalar_one())

    def version(self, connection: sa.Connection, stream: str) -> int:
        """Give the version of a stream: the number of its events."""
        return int(connection.execute(_VERSION, {"stream": stream}).scalar_one())

    def append(
        self,
        connection: sa.Connection,
        stream: str,
        events: Sequence[Event],
        origin: Origin | Sequence[Origin],
        *,
        expected_version: int | None = None,
    ) -> list[Envelope]:
        """Append events to a stream.

        Parameters
        ----------
        connection
            Of a write transaction: it holds the writer lock, which is what makes positions gapless.
        stream
            The stream's id.
        events
            Facts, in their order.
        origin
            Who and why: of all events, or of each.
        expected_version
            The version at which the caller saw the stream.

        Returns
        -------
        list of Envelope
            The events as they stand in the log.

        Raises
        ------
        ConflictError
            If the stream is not at the expected version.
        """
        if not events:
            return []
        version = self.version(connection, stream)
        if expected_version is not None and version != expected_version:
            raise ConflictError(stream, expected_version, version)
        last = connection.execute(_LAST).first()
        position, chain = (last.position, last.chain) if last else (0, CHAIN_START)
        now = datetime.now(UTC)
        envelopes, rows = [], []
        origins = [origin] * len(events) if isinstance(origin, Origin) else origin
        for offset, (fact, cause) in enumerate(zip(events, origins, strict=True), start=1):
            envelope = Envelope(
                id=new_id(),
                source=self.source,
                type=fact.event_type.type,
                subject=stream,
                time=now,
                dataschema=fact.event_type.dataschema,
                position=str(position + offset),
                streamversion=version + offset,
                actor=cause.actor,
                correlationid=cause.correlationid,
                causationid=cause.causationid,
                traceparent=cause.traceparent,
                data=fact.model_dump(mode="json"),
            )
            data = canonical_json(envelope.data)
            chain = _link(chain, envelope.to_bytes(data))
            envelopes.append(envelope)
            rows.append(_to_row(envelope, data, chain))
        connection.execute(_INSERT, rows)
        self.appended += len(rows)
        return envelopes

    def read(
        self,
        connection: sa.Connection,
        *,
        after: int = 0,
        limit: int | None = None,
        stream: str | None = None,
        until: int | None = None,
    ) -> list[Envelope]:
        """Read events in the order of the log.

        Parameters
        ----------
        connection
            Of any transaction.
        after
            Only events beyond this position.
        limit
            At most so many.
        stream
            Only events of this stream.
        until
            Only events up to this position.
        """
        return [self._to_envelope(row) for row in self._rows(connection, after, limit, stream, until)]

    def read_written(
        self, connection: sa.Connection, *, after: int = 0, limit: int | None = None
    ) -> Iterator[tuple[Envelope, bytes]]:
        """Read events as they are sent: each without its data, and then the canonical bytes of all of it.

        The data are stored in their canonical form, so nobody has to read and write them for that.

        Parameters
        ----------
        connection
            Of any transaction.
        after
            Only events beyond this position.
        limit
            At most so many.
        """
        for row in self._rows(connection, after, limit):
            head = self._to_envelope(row, {})
            yield head, head.to_bytes(row.data.encode())

    @staticmethod
    def _rows(
        connection: sa.Connection, after: int, limit: int | None, stream: str | None = None, until: int | None = None
    ) -> sa.CursorResult[Any]:
        statement = _READ
        if stream is not None:
            statement = statement.where(event.c.stream == stream)
        if until is not None:
            statement = statement.where(event.c.position <= until)
        if limit is not None:
            statement = _READ_SOME if statement is _READ else statement.limit(_LIMIT)
        return connection.execute(statement, {"b_after": after, "b_limit": limit})

    def read_stream(
        self, connection: sa.Connection, stream: str, *, after: int = 0, until: int, limit: int | None = None
    ) -> list[Envelope]:
        """Read the events of one stream beyond a version and up to another, at a cost that other streams have no part in."""
        statement = (
            sa.select(event)
            .where(event.c.stream == stream, event.c.version > after, event.c.version <= until)
            .order_by(event.c.version)
            .limit(limit)
        )
        return [self._to_envelope(row) for row in connection.execute(statement)]

    def version_at(self, connection: sa.Connection, stream: str, position: int) -> int:
        """Give the version that a stream had when the log was at a position; 0 where it had not begun."""
        low, high = 0, self.version(connection, stream)
        while low < high:
            middle = (low + high + 1) // 2
            place = self.place(connection, stream, middle)
            if place is None or place[0] > position:
                high = middle - 1
            else:
                low = middle
        return low

    def place(self, connection: sa.Connection, stream: str, version: int) -> tuple[int, str] | None:
        """Give the position and the chain value of an event of a stream."""
        found = connection.execute(_PLACE, {"stream": stream, "version": version}).first()
        return None if found is None else (found.position, found.chain)

    def position_at(self, connection: sa.Connection, time: datetime) -> int:
        """Give the position of the last event that is not later than a time; 0 where all are later.

        Where the clock was set back meanwhile, it is one of several such positions.
        """
        low, high = 0, self.head(connection)
        while low < high:
            middle = (low + high + 1) // 2
            written = connection.execute(_TIME, {"position": middle}).scalar_one()
            if datetime.fromisoformat(written) > time:
                high = middle - 1
            else:
                low = middle
        return low

    def verify(self, connection: sa.Connection, *, batch: int = 1000) -> Iterator[Broken | int]:
        """Walk the chain.

        Yields
        ------
        int or Broken
            The position reached, after each batch; then, where the log does not hold what was written, the first such place.
        """
        position, chain, versions = 0, CHAIN_START, dict[str, int]()
        while True:
            statement = sa.select(event).where(event.c.position > position).order_by(event.c.position).limit(batch)
            rows = connection.execute(statement).all()
            for row in rows:
                problem = self._problem(row, position, chain, versions)
                if problem:
                    yield Broken(row.position, row.id, problem)
                    return
                position, chain = row.position, row.chain
                versions[row.stream] = row.version
            yield position
            if len(rows) < batch:
                return

    def _problem(self, row: Any, position: int, chain: str, versions: dict[str, int]) -> str | None:
        if row.position != position + 1:
            return f"positions {position + 1} to {row.position - 1} are missing"
        if row.version != versions.get(row.stream, 0) + 1:
            return f"stream {row.stream} goes from version {versions.get(row.stream, 0)} to {row.version}"
        try:
            content = self._to_envelope(row).to_bytes()
            if canonical_json(json.loads(row.data)).decode() != row.data:
                return "its data is not in the canonical form in which it was written"
        except ValueError as error:
            return f"it cannot be read: {str(error).splitlines()[0]}"
        if _link(chain, content) != row.chain:
            return "its content does not fit its chain value"
        return None

    def _to_envelope(self, row: Any, data: dict[str, Any] | None = None) -> Envelope:
        return Envelope(
            id=row.id,
            source=self.source,
            type=f"stoa.{self.service}.{row.type}",
            subject=row.stream,
            time=row.time,
            dataschema=f"urn:stoa:event:{self.service}:{row.type}:{row.schema_version}",
            position=str(row.position),
            streamversion=row.version,
            actor=row.actor,
            correlationid=row.correlationid,
            causationid=row.causationid,
            traceparent=row.traceparent,
            data=json.loads(row.data) if data is None else data,
        )

    def record_consumption(
        self,
        connection: sa.Connection,
        name: str,
        source: str,
        first: int,
        last: int,
        *,
        own_position: int | None = None,
    ) -> None:
        """Note that a follower applied a run of another service's events, in this transaction.

        ``own_position`` is our own head before they were applied; without it, it is the present one.
        """
        head = self.head(connection) if own_position is None else own_position
        consumed = {"name": name, "source": source, "first": first, "last": last, "own_position": head}
        connection.execute(_CONSUMED, consumed)

    def consumptions(
        self, connection: sa.Connection, name: str, *, after: int = 0, limit: int | None = None
    ) -> list[Consumption]:
        """List what a follower applied, in its order, beyond the consumption with the id ``after``."""
        statement = (
            sa.select(consumption)
            .where(consumption.c.name == name, consumption.c.id > after)
            .order_by(consumption.c.id)
            .limit(limit)
        )
        return [
            Consumption(row.id, row.source, row.first, row.last, row.own_position)
            for row in connection.execute(statement)
        ]


def read_checkpoint(connection: sa.Connection, name: str, source: str) -> int:
    """Give the position up to which a follower has applied a source's events."""
    return connection.execute(_CHECKPOINT, {"b_name": name, "b_source": source}).scalar_one_or_none() or 0


def write_checkpoint(connection: sa.Connection, name: str, source: str, position: int) -> None:
    """Note the position up to which a follower has applied a source's events, in the transaction that applied them."""
    known = {"b_name": name, "b_source": source, "b_position": position}
    if not connection.execute(_MOVE_CHECKPOINT, known).rowcount:
        connection.execute(_NEW_CHECKPOINT, {"name": name, "source": source, "position": position})


def _link(chain: str, content: bytes) -> str:
    return hashlib.sha256(chain.encode() + content).hexdigest()


def _to_row(envelope: Envelope, data: bytes, chain: str) -> dict[str, Any]:
    return {
        "position": envelope.log_position,
        "id": envelope.id,
        "stream": envelope.subject,
        "version": envelope.streamversion,
        "type": envelope.name,
        "schema_version": envelope.schema_version,
        "time": envelope.written_time,
        "actor": envelope.actor,
        "correlationid": envelope.correlationid,
        "causationid": envelope.causationid,
        "traceparent": envelope.traceparent,
        "data": data.decode(),
        "chain": chain,
    }


#: Statements that make the database itself refuse to change the log, by dialect; run by each service's first migration.
APPEND_ONLY: dict[str, list[str]] = {
    "sqlite": [
        f"CREATE TRIGGER event_refuses_{operation.lower()} BEFORE {operation} ON event "
        f"BEGIN SELECT RAISE(ABORT, 'the log is append-only: {operation} refused'); END"
        for operation in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        (
            "CREATE FUNCTION event_refuses() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the log is append-only: % refused', TG_OP; END $$"
        ),
        "CREATE TRIGGER event_refuses_change BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION event_refuses()",
        "CREATE TRIGGER event_refuses_truncate BEFORE TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION event_refuses()",
    ],
}
