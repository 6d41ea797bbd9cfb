"""Carries out undo and redo, and tells what can be undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from stoa_chassis.log import Log
from stoa_chassis.log import event as log_event
from stoa_contracts.envelope import Envelope
from stoa_contracts.types import Timestamp
from stoa_tables.cascade import Recorder
from stoa_tables.command_service import CommandService
from stoa_tables.marks import refuse_locked
from stoa_tables.marks_store import MarksStore
from stoa_tables.problems import ConflictError
from stoa_tables.queries import Queries
from stoa_tables.store import Store, chunks
from stoa_tables.undo import RemovedRow, Step, StepEvent, changed_since, take_back

__all__ = ["LeftCell", "StepList", "StepView", "TakeBack", "TakenBackAnswer", "UndoService", "list_steps"]

_EDITS = ("row-edited", "rows-added", "rows-removed", "rows-restored")


# --- what goes over HTTP -----------------------------------------------------------------------------------------------


class StepView(BaseModel):
    """What one command of the person who asks did to a table."""

    step: int = Field(description="Its id: the position of its first event.")
    summary: str = Field(description="In a few words for people.")
    kind: Literal["edited", "added", "removed", "changed"]
    rows: int
    time: Timestamp


class StepList(BaseModel):
    """The steps of the person who asks in one table."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    undo: list[StepView] = Field(description="What can be undone, the next one first.")
    redo: list[StepView] = Field(description="What can be redone, the next one first.")


class TakeBack(BaseModel):
    """Which step, and what becomes of cells that somebody changed since."""

    model_config = ConfigDict(extra="forbid")

    step: int | None = Field(
        default=None,
        description="The step that the person sees as the next one: if it is another one, nothing is changed.",
    )
    skip_changed: bool = Field(
        default=False, description="Leave cells alone that somebody changed since, instead of refusing."
    )


class LeftCell(BaseModel):
    """A cell that was left alone."""

    row: int
    column: str | None = Field(description="Null for the row as a whole.")
    reason: str


class TakenBackAnswer(BaseModel):
    """What was undone or redone."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    step: StepView
    rows: list[int] = Field(description="The rows that changed, without those of tables below.")
    left: list[LeftCell] = Field(description="Cells that somebody changed since, and that were left alone.")


# --- commands ----------------------------------------------------------------------------------------------------------


class UndoService(CommandService):
    """Takes people's own edits back, and does them again."""

    async def undo(self, name: str, asked: TakeBack) -> TakenBackAnswer:
        """Undo the last step of the person who asks."""
        return await self._take_back(name, asked, undone=False)

    async def redo(self, name: str, asked: TakeBack) -> TakenBackAnswer:
        """Redo the step that the person who asks undid last."""
        return await self._take_back(name, asked, undone=True)

    async def _take_back(self, name: str, asked: TakeBack, *, undone: bool) -> TakenBackAnswer:
        word = "redo" if undone else "undo"

        def command(recorder: Recorder) -> TakenBackAnswer:
            table = Queries(recorder.store).table(name)
            found = _steps(recorder.store, table.id, self._origin.actor, undone=undone, limit=1)
            if not found:
                raise ConflictError(f"You have nothing to {word} in {table.name}")
            step = found[0]
            if asked.step is not None and asked.step != step.position:
                raise ConflictError(
                    f"The next step to {word} in {table.name} is {step.position}, not {asked.step}", step=step.position
                )
            events = _live_events(recorder, table.id, step)
            concerned = {row for event in events for row in _rows_of(event.envelope)}
            rows = recorder.store.rows(table.id, concerned)
            locks = MarksStore(recorder.connection, recorder.store.tables).locks(table.id, rows)
            refuse_locked(table, locks, "edited")
            since = min(event.envelope.log_position for event in events)
            later = _later(recorder, table.id, sorted(concerned), since)
            taken = take_back(
                table,
                step,
                events,
                rows,
                _removed(recorder.store, table.id, concerned),
                changed_since(later, {event.envelope.id for event in events}),
                event_bytes=self._settings.event_bytes,
                skip_changed=asked.skip_changed,
            )
            for event in taken.events:
                # One after the other: whether a row has its old inputs again is seen on the row as the one before left it.
                recorder.record(table.id, [event])
            recorder.follow(table.id, taken.rows)
            left = [LeftCell(row=cell.row, column=cell.column or None, reason=cell.reason) for cell in taken.left]
            return TakenBackAnswer(
                position=self._position(recorder), step=_view(step), rows=sorted(taken.rows), left=left
            )

        request = {"command": word, "table": name, **asked.model_dump()}
        return await self._carry_out(request, command, TakenBackAnswer)


def _steps(store: Store, table: str, actor: str, *, undone: bool, limit: int) -> list[Step]:
    item = store.tables["edit_step"]
    mine = (item.c.table_id == table, item.c.actor == actor, item.c.undone if undone else sa.not_(item.c.undone))
    # What was undone last is the oldest of what is undone.
    order = item.c.position.asc() if undone else item.c.position.desc()
    found = store.connection.execute(sa.select(item).where(*mine).order_by(order).limit(limit))
    return [Step(entry.position, entry.kind, entry.rows, entry.time, entry.undone) for entry in found]


def _live_events(recorder: Recorder, table: str, step: Step) -> list[StepEvent]:
    item = recorder.store.tables["edit_step_event"]
    mine = (item.c.table_id == table, item.c.step == step.position, item.c.live)
    found = recorder.connection.execute(sa.select(item).where(*mine).order_by(item.c.position)).all()
    log = recorder.events.log
    return [StepEvent(_read(log, recorder.connection, entry.position), entry.corrected or {}) for entry in found]


def _read(log: Log, connection: sa.Connection, position: int) -> Envelope:
    (envelope,) = log.read(connection, after=position - 1, until=position)
    return envelope


def _rows_of(envelope: Envelope) -> list[int]:
    rows: Sequence[Any] = envelope.data["rows"]
    return [row if isinstance(row, int) else row["row"] for row in rows]


def _later(recorder: Recorder, table: str, rows: Sequence[int], since: int) -> list[Envelope]:
    """Read what was done to rows after a position."""
    item, positions = recorder.store.tables["row_event"], set[int]()
    for some in chunks(rows):
        mine = (item.c.table_id == table, item.c.row.in_(some), item.c.position > since)
        edits = sa.and_(log_event.c.position == item.c.position, log_event.c.type.in_(_EDITS))
        statement = sa.select(item.c.position).join(log_event, edits).where(*mine).distinct()
        positions |= set(recorder.connection.execute(statement).scalars())
    return [_read(recorder.events.log, recorder.connection, position) for position in sorted(positions)]


def _removed(store: Store, table: str, rows: Iterable[int]) -> dict[int, RemovedRow]:
    item, found = store.tables["removed_row"], dict[int, RemovedRow]()
    for some in chunks(sorted(rows)):
        statement = sa.select(item).where(item.c.table_id == table, item.c.row.in_(some))
        for entry in store.connection.execute(statement):
            found[entry.row] = RemovedRow(entry.row, entry.revision, entry.inputs)
    return found


# --- questions ---------------------------------------------------------------------------------------------------------


def list_steps(queries: Queries, name: str, position: int, actor: str, limit: int) -> StepList:
    """List what a person can undo and redo in a table."""
    table, store = queries.table(name), queries.store
    undo, redo = (_steps(store, table.id, actor, undone=undone, limit=limit) for undone in (False, True))
    return StepList(position=position, undo=list(map(_view, undo)), redo=list(map(_view, redo)))


def _view(step: Step) -> StepView:
    summary = f"{step.kind.capitalize()} {step.rows} row{'' if step.rows == 1 else 's'}"
    return StepView.model_validate(
        {"step": step.position, "summary": summary, "kind": step.kind, "rows": step.rows, "time": step.time}
    )
