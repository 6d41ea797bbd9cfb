"""Decide what undoing and redoing a step does: its events are taken back, where nobody changed the cells since. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stoa_contracts.envelope import Envelope
from stoa_contracts.events.tables import (
    EditedRow,
    RestoredRow,
    RowEdited,
    RowsAdded,
    RowsRemoved,
    RowsRestored,
)
from stoa_contracts.registry import Event
from stoa_contracts.types import Values
from stoa_tables.domain import Row, Table, same
from stoa_tables.packing import pack, size_of_values
from stoa_tables.problems import ChangedSinceError
from stoa_tables.values import InvalidRowError, check_row

__all__ = ["ALL_CELLS", "Cell", "RemovedRow", "Step", "StepEvent", "TakenBack", "changed_since", "take_back"]

_MAX_IDS = 20_000
_NAMED_CELLS = 5

#: Stands for every cell of a row, where a row is added or removed.
ALL_CELLS = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What one command of a person did to a table."""

    position: int
    kind: str
    rows: int
    time: str
    undone: bool


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An event of a step that nothing took back yet."""

    envelope: Envelope
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What was known of corrections before it: row, as text, to column."""


@dataclass(frozen=True, slots=True)
class RemovedRow:
    """What a row held when it was removed."""

    row: int
    revision: int
    inputs: Values


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A cell that is left alone, and why."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What taking a step back does."""

    events: list[Event]
    rows: set[int]
    left: list[Cell]
    """The cells that somebody changed since."""


def changed_since(later: Iterable[Envelope], own: set[str]) -> dict[tuple[int, str], str]:
    """Tell which cells other events than those of a step changed after it, and by whom.

    Parameters
    ----------
    later
        The events on the step's rows since the step, in their order.
    own
        The ids of the step's own events.

    Returns
    -------
    dict
        Row and column, or `ALL_CELLS`, to who changed it. What was undone in the meantime is left out.
    """
    standing: dict[tuple[int, str], dict[str, str]] = {}
    takes_back: dict[str, str | None] = {}
    for envelope in later:
        if envelope.id in own:
            continue
        event = envelope.event()
        undoes = getattr(event, "undoes", None)
        # Taking back what took something back is doing it again.
        removes = undoes if undoes is not None and takes_back.get(undoes, "") is None else None
        takes_back[envelope.id] = removes
        who = envelope.actor if getattr(event, "cause", None) is None else "a change upstream"
        for cell in _cells(event):
            makers = standing.setdefault(cell, {})
            if removes is not None:
                makers.pop(removes, None)
            else:
                makers[envelope.id] = who
    return {cell: next(reversed(makers.values())) for cell, makers in standing.items() if makers}


def _cells(event: Event) -> Iterable[tuple[int, str]]:
    if isinstance(event, RowEdited):
        return [(edit.row, name) for edit in event.rows for name in (*edit.changes, *edit.reset)]
    if isinstance(event, RowsRemoved):
        return [(row, ALL_CELLS) for row in event.rows]
    if isinstance(event, RowsRestored | RowsAdded):
        return [(row.row, ALL_CELLS) for row in event.rows]
    return []


def take_back(
    table: Table,
    step: Step,
    events: Sequence[StepEvent],
    rows: Mapping[int, Row],
    removed: Mapping[int, RemovedRow],
    changed: Mapping[tuple[int, str], str],
    *,
    event_bytes: int,
    skip_changed: bool = False,
) -> TakenBack:
    """Take a step back: undo it, or, where it is undone, redo it.

    Parameters
    ----------
    table
        The table.
    step
        The step.
    events
        Its events that nothing took back yet, in their order.
    rows
        Those of its rows that exist.
    removed
        What those held that were removed.
    changed
        From `changed_since`.
    event_bytes
        About how large an event may become.
    skip_changed
        Leave the cells alone that somebody changed since, instead of refusing.

    Raises
    ------
    ChangedSinceError
        If somebody changed a cell since; names them.
    """
    taking = _Taking(table, dict(rows), removed, changed, event_bytes)
    # The last event is taken back first.
    for event in reversed(events):
        taking.take_back(event)
    left = sorted(set(taking.left))
    if left and not skip_changed:
        word = "redone" if step.undone else "undone"
        shown = "; ".join(_described(cell) for cell in left[:_NAMED_CELLS])
        more = f"; and {len(left) - _NAMED_CELLS} more" if len(left) > _NAMED_CELLS else ""
        raise ChangedSinceError(
            f"The step cannot be {word}, because of what happened in {table.name} since: {shown}{more}",
            step=step.position,
            cells=[{"row": cell.row, "column": cell.column or None, "reason": cell.reason} for cell in left[:1000]],
        )
    return TakenBack(taking.events, taking.touched, left)


def _described(cell: Cell) -> str:
    return f"row {cell.row}, {cell.column}: {cell.reason}" if cell.column else f"row {cell.row}: {cell.reason}"


class _Taking:
    """Takes events back, and keeps the rows as they are then."""

    def __init__(
        self,
        table: Table,
        rows: dict[int, Row],
        removed: Mapping[int, RemovedRow],
        changed: Mapping[tuple[int, str], str],
        event_bytes: int,
    ) -> None:
        self._table = table
        self._rows = rows
        self._removed = dict(removed)
        self._changed = changed
        self._columns_of: dict[int, list[str]] = {}
        for row, column in changed:
            self._columns_of.setdefault(row, []).append(column)
        self._event_bytes = event_bytes
        self.events: list[Event] = []
        self.touched: set[int] = set()
        self.left: list[Cell] = []

    def take_back(self, event: StepEvent) -> None:
        fact = event.envelope.event()
        found = _TAKE_BACK[type(fact)](self, fact, event)
        # The log has to say that the event was taken back, even where nothing was left of it.
        self.events += found or [RowEdited(table=self._table.id, rows=[], undoes=event.envelope.id)]

    def edited(self, fact: RowEdited, event: StepEvent) -> list[Event]:
        edits = [found for edit in fact.rows if (found := self._edit(edit, event.before.get(str(edit.row), {})))]
        packed = pack(edits, lambda edit: size_of_values({**edit.changes, **edit.previous}) + 100, self._event_bytes)
        return [RowEdited(table=self._table.id, rows=some, undoes=event.envelope.id) for some in packed]

    def _edit(self, edit: EditedRow, before: Mapping[str, Any]) -> EditedRow | None:
        row = self._rows.get(edit.row)
        if row is None:
            self.left.append(Cell(edit.row, ALL_CELLS, "it was removed"))
            return None
        changes: Values = {}
        reset: list[str] = []
        cells = {*edit.changes, *edit.reset}
        free = [name for name in sorted(cells) if self._is_free(row, name, edit)]
        for name in free:
            target = edit.previous.get(name, row.inputs.get(name))
            known = row.corrected.get(name)
            if known is not None and name in before and before[name] is None:
                # It was no correction before: the cell holds again what upstream says now.
                reset.append(name)
                target = known.get("derived", target)
            # The event names every cell that is a correction again, also where it has the value already.
            if not same(row.inputs.get(name), target) or (name in before and name not in reset):
                changes[name] = target
        if not free:
            return None
        try:
            check_row(self._table.columns, changes)
        except InvalidRowError as error:
            self.left += [Cell(edit.row, item.name, item.message) for item in error.errors]
            return None
        previous = {name: row.inputs.get(name) for name in changes}
        self._rows[row.row] = replace(row, revision=row.revision + 1, inputs={**row.inputs, **changes})
        self.touched.add(row.row)
        return EditedRow(row=row.row, revision=row.revision + 1, changes=changes, previous=previous, reset=reset)

    def _is_free(self, row: Row, name: str, edit: EditedRow) -> bool:
        who = self._changed.get((row.row, name))
        if who is None and name in edit.changes and not same(row.inputs.get(name), edit.changes[name]):
            who = "somebody"
        if who is not None:
            self.left.append(Cell(row.row, name, f"changed by {who}"))
        return who is None

    def added(self, fact: RowsAdded | RowsRestored, event: StepEvent) -> list[Event]:
        gone = []
        for number in (item.row for item in fact.rows):
            row = self._rows.get(number)
            if row is None:
                self.left.append(Cell(number, ALL_CELLS, "it was removed"))
                continue
            changed = [name for name in self._columns_of.get(number, ()) if name != ALL_CELLS]
            if changed:
                self.left += [Cell(number, name, f"changed by {self._changed[number, name]}") for name in changed]
                continue
            gone.append(number)
            self._removed[number] = RemovedRow(number, row.revision, row.inputs)
            del self._rows[number]
        self.touched.update(gone)
        return [
            RowsRemoved(table=self._table.id, rows=gone[start : start + _MAX_IDS], undoes=event.envelope.id)
            for start in range(0, len(gone), _MAX_IDS)
        ]

    def removed(self, fact: RowsRemoved, event: StepEvent) -> list[Event]:
        back = []
        for number in fact.rows:
            held = self._removed.pop(number, None)
            if held is None:
                self.left.append(Cell(number, ALL_CELLS, "what it held is not known any more"))
                continue
            back.append(RestoredRow(row=number, revision=held.revision + 1, inputs=held.inputs))
            self._rows[number] = Row(number, held.revision + 1, self._table.status_of_new_rows, held.inputs)
        self.touched.update(row.row for row in back)
        packed = pack(back, lambda row: size_of_values(row.inputs) + 60, self._event_bytes)
        return [RowsRestored(table=self._table.id, rows=some, undoes=event.envelope.id) for some in packed]


_TAKE_BACK: dict[type, Callable[[_Taking, Any, StepEvent], list[Event]]] = {
    RowEdited: _Taking.edited,
    RowsAdded: _Taking.added,
    RowsRestored: _Taking.added,
    RowsRemoved: _Taking.removed,
}
