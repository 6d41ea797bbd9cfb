"""What a command would do: it is carried out, looked at, and undone before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stoa_chassis.database import Database
from stoa_chassis.projection import EventStore
from stoa_contracts.events.tables import RowEdited, RowsAdded, RowsRemoved, RowsRestored
from stoa_tables.domain import Table
from stoa_tables.link_wire import ChangeLink
from stoa_tables.store import Store, chunks
from stoa_tables.wire import NewLink, RowEdit, RowId

__all__ = ["LinkChange", "LinkToGiveUp", "Preview", "PreviewRequest", "PreviewTable", "Rehearsal"]

_A = TypeVar("_A")

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


# --- what goes over HTTP -----------------------------------------------------------------------------------------------


class LinkChange(ChangeLink):
    """A change of a link that fills the table."""

    link: str = Field(max_length=100, description="The link's id.")


class LinkToGiveUp(BaseModel):
    """A link that is to be given up."""

    model_config = ConfigDict(extra="forbid")

    link: str = Field(max_length=100, description="The link's id.")
    rows: Literal["stay", "go"] = Field(description="Whether the rows that came through it stay, or are removed.")


class PreviewRequest(BaseModel):
    """What somebody thinks of doing to a table: one of these. A new workflow comes with its files, as multipart/form-data."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"edits": [{"row": 7, "values": {"sigma": 5}}]}, {"restore": "2"}]},
    )

    edits: list[RowEdit] | None = Field(default=None, min_length=1, description="Edits of rows.")
    remove: list[RowId] | None = Field(default=None, min_length=1, description="Rows to remove.")
    restore: str | None = Field(
        default=None, max_length=64, description="The workflow version to restore: its number, or its SHA-256."
    )
    link: NewLink | None = Field(default=None, description="A link that is to fill the table.")
    change_link: LinkChange | None = Field(default=None, description="What is to be otherwise in a link.")
    unlink: LinkToGiveUp | None = Field(default=None, description="A link that is to be given up.")

    @model_validator(mode="after")
    def _exactly_one(self) -> PreviewRequest:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            msg = f"give one of {names}, not {'none' if not given else ' and '.join(given)}"
            raise ValueError(msg)
        return self


class PreviewTable(BaseModel):
    """What would become of one table."""

    table: str
    name: str
    stale: int = Field(
        description="Rows that would have to be computed anew and do not have to now, new ones among them."
    )
    suspected: int = Field(
        description="Rows beyond those that would wait for what they depend on, and are computed only if that comes out otherwise."
    )
    current: int = Field(description="Rows that are stale now and would be current.")
    added: int
    removed: int
    edited: int = Field(description="Rows that would get other inputs.")
    seconds: float | None = Field(description="What computing the stale ones took last; null where nothing is known.")
    seconds_suspected: float | None = Field(
        description="Likewise for the suspected ones, if all of them were computed."
    )
    runs: int = Field(description="Rows on whose last runs the estimate rests.")
    basis: Literal["rows", "table"] | None = Field(
        description="Whether these were runs of the very rows, or only of others of the table."
    )


class Preview(BaseModel):
    """What a command would do. Nothing was changed."""

    position: int = Field(description="The head of the log of the tables service that this answer is about.")
    changes: bool = Field(description="Whether anything at all would change.")
    summary: str = Field(description="In a sentence or two for people.")
    tables: list[PreviewTable] = Field(description="Every table in which rows would change.")
    stale: int
    suspected: int
    added: int
    removed: int
    seconds: float = Field(
        description="Wall seconds of all stale rows, one after the other, as far as it is known; less where several run at once."
    )
    unknown: list[str] = Field(description="Names of the tables of whose runs nothing is known.")


# --- the rehearsal -----------------------------------------------------------------------------------------------------


@dataclass
class _Changes:
    """What events say happened to the rows of a table."""

    added: set[int] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    edited: set[int] = field(default_factory=set)


class Rehearsal:
    """Stands in for the database of a service: what it carries out is undone.

    Parameters
    ----------
    database
        The real one.
    events
        The log and the read model.

    Notes
    -----
    A rehearsal costs what the command costs, and holds the writer lock for as long: what others write waits for it. It is
    bounded as the commands are. On SQLite, 100,000 rows take a few seconds.
    """

    def __init__(self, database: Database, events: EventStore) -> None:
        self._database = database
        self._events = events
        self._preview: Preview | None = None

    @property
    def preview(self) -> Preview:
        """What the last command would do."""
        assert self._preview is not None, "a command has to be rehearsed first"  # noqa: S101 - an error of ours
        return self._preview

    async def read(self, function: Callable[[sa.Connection], _A]) -> _A:
        """Run a function in a read transaction."""
        return await self._database.read(function)

    async def write(self, function: Callable[[sa.Connection], _A]) -> _A:
        """Run a function in a write transaction and undo what it did."""

        def work(connection: sa.Connection) -> _A:
            head = self._events.log.head(connection)
            savepoint = connection.begin_nested()
            try:
                answer = function(connection)
                changes = self._changes(connection, head)
                after = {table: _stale(connection, self._events, table) for table in changes}
                names = {table: found for table in changes if (found := self._table(connection, table))}
            finally:
                savepoint.rollback()
            self._preview = _preview(connection, self._events, head, changes, after, names)
            return answer

        return await self._database.write(work)

    def _table(self, connection: sa.Connection, table: str) -> Table | None:
        return Store(connection, self._events.tables).table(table)

    def _changes(self, connection: sa.Connection, head: int) -> dict[str, _Changes]:
        found: dict[str, _Changes] = {}
        for envelope in self._events.log.read(connection, after=head):
            changes = found.setdefault(envelope.subject, _Changes())
            event = envelope.event()
            if isinstance(event, RowsAdded | RowsRestored):
                changes.added |= {row.row for row in event.rows}
            elif isinstance(event, RowsRemoved):
                removed = set(event.rows)
                # What came and went again was never there.
                changes.removed |= removed - changes.added
                changes.added -= removed
                changes.edited -= removed
            elif isinstance(event, RowEdited):
                changes.edited |= {row.row for row in event.rows} - changes.added
        return found


def _stale(connection: sa.Connection, events: EventStore, table: str) -> dict[int, bool]:
    """Give the stale rows of a table, and whether they are only suspected."""
    row = events.tables["row"]
    statement = sa.select(row.c.row, row.c.suspected).where(row.c.table_id == table, row.c.status == "stale")
    return {entry.row: bool(entry.suspected) for entry in connection.execute(statement)}


def _preview(
    connection: sa.Connection,
    events: EventStore,
    head: int,
    changes: Mapping[str, _Changes],
    after: Mapping[str, Mapping[int, bool]],
    tables: Mapping[str, Table],
) -> Preview:
    """Put together what would happen, once it is undone."""
    runs = _Runs(connection, events)
    shown: list[PreviewTable] = []
    for table, changed in changes.items():
        if table not in tables:
            continue
        before = _stale(connection, events, table)
        new = {row: suspected for row, suspected in after[table].items() if row not in before}
        # A row that waited and now has to be computed for sure counts, too.
        new |= {row: False for row, suspected in after[table].items() if not suspected and before.get(row)}
        stale = sorted(row for row, suspected in new.items() if not suspected)
        suspected = sorted(row for row, only in new.items() if only)
        estimate = runs.estimate(table, [*stale, *suspected]) if new else _Estimate(None, 0, None)
        shown.append(
            PreviewTable(
                table=table,
                name=tables[table].name,
                stale=len(stale),
                suspected=len(suspected),
                current=len(before.keys() - after[table].keys() - changed.removed),
                added=len(changed.added),
                removed=len(changed.removed),
                edited=len(changed.edited),
                seconds=estimate.times(len(stale)),
                seconds_suspected=estimate.times(len(suspected)),
                runs=estimate.runs,
                basis=estimate.basis,
            )
        )
    shown = [item for item in shown if item.stale or item.suspected or item.current or _has_other_rows(item)]
    return Preview(
        position=head,
        changes=bool(changes),
        summary=summary(shown, changes=bool(changes)),
        tables=shown,
        stale=sum(item.stale for item in shown),
        suspected=sum(item.suspected for item in shown),
        added=sum(item.added for item in shown),
        removed=sum(item.removed for item in shown),
        seconds=sum(item.seconds or 0.0 for item in shown),
        unknown=[item.name for item in shown if item.basis is None and (item.stale or item.suspected)],
    )


def _has_other_rows(item: PreviewTable) -> bool:
    return bool(item.added or item.removed or item.edited)


# --- how long it takes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Estimate:
    seconds: float | None
    """Of one run."""

    runs: int
    basis: Literal["rows", "table"] | None

    def times(self, rows: int) -> float | None:
        if not rows:
            return 0.0
        return None if self.seconds is None else self.seconds * rows


class _Runs:
    """How long the last runs took."""

    def __init__(self, connection: sa.Connection, events: EventStore) -> None:
        self._connection = connection
        self._row = events.tables["row"]

    def estimate(self, table: str, rows: Sequence[int]) -> _Estimate:
        """Estimate how long a run of some rows takes: as their last ones did, or the last ones of the table."""
        number, total = 0, 0.0
        for some in chunks(rows):
            runs, seconds = self._seconds(table, self._row.c.row.in_(some))
            number, total = number + runs, total + seconds
        if number:
            return _Estimate(total / number, number, "rows")
        number, total = self._seconds(table)
        return _Estimate(total / number, number, "table") if number else _Estimate(None, 0, None)

    def _seconds(self, table: str, *where: sa.ColumnElement[bool]) -> tuple[int, float]:
        # What was taken over from another job says nothing about how long it takes to make it, and does not stand there.
        wall_s = self._row.c.outputs_wall_s
        statement = sa.select(sa.func.count(wall_s), sa.func.sum(wall_s)).where(self._row.c.table_id == table, *where)
        number, total = self._connection.execute(statement).one()
        return number, total or 0.0


# --- for people --------------------------------------------------------------------------------------------------------


def summary(tables: Sequence[PreviewTable], *, changes: bool) -> str:
    """Say in a sentence or two what would happen.

    Parameters
    ----------
    tables
        Every table in which rows would change.
    changes
        Whether anything at all would change.
    """
    if not changes:
        return "Nothing would change."
    sentences = []
    if stale := [item for item in tables if item.stale]:
        sentences.append(f"{_counted(stale, 'stale')} would have to be computed anew{_duration_of(stale)}.")
    if suspected := [item for item in tables if item.suspected]:
        sentences.append(
            f"{_counted(suspected, 'suspected')} would wait for what they depend on, and be computed only if that comes out"
            " otherwise."
        )
    if current := [item for item in tables if item.current]:
        sentences.append(f"{_counted(current, 'current')} would be current without a run.")
    if removed := [item for item in tables if item.removed]:
        sentences.append(f"{_counted(removed, 'removed')} would be removed.")
    unknown = [item.name for item in tables if item.basis is None and (item.stale or item.suspected)]
    if unknown:
        sentences.append(f"Nothing is known of how long a run of {_listed(unknown)} takes.")
    return " ".join(sentences) or "No row would become stale."


def _counted(tables: Iterable[PreviewTable], what: str) -> str:
    return _listed([_rows(getattr(item, what), item.name) for item in tables])


def _rows(number: int, table: str) -> str:
    return f"{number:,} row{'' if number == 1 else 's'} of {table}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _duration_of(tables: Sequence[PreviewTable]) -> str:
    known = [item.seconds for item in tables if item.seconds is not None]
    if not known:
        return ""
    at_least = "at least " if len(known) < len(tables) else "about "
    return f", {at_least}{duration(sum(known))} one after the other"


def duration(seconds: float) -> str:
    """Say a time as people do, in its two largest units."""
    if seconds < _MINUTE_S:
        return f"{seconds:.2g} s"
    units = [(_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s")]
    left = round(seconds)
    words: list[str] = []
    for size, unit in units:
        number, left = divmod(left, size)
        if number or words:
            words.append(f"{number} {unit}")
        if len(words) == 2:  # noqa: PLR2004 - two units tell enough
            break
    return " ".join(word for word in words if not word.startswith("0 "))
