"""Evolve: computes the read model from the events of the tables service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import tables as events
from stoa_contracts.types import Derivation, LinkSpecification
from stoa_tables.derivation import join_key, side_columns
from stoa_tables.domain import Row, items
from stoa_tables.elements import split
from stoa_tables.models import NO_ELEMENT, read_model
from stoa_tables.store import Store, chunks

__all__ = ["TablesProjection"]


class TablesProjection:
    """The tables, their rows and their links, as the log says.

    Only our own log counts: what other services tell becomes an event of ours first (`stoa_tables.policy`).
    """

    name = "tables"
    metadata: sa.MetaData = read_model

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event."""
        if envelope.service != "tables":
            return
        event = envelope.event()
        evolve = _EVOLVE.get(type(event))
        if evolve is not None:
            evolve(_Evolution(connection, tables, envelope), event)


class _Evolution:
    """One event on its way into the read model."""

    def __init__(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        self.connection = connection
        self.tables = tables
        self.envelope = envelope
        self.table = envelope.subject
        self.position = envelope.log_position
        self.store = Store(connection, tables)

    def insert(self, table: str, values: Sequence[Mapping[str, Any]]) -> None:
        if values:
            self.connection.execute(sa.insert(self.tables[table]), values)

    def update_table(self, **values: Any) -> None:
        worktable = self.tables["worktable"]
        self.connection.execute(sa.update(worktable).where(worktable.c.id == self.table).values(**values))

    def update_row(self, row: int, values: Mapping[str, Any]) -> None:
        item = self.tables["row"]
        self.connection.execute(sa.update(item).where(item.c.table_id == self.table, item.c.row == row).values(values))

    def update_rows(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Update many rows alike; each change names its row as ``row_``."""
        if not changes:
            return
        item = self.tables["row"]
        names = [name for name in changes[0] if name != "row_"]
        statement = (
            sa.update(item)
            .where(item.c.table_id == self.table, item.c.row == sa.bindparam("row_"))
            .values({name: sa.bindparam(f"{name}_", type_=item.c[name].type) for name in names})
        )
        values = [{"row_": change["row_"], **{f"{name}_": change[name] for name in names}} for change in changes]
        self.connection.execute(statement, values)

    def delete_rows(self, table: str, rows: Iterable[int]) -> None:
        item = self.tables[table]
        for some in chunks(sorted(rows)):
            self.connection.execute(sa.delete(item).where(item.c.table_id == self.table, item.c.row.in_(some)))

    def delete_all(self, *names: str) -> None:
        for name in names:
            item = self.tables[name]
            self.connection.execute(sa.delete(item).where(item.c.table_id == self.table))

    def count(self, before: Iterable[str], after: Iterable[str]) -> None:
        change = Counter(after)
        change.subtract(before)
        item = self.tables["status_count"]
        for status, n in change.items():
            if n == 0:
                continue
            where = (item.c.table_id == self.table, item.c.status == status)
            if not self.connection.execute(sa.update(item).where(*where).values(n=item.c.n + n)).rowcount:
                self.insert("status_count", [{"table_id": self.table, "status": status, "n": n}])

    def remember(self, rows: Iterable[int], job: str | None = None) -> None:
        """Note that the event belongs to the history of rows; 0 stands for all rows."""
        entries = [{"table_id": self.table, "row": row, "position": self.position, "job": job} for row in rows]
        self.insert("row_event", entries)

    def index_for_joins(
        self, rows: Sequence[int], *, known: Mapping[int, Row] | None = None, fresh: bool = False
    ) -> None:
        """Keep the index of the joins that this table feeds."""
        link, parent = self.tables["link"], self.tables["link_parent"]
        statement = (
            sa.select(link.c.specification, parent.c.side)
            .join_from(parent, link, parent.c.link == link.c.link)
            .where(parent.c.table_id == self.table, link.c.kind != "keyed")
            .order_by(link.c.link, parent.c.side)
        )
        sides = [
            (LinkSpecification.model_validate(item.specification), item.side)
            for item in self.connection.execute(statement)
        ]
        if sides:
            found = self.store.rows(self.table, rows) if known is None else known
            for specification, side in sides:
                self.index_side(specification, side, self.table, rows, found, fresh=fresh)

    def index_side(
        self,
        link: LinkSpecification,
        side: int,
        table: str,
        rows: Sequence[int],
        known: Mapping[int, Row],
        *,
        fresh: bool,
    ) -> None:
        index = self.tables["join_index"]
        if not fresh:
            for some in chunks(rows):
                where = (index.c.link == link.link, index.c.side == side, index.c.row.in_(some))
                self.connection.execute(sa.delete(index).where(*where))
        parent = self.store.table(table)
        if parent is None:
            return
        names = side_columns(link, side)
        entries = []
        for row in known.values():
            for item in items(row, parent.columns, per="element"):
                if (key := join_key(item.values, names)) is not None:
                    number = NO_ELEMENT if item.source.element is None else item.source.element
                    entries.append({"link": link.link, "side": side, "row": row.row, "element": number, "key": key})
        self.insert("join_index", entries)


def _derivation(derived: Derivation | None) -> dict[str, Any]:
    if derived is None:
        return dict.fromkeys(("link", "key", "left_row", "left_element", "right_row", "right_element"))
    left = derived.sources[0]
    right = derived.sources[1] if len(derived.sources) > 1 else None
    return {
        "link": derived.link,
        "key": derived.key,
        "left_row": left.row,
        "left_element": left.element,
        "right_row": right.row if right else None,
        "right_element": right.element if right else None,
    }


def _table_created(evolution: _Evolution, event: events.TableCreated) -> None:
    values = {
        "id": event.table,
        "name": event.name,
        "folded_name": event.name.casefold(),
        "kind": event.kind,
        "owner": event.owner,
        "project": event.project,
        "description": event.description,
        "columns": [column.model_dump(mode="json") for column in event.columns],
        "workflow_version": None,
        "next_row": 1,
        "created": evolution.envelope.model_dump(mode="json", include={"time"})["time"],
        "deleted": False,
    }
    evolution.insert("worktable", [values])


def _workflow_changed(evolution: _Evolution, event: events.WorkflowChanged) -> None:
    version = evolution.tables["workflow_version"]
    known = evolution.connection.execute(
        sa.select(version.c.version).where(version.c.version == event.workflow_version)
    )
    if known.first() is None:
        values = {
            "version": event.workflow_version,
            "main": event.main,
            "process_class": event.process_class,
            "files": [file.model_dump(mode="json") for file in event.files],
            "label": event.label,
            "description": event.description,
        }
        evolution.insert("workflow_version", [values])
    columns = [column.model_dump(mode="json") for column in event.columns]
    evolution.update_table(columns=columns, workflow_version=event.workflow_version)
    evolution.remember([0])
    row, count = evolution.tables["row"], evolution.tables["status_count"]
    belongs = sa.and_(row.c.outputs_version == event.workflow_version, row.c.outputs_revision == row.c.revision)
    status = sa.case((belongs, "current"), else_="stale")
    evolution.connection.execute(sa.update(row).where(row.c.table_id == event.table).values(status=status, reason=None))
    evolution.delete_all("status_count")
    counted = (
        sa.select(row.c.table_id, row.c.status, sa.func.count())
        .where(row.c.table_id == event.table)
        .group_by(row.c.table_id, row.c.status)
    )
    evolution.connection.execute(sa.insert(count).from_select(["table_id", "status", "n"], counted))


def _rows_added(evolution: _Evolution, event: events.RowsAdded) -> None:
    worktable = evolution.tables["worktable"]
    kind = evolution.connection.execute(sa.select(worktable.c.kind).where(worktable.c.id == event.table)).scalar_one()
    status = "stale" if kind == "worktable" else "current"
    values = [
        {
            "table_id": event.table,
            "row": row.row,
            "revision": 1,
            "status": status,
            "inputs": row.inputs,
            **_derivation(row.derived_from),
        }
        for row in event.rows
    ]
    evolution.insert("row", values)
    rows = [row.row for row in event.rows]
    evolution.count([], [status] * len(rows))
    evolution.remember(rows)
    evolution.update_table(next_row=max(rows) + 1)
    known = {
        row.row: Row(row=row.row, revision=1, status="current" if status == "current" else "stale", inputs=row.inputs)
        for row in event.rows
    }
    evolution.index_for_joins(rows, known=known, fresh=True)


def _row_edited(evolution: _Evolution, event: events.RowEdited) -> None:
    known = evolution.store.rows(event.table, [edit.row for edit in event.rows])
    mapped: dict[str, set[str]] = {}
    if event.cause is None and any(row.link for row in known.values()):
        mapped = {link.link: set(link.mapping) for link in evolution.store.links_of(event.table)}
    who = {"by": evolution.envelope.actor, "position": evolution.position}
    changes, after = [], []
    for edit in event.rows:
        row = known[edit.row]
        status = "current" if row.status == "current" and row.outputs is None else "stale"
        corrections = mapped.get(row.link or "", set()) & edit.changes.keys()
        change = {
            "row_": edit.row,
            "revision": edit.revision,
            "inputs": {**row.inputs, **edit.changes},
            "status": status,
            "reason": None,
            "corrected": {**row.corrected, **dict.fromkeys(sorted(corrections), who)} or None,
        }
        changes.append(change)
        after.append(status)
    evolution.update_rows(changes)
    evolution.count([row.status for row in known.values()], after)
    rows = list(known)
    evolution.remember(rows)
    evolution.index_for_joins(rows)


def _rows_removed(evolution: _Evolution, event: events.RowsRemoved) -> None:
    statuses = evolution.store.statuses(event.table, event.rows)
    evolution.delete_rows("row", event.rows)
    evolution.delete_rows("element", event.rows)
    evolution.count(statuses.values(), [])
    evolution.remember(event.rows)
    evolution.index_for_joins(event.rows)


def _sources_moved(evolution: _Evolution, event: events.SourcesMoved) -> None:
    evolution.update_rows([{"row_": row.row, **_derivation(row.derived_from)} for row in event.rows])


def _outputs_recorded(evolution: _Evolution, event: events.OutputsRecorded) -> None:
    evolution.remember([event.row], event.job)
    table = evolution.store.table(event.table)
    row = evolution.store.row(event.table, event.row)
    if (
        table is None
        or row is None
        or row.revision != event.revision
        or table.workflow_version != event.workflow_version
    ):
        return
    newest = row.job is None or event.job >= row.job
    values = {
        "status": "current",
        "reason": None,
        "outputs": event.outputs,
        "elements": event.elements,
        "outputs_revision": event.revision,
        "outputs_version": event.workflow_version,
        "outputs_job": event.job,
        "job": event.job if newest else row.job,
        "attempt": event.attempt if newest else row.attempt,
    }
    evolution.update_row(event.row, values)
    evolution.count([row.status], ["current"])
    if not event.differs:
        return
    if row.elements:
        evolution.delete_rows("element", [event.row])
    if event.elements:
        entries = [
            {"table_id": event.table, "row": event.row, "element": number, "outputs": outputs}
            for number, outputs in enumerate(split(event.outputs, table.columns)[1] or ())
        ]
        evolution.insert("element", entries)
    evolution.index_for_joins([event.row])


def _row_status_changed(evolution: _Evolution, event: events.RowStatusChanged) -> None:
    rows = [change.row for change in event.changes]
    before = evolution.store.statuses(event.table, rows)
    changes = [
        {
            "row_": change.row,
            "status": change.status,
            "reason": change.reason,
            "job": change.job,
            "attempt": change.attempt,
        }
        for change in event.changes
    ]
    with_job = [change for change in changes if change["job"] is not None]
    without_job = [
        {name: value for name, value in change.items() if name not in {"job", "attempt"}}
        for change in changes
        if change["job"] is None
    ]
    evolution.update_rows(with_job)
    evolution.update_rows(without_job)
    evolution.count(before.values(), [change.status for change in event.changes])
    evolution.remember(sorted(set(rows)))


def _column_described(evolution: _Evolution, event: events.ColumnDescribed) -> None:
    table = evolution.store.table(event.table)
    if table is not None:
        columns = [event.column if column.name == event.column.name else column for column in table.columns]
        evolution.update_table(columns=[column.model_dump(mode="json") for column in columns])


def _table_linked(evolution: _Evolution, event: events.TableLinked) -> None:
    link = event.link
    values = {
        "link": link.link,
        "table_id": event.table,
        "kind": link.kind,
        "specification": link.model_dump(mode="json"),
    }
    evolution.insert("link", [values])
    parents = [{"link": link.link, "side": side, "table_id": parent} for side, parent in enumerate(link.parents)]
    evolution.insert("link_parent", parents)
    if link.kind == "keyed":
        return
    for side, parent in enumerate(link.parents):
        for rows in chunks(evolution.store.row_ids(parent)):
            evolution.index_side(link, side, parent, rows, evolution.store.rows(parent, rows), fresh=True)


def _table_renamed(evolution: _Evolution, event: events.TableRenamed) -> None:
    evolution.update_table(name=event.name, folded_name=event.name.casefold(), description=event.description)


def _table_deleted(evolution: _Evolution, event: events.TableDeleted) -> None:
    link, parent, index = evolution.tables["link"], evolution.tables["link_parent"], evolution.tables["join_index"]
    mine = sa.select(link.c.link).where(link.c.table_id == event.table)
    evolution.connection.execute(sa.delete(index).where(index.c.link.in_(mine)))
    evolution.connection.execute(sa.delete(parent).where(parent.c.link.in_(mine)))
    evolution.delete_all("link", "element", "row", "status_count")
    evolution.update_table(deleted=True)


_EVOLVE: dict[type, Callable[[_Evolution, Any], None]] = {
    events.TableCreated: _table_created,
    events.WorkflowChanged: _workflow_changed,
    events.RowsAdded: _rows_added,
    events.RowEdited: _row_edited,
    events.RowsRemoved: _rows_removed,
    events.SourcesMoved: _sources_moved,
    events.OutputsRecorded: _outputs_recorded,
    events.RowStatusChanged: _row_status_changed,
    events.ColumnDescribed: _column_described,
    events.TableLinked: _table_linked,
    events.TableRenamed: _table_renamed,
    events.TableDeleted: _table_deleted,
}
