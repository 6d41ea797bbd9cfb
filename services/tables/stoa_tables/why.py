"""Explains why a row is what it is: in a sentence, and by the events that led there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from stoa_chassis.log import Log
from stoa_chassis.log import event as log_event
from stoa_contracts.envelope import Envelope
from stoa_contracts.events import tables as events
from stoa_contracts.types import LinkSpecification, RowStatus, Timestamp
from stoa_tables.domain import Row, Table, same
from stoa_tables.history import tell, tells
from stoa_tables.marks_store import MarksStore
from stoa_tables.problems import NotFoundError
from stoa_tables.queries import Queries
from stoa_tables.store import Store
from stoa_tables.suspicion import takes_outputs
from stoa_tables.values import missing_inputs
from stoa_tables.versions import VersionContent, VersionQueries

__all__ = ["Component", "Explainer", "Why", "WhyEvent"]

#: So many edits of a row are looked at; what lies behind them is not named.
_EDITS = 1000

#: So many events a chain has at most.
_CHAIN = 50

_LONGEST = 60

#: What changes a row.
_CHANGES = ("row-edited", "rows-added", "rows-restored", "workflow-changed", "rows-pinned")

#: What changes what a row gives to the tables below.
_GIVES = ("outputs-recorded", "outputs-imported", "row-edited", "rows-added", "rows-restored")


# --- what goes over HTTP -----------------------------------------------------------------------------------------------


class Component(BaseModel):
    """The first thing in which a row differs from the run that made its outputs."""

    kind: Literal["workflow", "input", "file"]
    name: str | None = Field(description="The input's or the file's name; of a workflow, the first file that differs.")
    before: Any = Field(description="The value, the workflow version or the digest of the file that the run had.")
    after: Any = Field(description="What it is now; null where a file is gone.")


class WhyEvent(BaseModel):
    """An event that led to what a row is now."""

    position: int
    time: Timestamp
    actor: str
    type: str = Field(description="The event's name.")
    table: str
    name: str = Field(description="The table's name.")
    row: int | None = Field(description="Null where it concerns the table as a whole.")
    what: str = Field(description="One sentence for people.")


class Why(BaseModel):
    """Why a row is what it is."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    table: str
    row: int
    status: RowStatus
    suspected: bool
    sentence: str = Field(description="The explanation in a sentence.")
    component: Component | None = Field(description="Where outputs do not belong to the row: the first that differs.")
    chain: list[WhyEvent] = Field(description="The events that explain it, the first cause first.")


# --- how it is found ---------------------------------------------------------------------------------------------------


@dataclass
class _Finding:
    """What was found out about a row."""

    reason: str = ""
    """A clause that can follow a colon, or "because"."""
    component: Component | None = None
    steps: list[WhyEvent] = field(default_factory=list)


class Explainer:
    """Explains rows.

    Parameters
    ----------
    store
        The read model of one transaction.
    log
        The service's log.
    """

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._connection = store.connection
        self._log = log
        self._row_event = store.tables["row_event"]
        self._names = {table.id: table.name for table in store.all_tables()}

    def why(self, name: str, number: int, position: int) -> Why:
        """Explain why a row is stale, suspected, failed, cancelled, queued, running or current.

        Raises
        ------
        NotFoundError
            If there is no such row.
        """
        table = Queries(self._store).table(name)
        row = self._store.row(table.id, number)
        if row is None:
            raise NotFoundError(f"The table {table.name} has no row {number}", table=table.id, row=number)
        finding = _Finding()
        sentence = self._sentence(table, row, finding)
        chain = {(step.position, step.table, step.row): step for step in finding.steps}
        ordered = [chain[key] for key in sorted(chain, key=lambda key: (key[0], key[1], key[2] or 0))]
        return Why(
            position=position,
            table=table.id,
            row=number,
            status=row.status,
            suspected=row.suspected,
            sentence=f"{sentence[:1].upper()}{sentence[1:]}.",
            component=finding.component,
            chain=ordered[-_CHAIN:],
        )

    def _sentence(self, table: Table, row: Row, finding: _Finding) -> str:
        subject = self._subject(table, row)
        if table.kind != "worktable":
            return f"{subject} {self._of_no_runs(table, row, finding)}"
        if row.status == "current":
            return f"{subject} is current: {self._current(table, row, finding)}"
        if row.status in {"failed", "cancelled"}:
            return f"{subject} {self._ended(table, row, finding)}"
        return f"{subject} {self._to_be_run(table, row, finding)}"

    def _to_be_run(self, table: Table, row: Row, finding: _Finding) -> str:
        self._difference(table, row, finding)
        own = finding.reason
        if row.status in {"queued", "running"}:
            return f"{self._on_its_way(table, row, finding)}{f', because {own}' if own else ''}"
        locked = self._locked(table, row, finding)
        if not row.suspected:
            return f"is stale: {own or 'its outputs were made from something else'}{locked}"
        waits = self._waits(table, row, finding)
        return f"is stale: {own}; and {waits}{locked}" if own else f"is suspected: {waits}{locked}"

    def _locked(self, table: Table, row: Row, finding: _Finding) -> str:
        lock = MarksStore(self._connection, self._store.tables).locks(table.id, [row.row]).get(row.row)
        if lock is None:
            return ""
        told = self._last(table.id, row.row, ("row-locked",))
        if told is not None:
            self._add(finding, told, row.row)
        return f"; and {lock.by} locked it, so that it is not run{f': {lock.reason}' if lock.reason else ''}"

    def _subject(self, table: Table, row: Row) -> str:
        return f"row {row.row} of {table.name}"

    # --- rows that are what they are ---

    def _of_no_runs(self, table: Table, row: Row, finding: _Finding) -> str:
        found = self._last(table.id, row.row, ("row-edited", "rows-added", "rows-restored"))
        if found is not None:
            self._climb(table, row, found, finding)
        what = "a join, which is kept up to date with the tables that it comes from"
        if table.kind == "plain":
            what = "a plain table, whose rows are never run"
        if not row.suspected:
            return f"is current: {table.name} is {what}"
        return f"is current, but suspected: {self._waits(table, row, finding)}"

    def _current(self, table: Table, row: Row, finding: _Finding) -> str:
        own = row.own_version(table.workflow_version)
        if (row.accepted_revision, row.accepted_version) == (row.revision, own):
            accepted = self._last(table.id, row.row, ("rows-accepted",))
            if accepted is not None:
                self._add(finding, accepted, row.row)
                event = accepted.event()
                reason = event.reason if isinstance(event, events.RowsAccepted) else ""
                return f"{accepted.actor} accepted its outputs as they are ({_when(accepted)}): {reason}".rstrip(": .")
        run = self._run(table, row)
        if run is None:
            return "its outputs belong to its inputs and its workflow version"
        self._add(finding, run, row.row)
        event = run.event()
        if isinstance(event, events.OutputsImported):
            return f"{run.actor} imported its outputs from {event.imported_from.name}"
        how = "were made by a run with its present inputs and workflow version"
        if isinstance(event, events.OutputsRecorded) and event.reused_from is not None:
            how = "were taken over from an earlier run with the same inputs, files and workflow version"
        later = self._last(table.id, row.row, ("row-edited", "workflow-changed", "rows-confirmed", "rows-pinned"))
        if later is not None and later.log_position > run.log_position:
            self._climb(table, row, later, finding)
        return f"its outputs {how} ({_when(run)}){self._pinned(table, row, finding)}"

    def _pinned(self, table: Table, row: Row, finding: _Finding) -> str:
        pinned = None if row.pinned is None else self._last(table.id, row.row, ("rows-pinned",))
        if pinned is None:
            return ""
        self._add(finding, pinned, row.row)
        return f", to which {pinned.actor} pinned it ({_when(pinned)})"

    def _ended(self, table: Table, row: Row, finding: _Finding) -> str:
        ended = self._last(table.id, row.row, ("row-status-changed",))
        change = self._last(table.id, row.row, _CHANGES, before=None if ended is None else ended.log_position)
        if change is not None:
            self._climb(table, row, change, finding)
        when = ""
        if ended is not None:
            self._add(finding, ended, row.row)
            when = f" ({_when(ended)})"
        reason = (row.reason or "no reason was given").rstrip(".")
        return f"{'failed' if row.status == 'failed' else 'was cancelled'}: {reason}{when}"

    def _on_its_way(self, table: Table, row: Row, finding: _Finding) -> str:
        found = self._last(table.id, row.row, ("row-status-changed",))
        if found is None:
            return f"is {row.status}"
        self._add(finding, found, row.row)
        return f"is {row.status} ({found.actor}, {_when(found)})"

    # --- what differs ---

    def _difference(self, table: Table, row: Row, finding: _Finding) -> None:
        """Name the first of workflow, inputs and files in which a row differs from the run that made its outputs."""
        if row.outputs is None:
            self._never_ran(table, row, finding)
            return
        run = self._run(table, row)
        if row.belongs(table.workflow_version):
            if run is not None:
                self._add(finding, run, row.row)
            return
        found = (
            self._other_workflow(table, row, finding)
            or self._other_input(table, row, run, finding)
            or self._other_file(table, row, finding)
        )
        if run is not None:
            self._add(finding, run, row.row)
        if found:
            finding.reason = f"{finding.reason}, after the run that made its outputs"
        if missing := missing_inputs(table.columns, row.inputs):
            finding.reason = f"{finding.reason or 'it cannot be run'}; {_missing(missing)}"

    def _never_ran(self, table: Table, row: Row, finding: _Finding) -> None:
        added = self._last(table.id, row.row, ("rows-added", "rows-restored"))
        changed = self._last(table.id, row.row, ("row-edited",))
        when = ""
        if added is not None:
            self._climb(table, row, added, finding)
            when = f" since {self._how_added(row, added)}"
        if changed is not None:
            self._climb(table, row, changed, finding)
        if row.reason and row.status == "stale":
            finding.reason = f"it cannot be run: {row.reason.rstrip('.')}"
        elif missing := missing_inputs(table.columns, row.inputs):
            finding.reason = _missing(missing)
        else:
            finding.reason = f"it was not run{when}"

    def _how_added(self, row: Row, added: Envelope) -> str:
        event = added.event()
        source = None
        if isinstance(event, events.RowsAdded):
            source = next((item.derived_from for item in event.rows if item.row == row.row), None)
        if source is None:
            return f"{added.actor} added it ({_when(added)})"
        if not source.sources:
            return f"it was derived from rows of {self._parent(added.subject, source.link)} ({_when(added)})"
        above = source.sources[0]
        return f"it was derived from row {above.row} of {self._name(above.table)} ({_when(added)})"

    def _parent(self, table: str, link: str) -> str:
        found = next((item for item in self._store.links_of(table) if item.link == link), None)
        return "another table" if found is None else self._name(found.parents[0])

    def _other_workflow(self, table: Table, row: Row, finding: _Finding) -> bool:
        own = row.own_version(table.workflow_version)
        if row.outputs_version is None or row.outputs_version == own or own is None:
            return False
        kinds = ("rows-pinned",) if row.pinned else ("workflow-changed", "rows-pinned")
        changed = self._last(table.id, row.row, kinds)
        by = ""
        if changed is not None:
            self._climb(table, row, changed, finding)
            by = f" ({changed.actor}, {_when(changed)})"
        names = self._changed_files(table, row.outputs_version, own)
        first = names[0] if names else None
        finding.component = Component(kind="workflow", name=first, before=row.outputs_version, after=own)
        what = "the workflow changed" if not row.pinned else "it was pinned to another version of the workflow"
        finding.reason = f"{what}{f': {_several(names)}' if names else ''}{by}"
        return True

    def _changed_files(self, table: Table, before: str, after: str) -> list[str]:
        """Name the files that differ, those first that both versions have."""
        queries = VersionQueries(self._store)
        try:
            old, new = queries.content(table.id, before), queries.content(table.id, after)
        except NotFoundError:
            return []
        common = old.files.keys() & new.files.keys()
        changed = sorted(name for name in common if old.files[name] != new.files[name] and not _same(old, new, name))
        return [*changed, *sorted(new.files.keys() - common), *sorted(old.files.keys() - common)]

    def _other_input(self, table: Table, row: Row, run: Envelope | None, finding: _Finding) -> bool:
        revision = row.outputs_revision or 0
        event = None if run is None else run.event()
        if isinstance(event, events.OutputsRecorded):
            revision = event.revision
        before: dict[str, Any] = {}
        newest: dict[str, Envelope] = {}
        for envelope, edit in self._edits(table.id, row.row):
            if edit.revision <= revision:
                break
            for name, value in edit.previous.items():
                before[name] = value
                newest.setdefault(name, envelope)
        for column in table.inputs:
            if column.name not in before:
                continue
            old, new = before[column.name], row.inputs.get(column.name)
            if same(column.default if old is None else old, column.default if new is None else new):
                continue
            envelope = newest[column.name]
            self._climb(table, row, envelope, finding)
            finding.component = Component(kind="input", name=column.name, before=old, after=new)
            finding.reason = (
                f"input {column.name!r} changed from {_short(old)} to {_short(new)}{self._by(table, row, envelope)}"
            )
            return True
        return False

    def _by(self, table: Table, row: Row, envelope: Envelope) -> str:
        event = envelope.event()
        if isinstance(event, events.RowEdited) and event.cause is not None:
            link = self._link(table, row)
            if link is None:
                return f" ({_when(envelope)})"
            if link.per == "group":
                return f", as rows of {self._name(link.parents[0])} give it now ({_when(envelope)})"
            source = next(self._sources(row, link), None)
            above = "" if source is None else f", as row {source[1].row} of {source[0].name} gives it now"
            return f"{above} ({_when(envelope)})"
        return f" ({envelope.actor}, {_when(envelope)})"

    def _other_file(self, table: Table, row: Row, finding: _Finding) -> bool:
        if not row.files_changed:
            return False
        item = self._store.tables["row_file"]
        statement = (
            sa.select(item.c.location, item.c.sha256)
            .where(item.c.table_id == table.id, item.c.row == row.row, item.c.changed)
            .order_by(item.c.location)
        )
        found = self._connection.execute(statement).all()
        if not found:
            return False
        first = found[0]
        after, when = None, ""
        for envelope in self._each(table.id, row.row, ("table-invalidated",)):
            event = envelope.event()
            if isinstance(event, events.TableInvalidated) and event.file and event.file.location == first.location:
                self._add(finding, envelope, row.row)
                after, when = event.file.sha256, f" ({_when(envelope)})"
                break
        finding.component = Component(kind="file", name=first.location, before=first.sha256, after=after)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        changed = "changed" if after is not None or not when else "is gone"
        finding.reason = f"the file {first.location}{more} {changed}{when}"
        return True

    # --- what is above ---

    def _waits(self, table: Table, row: Row, finding: _Finding) -> str:
        """Tell for which row above a suspected row waits, and why that one is not settled."""
        told = self._last(table.id, row.row, ("table-invalidated",))
        if told is not None:
            self._add(finding, told, row.row)
        for above, source in self._unsettled(table, row):
            below = _Finding()
            place = self._subject(above, source)
            clause = self._above(above, source, below)
            finding.steps += below.steps
            finding.component = finding.component or below.component
            return f"it waits for {place}, which {clause}"
        return "something that it depends on is not settled"

    def _above(self, table: Table, row: Row, finding: _Finding) -> str:
        if table.kind == "worktable" and row.status in {"failed", "cancelled"}:
            return self._ended(table, row, finding)
        if table.kind == "worktable" and row.status != "current":
            self._difference(table, row, finding)
            if finding.reason:
                state = f"is {row.status}"
                return f"{state} because {finding.reason}"
        if row.suspected:
            return self._waits(table, row, finding).replace("it waits", "waits", 1)
        return f"is {row.status}"

    def _link(self, table: Table, row: Row) -> LinkSpecification | None:
        return next((item for item in self._store.links_of(table.id) if item.link == row.link), None)

    def _unsettled(self, table: Table, row: Row) -> Iterator[tuple[Table, Row]]:
        link = self._link(table, row)
        if link is None:
            return
        if link.per == "group":
            yield from self._unsettled_member(row, link)
            return
        for side, (above, source) in enumerate(self._sources(row, link)):
            if source.suspected or (source.status != "current" and takes_outputs(link, side, above)):
                yield above, source

    def _unsettled_member(self, row: Row, link: LinkSpecification) -> Iterator[tuple[Table, Row]]:
        above = self._store.table(link.parents[0])
        if above is None:
            return
        index, member = self._store.tables["join_index"], self._store.tables["row"]
        unsettled: sa.ColumnElement[bool] = member.c.suspected
        if takes_outputs(link, 0, above):
            unsettled = sa.or_(unsettled, member.c.status != "current")
        statement = (
            sa.select(member.c.row)
            .select_from(index.join(member, sa.and_(member.c.table_id == above.id, member.c.row == index.c.row)))
            .where(_of_group(index, row, link), unsettled)
            .order_by(member.c.row)
            .limit(1)
        )
        for number in self._connection.execute(statement).scalars():
            found = self._store.row(above.id, number)
            if found is not None:
                yield above, found

    def _sources(self, row: Row, link: LinkSpecification) -> Iterator[tuple[Table, Row]]:
        """Give the rows from which a row is derived, but not the members of a group: there may be very many."""
        for parent, source in zip(link.parents, row.sources, strict=False):
            above = self._store.table(parent)
            found = None if source is None else self._store.row(parent, source.row)
            if above is not None and found is not None:
                yield above, found

    def _giving(self, table: Table, row: Row, before: int) -> tuple[Table, Row, Envelope] | None:
        """Find what a row above gave last, before a position."""
        link = self._link(table, row)
        if link is None:
            return None
        if link.per == "group":
            return self._giving_member(row, link, before)
        found = [
            (above, source, latest)
            for above, source in self._sources(row, link)
            if (latest := self._last(above.id, source.row, _GIVES, before=before)) is not None
        ]
        return max(found, key=lambda item: item[2].log_position, default=None)

    def _giving_member(self, row: Row, link: LinkSpecification, before: int) -> tuple[Table, Row, Envelope] | None:
        index, item = self._store.tables["join_index"], self._row_event
        statement = (
            sa.select(item.c.row, item.c.position)
            .select_from(index.join(item, sa.and_(item.c.table_id == link.parents[0], item.c.row == index.c.row)))
            .join(log_event, log_event.c.position == item.c.position)
            .where(_of_group(index, row, link), item.c.position < before, log_event.c.type.in_(_GIVES))
            .order_by(item.c.position.desc())
            .limit(1)
        )
        latest = self._connection.execute(statement).first()
        above = self._store.table(link.parents[0])
        member = None if latest is None else self._store.row(link.parents[0], latest.row)
        if latest is None or above is None or member is None:
            return None
        return above, member, self._at(latest.position)

    def _climb(self, table: Table, row: Row, envelope: Envelope, finding: _Finding) -> None:
        """Add an event and what it follows from, up to what a person or a clock did."""
        if len(finding.steps) >= _CHAIN:
            return
        event = envelope.event()
        self._add(finding, envelope, None if isinstance(event, events.WorkflowChanged) else row.row)
        position = envelope.log_position
        if isinstance(event, events.OutputsRecorded):
            change = self._last(table.id, row.row, _CHANGES, before=position)
            if change is not None:
                self._climb(table, row, change, finding)
            return
        cause = getattr(event, "cause", None)
        if cause is None:
            return
        if cause.kind == "upstream":
            giving = self._giving(table, row, position)
            if giving is not None:
                self._climb(*giving, finding)
                return
        origin = self._by_id(envelope.causationid)
        if origin is not None and origin.subject in self._names:
            self._add(finding, origin, None)

    # --- the log ---

    def _run(self, table: Table, row: Row) -> Envelope | None:
        """Find the event that brought a row's outputs."""
        if row.outputs_job is None:
            return self._last(table.id, row.row, ("outputs-imported",))
        item = self._row_event
        statement = sa.select(sa.func.max(item.c.position)).where(
            item.c.table_id == table.id, item.c.row == row.row, item.c.job == row.outputs_job
        )
        position = self._connection.execute(statement).scalar_one()
        return None if position is None else self._at(position)

    def _edits(self, table: str, row: int) -> Iterator[tuple[Envelope, events.EditedRow]]:
        for envelope in self._each(table, row, ("row-edited",)):
            event = envelope.event()
            if isinstance(event, events.RowEdited):
                yield envelope, next(edit for edit in event.rows if edit.row == row)

    def _last(self, table: str, row: int, types: Sequence[str], before: int | None = None) -> Envelope | None:
        return next(self._each(table, row, types, before=before, limit=1), None)

    def _each(
        self, table: str, row: int, types: Sequence[str], *, before: int | None = None, limit: int = _EDITS
    ) -> Iterator[Envelope]:
        """Give events that concern a row, the newest first."""
        item = self._row_event
        statement = (
            sa.select(item.c.position)
            .join(log_event, log_event.c.position == item.c.position)
            .where(item.c.table_id == table, item.c.row.in_([0, row]), log_event.c.type.in_(types))
            .order_by(item.c.position.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(item.c.position < before)
        for position in list(self._connection.execute(statement).scalars()):
            yield self._at(position)

    def _at(self, position: int) -> Envelope:
        return self._log.read(self._connection, after=position - 1, until=position)[0]

    def _by_id(self, identity: str | None) -> Envelope | None:
        if identity is None:
            return None
        statement = sa.select(log_event.c.position).where(log_event.c.id == identity)
        position = self._connection.execute(statement).scalar_one_or_none()
        return None if position is None else self._at(position)

    def _add(self, finding: _Finding, envelope: Envelope, row: int | None) -> None:
        event = envelope.event()
        what = envelope.name.replace("-", " ").capitalize()
        if isinstance(event, events.WorkflowChanged):
            row = None
        if tells(event) and (row is not None or isinstance(event, events.WorkflowChanged)):
            what = tell(envelope, row or 0, self._names).summary
        finding.steps.append(
            WhyEvent(
                position=envelope.log_position,
                time=envelope.time,
                actor=envelope.actor,
                type=envelope.name,
                table=envelope.subject,
                name=self._name(envelope.subject),
                row=row,
                what=what,
            )
        )

    def _name(self, table: str) -> str:
        return self._names.get(table, table)


def _of_group(index: sa.Table, row: Row, link: LinkSpecification) -> sa.ColumnElement[bool]:
    return sa.and_(index.c.link == link.link, index.c.side == 0, index.c.key == row.key)


# --- words -------------------------------------------------------------------------------------------------------------


def _same(old: VersionContent, new: VersionContent, name: str) -> bool:
    return old.bundle.meaning(name) == new.bundle.meaning(name)


def _when(envelope: Envelope) -> str:
    return f"{envelope.time:%Y-%m-%d %H:%M} UTC"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping) and value.get("class") in {"File", "Directory"}:
        location = value.get("basename") or value.get("location") or value.get("path")
        value = str(location).rstrip("/").rpartition("/")[2] or value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _several(names: Sequence[str]) -> str:
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more file{'' if more == 1 else 's'}"


def _missing(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{'a value is' if len(listed) == 1 else 'values are'} missing: {', '.join(listed)}"
