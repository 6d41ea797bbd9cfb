"""Evolve: computes the read model from the events of the tables service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import sqlalchemy as sa

from stoa_chassis.bulk import insert_many
from stoa_chassis.projection import ReadModel
from stoa_contracts.canonical import digest
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import tables as events
from stoa_contracts.keys import inputs_digest, job_inputs
from stoa_contracts.types import Derivation, LinkSpecification, RowStatus
from stoa_tables import content_projection, corrections
from stoa_tables.derivation import join_key, side_columns
from stoa_tables.domain import Table, items
from stoa_tables.elements import split
from stoa_tables.marks_projection import MARKS, forget_marks
from stoa_tables.models import NO_ELEMENT, read_model
from stoa_tables.store import Store, belongs, chunks
from stoa_tables.undo_projection import (
    StepBook,
    corrections_restored,
    forget_steps,
    keep_removed,
    rows_restored,
    touched,
)
from stoa_tables.version_projection import remember_version
from stoa_tables.worktable_file_projection import outputs_imported

__all__ = ["TablesProjection"]


#: So many events at most are looked at together for the rows that they are about.
_LOOK_AHEAD = 2000

#: What an event is about that is gathered.
_ROWS_OF: dict[str, Callable[[dict[str, Any]], list[int]]] = {
    "outputs-recorded": lambda data: [data["row"]],
    "row-edited": lambda data: [each["row"] for each in data["rows"]],
    "row-status-changed": lambda data: [each["row"] for each in data["changes"]],
}

#: More rows than these are inserted without the comfort of SQLAlchemy.
_MANY = 100


class TablesProjection:
    """The tables, their rows and their links, as the log says.

    Only our own log counts: what other services tell becomes an event of ours first (`stoa_tables.policy`).
    """

    name = "tables"
    metadata: sa.MetaData = read_model
    version = 1

    def apply(self, connection: sa.Connection, tables: ReadModel, envelope: Envelope) -> None:
        """Change the read model by one event."""
        self.apply_all(connection, tables, [envelope])

    def apply_all(self, connection: sa.Connection, tables: ReadModel, envelopes: Sequence[Envelope]) -> None:
        """Change the read model by events in their order."""
        batch = Batch(connection, tables)
        batch.look_ahead(envelopes)
        for envelope in envelopes:
            if envelope.service == "tables":
                batch.apply(envelope)
        batch.flush()


@dataclass(slots=True)
class _State:
    """What most events need to know of a row."""

    revision: int
    status: str
    job: str | None
    attempt: int | None
    elements: int | None
    suspected: bool
    pinned: str | None
    has_files: bool


@dataclass(slots=True)
class _Inputs:
    """What an edit needs to know of a row."""

    values: dict[str, Any]
    corrected: Mapping[str, Any]
    link: str | None


class _Statements:
    """Built once: building a statement costs more than running it."""

    def __init__(self, tables: ReadModel) -> None:
        row, element, event = tables["row"], tables["element"], tables["row_event"]
        count, link, parent = tables["status_count"], tables["link"], tables["link_parent"]
        mine = sa.and_(row.c.table_id == sa.bindparam("table_"), row.c.row == sa.bindparam("row_"))
        self.insert = {name: sa.insert(table) for name, table in tables.items()}
        self.states = sa.select(
            row.c.row,
            row.c.revision,
            row.c.status,
            row.c.job,
            row.c.attempt,
            row.c.elements,
            row.c.suspected,
            row.c.pinned,
            row.c.outputs_files.is_not(None).label("has_files"),
        ).where(row.c.table_id == sa.bindparam("table"), row.c.row.in_(sa.bindparam("rows", expanding=True)))

        def update(*names: str) -> sa.Update:
            values = {name: sa.bindparam(f"{name}_", type_=row.c[name].type) for name in names}
            return sa.update(row).where(mine).values(values)

        self.status = update("status", "reason")
        self.job_status = update("status", "reason", "job", "attempt")
        self.suspicion = update("status", "suspected")
        outputs = (
            "status",
            "reason",
            "outputs",
            "elements",
            "outputs_revision",
            "outputs_version",
            "outputs_job",
            "outputs_inputs",
            "outputs_key",
            "outputs_files",
            "files_changed",
            "accepted_revision",
            "job",
            "attempt",
        )
        self.outputs = update(*outputs, "outputs_wall_s")
        self.reused_outputs = update(*outputs)
        self.accepted = update("status", "reason", "accepted_revision", "accepted_version")
        self.edit = update("revision", "inputs", "status", "reason", "corrected", "review", "accepted_revision")
        self.corrected = update("corrected", "review")
        self.restored = update("outputs_revision")
        self.derivation = update("link", "key", "left_row", "left_element", "right_row", "right_element")
        self.count = (
            sa.update(count)
            .where(count.c.table_id == sa.bindparam("table_"), count.c.status == sa.bindparam("status_"))
            .values(n=count.c.n + sa.bindparam("change"))
        )
        file = tables["row_file"]
        self.delete_files = sa.delete(file).where(
            file.c.table_id == sa.bindparam("table_"), file.c.row == sa.bindparam("row_")
        )
        self.delete_elements = sa.delete(element).where(
            element.c.table_id == sa.bindparam("table_"), element.c.row == sa.bindparam("row_")
        )
        self.joins = (
            sa.select(link.c.specification, parent.c.side)
            .join_from(parent, link, parent.c.link == link.c.link)
            .where(parent.c.table_id == sa.bindparam("table"), link.c.kind != "keyed")
            .order_by(link.c.link, parent.c.side)
        )
        self.remember = sa.insert(event)
        step = tables["edit_step"]
        self.newest_step = (
            sa.select(step)
            .where(step.c.table_id == sa.bindparam("table"), step.c.actor == sa.bindparam("actor"))
            .order_by(step.c.position.desc())
            .limit(1)
        )
        self.grow_step = (
            sa.update(step)
            .where(step.c.table_id == sa.bindparam("table_id_"), step.c.position == sa.bindparam("position_"))
            .values({name: sa.bindparam(f"{name}_", type_=step.c[name].type) for name in ("last", "rows", "kind")})
        )


@lru_cache(maxsize=8)
def _statements(row: sa.Table) -> _Statements:
    # The shadows of a rebuild differ from the tables that serve in a prefix of their names.
    prefix = row.name.removesuffix("row")
    return _Statements({name.removeprefix(prefix): table for name, table in row.metadata.tables.items()})


class Batch:
    """Events on their way into the read model.

    The frequent events, those of jobs and editors, are gathered and written together; the others write what was gathered first and
    then go their own way.
    """

    def __init__(self, connection: sa.Connection, tables: ReadModel) -> None:
        self.connection = connection
        self.tables = tables
        self.store = Store(connection, tables)
        self.statements = _statements(tables["row"])
        self._tables: dict[str, Table | None] = {}
        self._states: dict[tuple[str, int], _State | None] = {}
        self._inputs: dict[tuple[str, int], _Inputs] = {}
        self._mapped: dict[str, dict[str, set[str]]] = {}
        self._updates: list[tuple[sa.Update, list[dict[str, Any]]]] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._events: list[dict[str, Any]] = []
        self._gone_elements: list[dict[str, Any]] = []
        self._new_elements: list[dict[str, Any]] = []
        self._gone_files: list[dict[str, Any]] = []
        self._new_files: list[dict[str, Any]] = []
        self._joined: dict[str, set[int]] = {}
        self.steps = StepBook(self)

    def apply(self, envelope: Envelope) -> None:
        """Take one event."""
        self.envelope = envelope
        self.table = envelope.subject
        self.position = envelope.log_position
        event = envelope.event()
        gather = _GATHER.get(type(event))
        if gather is not None:
            gather(self, event)
            return
        evolve = _EVOLVE.get(type(event))
        if evolve is not None:
            self.flush()
            evolve(self, event)
            self.forget()

    def forget(self) -> None:
        """Write what was gathered, and what was known of tables and rows may be wrong from now on."""
        self.flush()
        for known in (self._tables, self._states, self._inputs, self._mapped):
            known.clear()
        self.steps.forget()

    def look_ahead(self, envelopes: Sequence[Envelope]) -> None:
        """Fetch together the rows of which the events need to know something: one by one takes several times as long."""
        if len(envelopes) == 1:
            return
        states: dict[str, set[int]] = {}
        inputs: dict[str, set[int]] = {}
        for envelope in envelopes[:_LOOK_AHEAD]:
            if envelope.service != "tables" or envelope.name not in _ROWS_OF:
                continue
            rows = _ROWS_OF[envelope.name](envelope.data)
            if len(rows) < _MANY:
                states.setdefault(envelope.subject, set()).update(rows)
                if envelope.name == "row-edited":
                    inputs.setdefault(envelope.subject, set()).update(rows)
        for table, numbers in states.items():
            self.states(table, numbers)
        for table, numbers in inputs.items():
            self._read_inputs(table, numbers)

    # --- what is gathered ---

    def known_table(self, table: str) -> Table | None:
        if table not in self._tables:
            self._tables[table] = self.store.table(table)
        return self._tables[table]

    def states(self, table: str, rows: Iterable[int]) -> dict[int, _State]:
        """Give what is known of rows, with what this batch did to them."""
        missing = sorted({row for row in rows if (table, row) not in self._states})
        for some in chunks(missing):
            self._states |= dict.fromkeys(((table, row) for row in some), None)
            found = self.connection.execute(self.statements.states, {"table": table, "rows": some})
            for entry in found:
                self._states[table, entry.row] = _State(
                    entry.revision,
                    entry.status,
                    entry.job,
                    entry.attempt,
                    entry.elements,
                    entry.suspected,
                    entry.pinned,
                    entry.has_files,
                )
        known = {row: self._states[table, row] for row in rows}
        return {row: state for row, state in known.items() if state is not None}

    def inputs(self, table: str, rows: Iterable[int]) -> dict[int, _Inputs]:
        """Give the inputs of rows, with what this batch did to them."""
        self._read_inputs(table, [row for row in rows if (table, row) not in self._inputs])
        return {row: self._inputs[table, row] for row in rows}

    def _read_inputs(self, table: str, rows: Iterable[int]) -> None:
        for entry in self.store.inputs(table, rows):
            self._inputs[table, entry.row] = _Inputs(entry.inputs, entry.corrected or {}, entry.link)

    def digest_of_inputs(self, event: events.OutputsRecorded, table: Table) -> str:
        """Name the inputs from which outputs were made that belong to their row."""
        if event.key is not None:
            return event.key.inputs
        values = self.inputs(event.table, [event.row])[event.row].values
        return inputs_digest(job_inputs((column for column in table.columns if column.role == "input"), values))

    def mapped(self, table: str, link: str) -> set[str]:
        """Name the columns that a link fills."""
        if table not in self._mapped:
            self._mapped[table] = {found.link: set(found.mapping) for found in self.store.links_of(table)}
        return self._mapped[table].get(link, set())

    def update(self, statement: sa.Update, row: int, **values: Any) -> None:
        change = {"table_": self.table, "row_": row, **{f"{name}_": value for name, value in values.items()}}
        if self._updates and self._updates[-1][0] is statement:
            self._updates[-1][1].append(change)
        else:
            self._updates.append((statement, [change]))

    def count(self, before: Iterable[str], after: Iterable[str]) -> None:
        for status in before:
            self._counts[self.table, status] -= 1
        for status in after:
            self._counts[self.table, status] += 1

    def count_anew(self) -> None:
        """Count the rows of the event's table, of which a statement changed many."""
        row, count = self.tables["row"], self.tables["status_count"]
        number = sa.select(sa.func.count()).where(row.c.table_id == self.table, row.c.status == count.c.status)
        mine = sa.update(count).where(count.c.table_id == self.table)
        self.connection.execute(mine.values(n=number.scalar_subquery()))

    def remember(self, rows: Iterable[int], job: str | None = None) -> None:
        """Note that the event belongs to the history of rows; 0 stands for all rows."""
        self._events += [{"table_id": self.table, "row": row, "position": self.position, "job": job} for row in rows]

    def replace_elements(self, row: int, elements: Sequence[Mapping[str, Any]], *, had: bool) -> None:
        new = self._new_elements
        if had:
            self._gone_elements.append({"table_": self.table, "row_": row})
            self._new_elements = new = [
                entry for entry in new if (entry["table_id"], entry["row"]) != (self.table, row)
            ]
        new += [
            {"table_id": self.table, "row": row, "element": number, "outputs": outputs}
            for number, outputs in enumerate(elements)
        ]

    def replace_files(self, row: int, files: Mapping[str, str], *, had: bool) -> None:
        if had:
            self._gone_files.append({"table_": self.table, "row_": row})
            self._new_files = [
                entry for entry in self._new_files if (entry["table_id"], entry["row"]) != (self.table, row)
            ]
        self._new_files += [
            {"table_id": self.table, "row": row, "place": digest(location), "location": location, "sha256": sha256}
            for location, sha256 in files.items()
        ]

    def index_for_joins(self, rows: Iterable[int]) -> None:
        """Note that rows have other values for the joins that their table feeds."""
        self._joined.setdefault(self.table, set()).update(rows)

    def flush(self) -> None:
        """Write what was gathered."""
        for statement, changes in self._updates:
            self.connection.execute(statement, changes)
        if self._gone_elements:
            self.connection.execute(self.statements.delete_elements, self._gone_elements)
        self.insert("element", self._new_elements)
        if self._gone_files:
            self.connection.execute(self.statements.delete_files, self._gone_files)
        self.insert("row_file", self._new_files)
        counts = [
            {"table_": table, "status_": status, "change": change}
            for (table, status), change in self._counts.items()
            if change
        ]
        if counts:
            self.connection.execute(self.statements.count, counts)
        self.insert("row_event", self._events)
        self.steps.flush()
        joined, self._joined = self._joined, {}
        self._updates, self._gone_elements, self._new_elements, self._events = [], [], [], []
        self._gone_files, self._new_files = [], []
        self._counts.clear()
        for table, rows in joined.items():
            self._index(table, sorted(rows))

    def _index(self, table: str, rows: Sequence[int]) -> None:
        found = self.connection.execute(self.statements.joins, {"table": table})
        sides = [(LinkSpecification.model_validate(item.specification), item.side) for item in found]
        for specification, side in sides:
            for some in chunks(rows):
                self.index_side(specification, side, table, some, fresh=False)

    def index_side(self, link: LinkSpecification, side: int, table: str, rows: Sequence[int], *, fresh: bool) -> None:
        """Write the index of one side of a join anew for some rows."""
        index = self.tables["join_index"]
        if not fresh:
            where = (index.c.link == link.link, index.c.side == side, index.c.row.in_(rows))
            self.connection.execute(sa.delete(index).where(*where))
        parent = self.store.table(table)
        if parent is None:
            return
        names = side_columns(link, side)
        entries = []
        for row in self.store.rows(table, rows).values():
            for item in items(row, parent.columns, per="element"):
                if (key := join_key(item.values, names)) is not None:
                    number = NO_ELEMENT if item.source.element is None else item.source.element
                    entries.append({"link": link.link, "side": side, "row": row.row, "element": number, "key": key})
        self.insert("join_index", entries)

    # --- what is written at once ---

    def insert(self, table: str, values: Sequence[Mapping[str, Any]]) -> None:
        if len(values) > _MANY:
            insert_many(self.connection, self.statements.insert[table], values)
        elif values:
            self.connection.execute(self.statements.insert[table], values)

    def update_table(self, **values: Any) -> None:
        worktable = self.tables["worktable"]
        self.connection.execute(sa.update(worktable).where(worktable.c.id == self.table).values(**values))

    def delete_rows(self, table: str, rows: Iterable[int]) -> None:
        item = self.tables[table]
        for some in chunks(sorted(rows)):
            self.connection.execute(sa.delete(item).where(item.c.table_id == self.table, item.c.row.in_(some)))

    def delete_all(self, *names: str) -> None:
        for name in names:
            item = self.tables[name]
            self.connection.execute(sa.delete(item).where(item.c.table_id == self.table))


# --- gathered: what jobs and editors do --------------------------------------------------------------------------------------------


def _row_status_changed(batch: Batch, event: events.RowStatusChanged) -> None:
    states = batch.states(event.table, [change.row for change in event.changes])
    for change in event.changes:
        state = states.get(change.row)
        if state is None:
            continue
        batch.count([state.status], [change.status])
        state.status = change.status
        if change.job is None:
            batch.update(batch.statements.status, change.row, status=change.status, reason=change.reason)
            continue
        state.job, state.attempt = change.job, change.attempt
        batch.update(
            batch.statements.job_status,
            change.row,
            status=change.status,
            reason=change.reason,
            job=change.job,
            attempt=change.attempt,
        )
    batch.remember(sorted({change.row for change in event.changes}))


def _outputs_recorded(batch: Batch, event: events.OutputsRecorded) -> None:
    batch.remember([event.row], event.job)
    table = batch.known_table(event.table)
    state = batch.states(event.table, [event.row]).get(event.row)
    if table is None or state is None:
        return
    own = state.pinned or table.workflow_version
    present = state.revision == event.revision and own == event.workflow_version
    if not (present if event.belongs is None else event.belongs):
        return
    if state.job is None or event.job >= state.job:
        state.job, state.attempt = event.job, event.attempt
    status = "stale" if state.suspected else "current"
    batch.count([state.status], [status])
    state.status = status
    files = {file.location: file.sha256 for file in event.files}
    wall_s = {"outputs_wall_s": event.usage.wall_s} if event.reused_from is None else {}
    batch.update(
        batch.statements.outputs if wall_s else batch.statements.reused_outputs,
        event.row,
        status=status,
        reason=None,
        outputs=event.outputs,
        elements=event.elements,
        outputs_revision=state.revision,
        outputs_version=event.workflow_version,
        outputs_job=event.job,
        outputs_inputs=batch.digest_of_inputs(event, table),
        outputs_key=event.key and event.key.model_dump(mode="json"),
        outputs_files=files or None,
        files_changed=0,
        accepted_revision=None,
        job=state.job,
        attempt=state.attempt,
        **wall_s,
    )
    batch.replace_files(event.row, files, had=state.has_files)
    state.has_files = bool(files)
    if event.differs:
        elements = split(event.outputs, table.columns)[1] if event.elements else None
        batch.replace_elements(event.row, elements or (), had=bool(state.elements))
        batch.index_for_joins([event.row])
    state.elements = event.elements


def _row_edited(batch: Batch, event: events.RowEdited) -> None:
    rows = [edit.row for edit in event.rows]
    table, states, inputs = (
        batch.known_table(event.table),
        batch.states(event.table, rows),
        batch.inputs(event.table, rows),
    )
    unless_restored: RowStatus = "stale" if table is None else table.status_of_new_rows
    made = {**_who(batch), "reason": event.reason}
    undone = None if event.undoes is None else batch.steps.before(event.undoes)
    before: dict[str, dict[str, Any]] = {}
    for edit in event.rows:
        row, state = inputs[edit.row], states[edit.row]
        row.values = {**row.values, **edit.changes}
        if event.cause is None and row.link is not None:
            derived_columns = batch.mapped(event.table, row.link)
            known = row.corrected
            if cells := touched(known, edit, derived_columns):
                before[str(edit.row)] = cells
            row.corrected = corrections.after_edit(known, edit, derived_columns=derived_columns, made=made)
            if undone is not None:
                row.corrected = corrections_restored(known, edit, undone.get(str(edit.row), {}))
        status = "current" if edit.current else unless_restored
        batch.count([state.status], [status])
        state.revision, state.status = edit.revision, status
        batch.update(
            batch.statements.edit,
            edit.row,
            revision=edit.revision,
            inputs=row.values,
            status=status,
            reason=None,
            corrected=row.corrected or None,
            review=bool(corrections.to_be_reviewed(row.corrected, row.values)),
            accepted_revision=None,
        )
        if edit.restored:
            batch.update(batch.statements.restored, edit.row, outputs_revision=edit.revision)
    batch.remember(rows)
    batch.index_for_joins(rows)
    if event.cause is None:
        batch.steps.take(event, len(rows), before)


def _who(batch: Batch) -> dict[str, Any]:
    time = batch.envelope.written_time
    return {"by": batch.envelope.actor, "position": batch.position, "time": time}


def _write_corrections(batch: Batch, number: int, row: _Inputs, corrected: Mapping[str, Any]) -> None:
    row.corrected = corrected
    review = bool(corrections.to_be_reviewed(corrected, row.values))
    batch.update(batch.statements.corrected, number, corrected=corrected or None, review=review)


def _derived_values_changed(batch: Batch, event: events.DerivedValuesChanged) -> None:
    rows = batch.inputs(event.table, [item.row for item in event.rows])
    for item in event.rows:
        row = rows[item.row]
        _write_corrections(batch, item.row, row, corrections.after_upstream(row.corrected, item.values))
    batch.remember([item.row for item in event.rows])


def _corrections_confirmed(batch: Batch, event: events.CorrectionsConfirmed) -> None:
    rows = batch.inputs(event.table, [item.row for item in event.rows])
    made = {**_who(batch), "reason": event.reason}
    for item in event.rows:
        row = rows[item.row]
        _write_corrections(batch, item.row, row, corrections.after_confirmation(row.corrected, item.columns, made))
    batch.remember([item.row for item in event.rows])


# --- at once: what people and links do ---------------------------------------------------------------------------------


def _table_created(batch: Batch, event: events.TableCreated) -> None:
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
        "created": batch.envelope.written_time,
        "deleted": False,
    }
    batch.insert("worktable", [values])
    batch.insert("status_count", [{"table_id": event.table, "status": status, "n": 0} for status in _STATUSES])


def _workflow_changed(batch: Batch, event: events.WorkflowChanged) -> None:
    remember_version(batch.connection, batch.tables, batch.envelope, event)
    version = batch.tables["workflow_version"]
    known = batch.connection.execute(sa.select(version.c.version).where(version.c.version == event.workflow_version))
    if known.first() is None:
        values = {
            "version": event.workflow_version,
            "main": event.main,
            "process_class": event.process_class,
            "files": [file.model_dump(mode="json") for file in event.files],
            "inputs": [
                {"name": column.name, "default": column.default} for column in event.columns if column.role == "input"
            ],
            "label": event.label,
            "description": event.description,
        }
        batch.insert("workflow_version", [values])
    columns = [column.model_dump(mode="json") for column in event.columns]
    batch.update_table(columns=columns, workflow_version=event.workflow_version)
    batch.remember([0])
    row = batch.tables["row"]
    mine = row.c.table_id == event.table
    is_current = sa.and_(belongs(row, sa.literal(event.workflow_version)), sa.not_(row.c.suspected))
    status = sa.case((is_current, "current"), else_="stale")
    follow = sa.update(row).where(mine, row.c.pinned.is_(None)).values(status=status, reason=None)
    batch.connection.execute(follow)
    batch.count_anew()


def _derivation(derived: Derivation | None) -> dict[str, Any]:
    if derived is None:
        return dict.fromkeys(("link", "key", "left_row", "left_element", "right_row", "right_element"))
    left = derived.sources[0] if derived.sources else None
    right = derived.sources[1] if len(derived.sources) > 1 else None
    return {
        "link": derived.link,
        "key": derived.key,
        "left_row": left.row if left else None,
        "left_element": left.element if left else None,
        "right_row": right.row if right else None,
        "right_element": right.element if right else None,
    }


def _rows_added(batch: Batch, event: events.RowsAdded) -> None:
    worktable = batch.tables["worktable"]
    kind = batch.connection.execute(sa.select(worktable.c.kind).where(worktable.c.id == event.table)).scalar_one()
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
    batch.insert("row", values)
    rows = [row.row for row in event.rows]
    batch.count([], [status] * len(rows))
    batch.remember(rows)
    batch.update_table(next_row=max(rows) + 1)
    batch.index_for_joins(rows)
    if event.cause is None:
        batch.steps.take(event, len(rows))


def _rows_removed(batch: Batch, event: events.RowsRemoved) -> None:
    statuses = batch.store.statuses(event.table, event.rows)
    kept = keep_removed(batch, event.rows) if event.cause is None else 0
    for name in ("row", "element", "row_file"):
        batch.delete_rows(name, event.rows)
    batch.count(statuses.values(), [])
    batch.remember(event.rows)
    batch.index_for_joins(event.rows)
    if kept:
        batch.steps.take(event, kept)


def _sources_moved(batch: Batch, event: events.SourcesMoved) -> None:
    for row in event.rows:
        batch.update(batch.statements.derivation, row.row, **_derivation(row.derived_from))


def _column_described(batch: Batch, event: events.ColumnDescribed) -> None:
    table = batch.store.table(event.table)
    if table is not None:
        columns = [event.column if column.name == event.column.name else column for column in table.columns]
        batch.update_table(columns=[column.model_dump(mode="json") for column in columns])


def _table_linked(batch: Batch, event: events.TableLinked) -> None:
    link = event.link
    values = {
        "link": link.link,
        "table_id": event.table,
        "kind": link.kind,
        "specification": link.model_dump(mode="json"),
    }
    batch.insert("link", [values])
    parents = [{"link": link.link, "side": side, "table_id": parent} for side, parent in enumerate(link.parents)]
    batch.insert("link_parent", parents)
    if link.kind == "keyed":
        return
    for side, parent in enumerate(link.parents):
        for rows in chunks(batch.store.row_ids(parent)):
            batch.index_side(link, side, parent, rows, fresh=True)


def _group_members_changed(batch: Batch, event: events.GroupMembersChanged) -> None:
    index = batch.tables["join_index"]
    places = [
        {"row": member.row, "element": NO_ELEMENT if member.element is None else member.element}
        for member in event.members
    ]
    gone = sa.delete(index).where(
        index.c.link == event.link,
        index.c.side == 0,
        index.c.row == sa.bindparam("row_"),
        index.c.element == sa.bindparam("element_"),
    )
    batch.connection.execute(gone, [{"row_": place["row"], "element_": place["element"]} for place in places])
    entries = [
        {"link": event.link, "side": 0, **place, "key": member.key}
        for place, member in zip(places, event.members, strict=True)
        if member.key is not None
    ]
    batch.insert("join_index", entries)


def _link_changed(batch: Batch, event: events.LinkChanged) -> None:
    link, previous = event.link, event.previous
    item, index = batch.tables["link"], batch.tables["join_index"]
    specification = link.model_dump(mode="json")
    batch.connection.execute(
        sa.update(item).where(item.c.link == link.link).values(kind=link.kind, specification=specification)
    )
    if event.columns is not None:
        batch.update_table(columns=[column.model_dump(mode="json") for column in event.columns])
    if link.kind == "keyed":
        if link.per != "group":
            batch.connection.execute(sa.delete(index).where(index.c.link == link.link))
        _forget_corrections(batch, link)
    elif link.on != previous.on:
        batch.connection.execute(sa.delete(index).where(index.c.link == link.link))
        for side, parent in enumerate(link.parents):
            for rows in chunks(batch.store.row_ids(parent)):
                batch.index_side(link, side, parent, rows, fresh=True)


def _forget_corrections(batch: Batch, link: LinkSpecification) -> None:
    """Make ordinary values of corrections in columns that a link no longer fills."""
    row = batch.tables["row"]
    statement = sa.select(row.c.row).where(
        row.c.table_id == batch.table, row.c.corrected.is_not(None), row.c.link == link.link
    )
    for number, known in batch.inputs(batch.table, list(batch.connection.execute(statement).scalars())).items():
        left = {name: entry for name, entry in known.corrected.items() if name in link.mapping}
        if left != known.corrected:
            _write_corrections(batch, number, known, left)


def _table_unlinked(batch: Batch, event: events.TableUnlinked) -> None:
    link = event.link.link
    row = batch.tables["row"]
    own = {**_derivation(None), "corrected": None, "review": False}
    batch.connection.execute(sa.update(row).where(row.c.table_id == event.table, row.c.link == link).values(own))
    for name in ("join_index", "link_parent", "link"):
        item = batch.tables[name]
        batch.connection.execute(sa.delete(item).where(item.c.link == link))
    table = batch.store.table(event.table)
    if event.link.kind != "keyed" and table is not None:
        columns = [column.model_copy(update={"role": "input"}).model_dump(mode="json") for column in table.columns]
        batch.update_table(kind="plain", columns=columns)
    batch.remember([0])


def _table_renamed(batch: Batch, event: events.TableRenamed) -> None:
    batch.update_table(name=event.name, folded_name=event.name.casefold(), description=event.description)


def _table_deleted(batch: Batch, event: events.TableDeleted) -> None:
    link, parent, index = batch.tables["link"], batch.tables["link_parent"], batch.tables["join_index"]
    mine = sa.select(link.c.link).where(link.c.table_id == event.table)
    batch.connection.execute(sa.delete(index).where(index.c.link.in_(mine)))
    batch.connection.execute(sa.delete(parent).where(parent.c.link.in_(mine)))
    batch.delete_all("link", "element", "row", "row_file", "status_count")
    forget_marks(batch, event.table)
    forget_steps(batch)
    batch.update_table(deleted=True)


_STATUSES: tuple[RowStatus, ...] = get_args(RowStatus)

_GATHER: dict[type, Callable[[Batch, Any], None]] = {
    events.CorrectionsConfirmed: _corrections_confirmed,
    events.DerivedValuesChanged: _derived_values_changed,
    events.OutputsImported: outputs_imported,
    events.OutputsRecorded: _outputs_recorded,
    events.RowEdited: _row_edited,
    events.RowStatusChanged: _row_status_changed,
    events.RowsAccepted: content_projection.rows_accepted,
    events.RowsConfirmed: content_projection.rows_confirmed,
    events.TableInvalidated: content_projection.table_invalidated,
}

_EVOLVE: dict[type, Callable[[Batch, Any], None]] = {
    events.TableCreated: _table_created,
    events.WorkflowChanged: _workflow_changed,
    events.RowsAdded: _rows_added,
    events.RowsRemoved: _rows_removed,
    events.RowsRestored: rows_restored,
    events.SourcesMoved: _sources_moved,
    events.ColumnDescribed: _column_described,
    events.TableLinked: _table_linked,
    events.ElementKeySet: content_projection.element_key_set,
    events.RowsPinned: content_projection.rows_pinned,
    events.LinkChanged: _link_changed,
    events.TableUnlinked: _table_unlinked,
    events.GroupMembersChanged: _group_members_changed,
    events.TableRenamed: _table_renamed,
    events.TableDeleted: _table_deleted,
    **MARKS,
}
