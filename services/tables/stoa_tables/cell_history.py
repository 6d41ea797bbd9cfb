"""Tells what an event says of one cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stoa_contracts.envelope import Envelope
from stoa_contracts.events import tables as events
from stoa_tables.history_wire import CellEvent

__all__ = ["CellReader"]


@dataclass(frozen=True)
class _Cell:
    row: int
    column: str
    default: Any


@dataclass
class _Undecided:
    """Outputs of an event that does not say whether they belong to the row: what came before it does."""

    entry: CellEvent
    revision: bool | None = None
    version: bool | None = None

    @property
    def decided(self) -> bool:
        return (
            self.revision is False or self.version is False or (self.revision is not None and self.version is not None)
        )


class CellReader:
    """Reads the events of a row backwards, and keeps what they say of one cell.

    Parameters
    ----------
    row, column
        The cell.
    default
        What it holds where nobody filled it in.
    """

    def __init__(self, row: int, column: str, default: Any) -> None:
        self._cell = _Cell(row, column, default)
        self._undecided: list[_Undecided] = []
        self.found: list[CellEvent] = []
        """The newest first."""

    def suffices(self, limit: int) -> bool:
        """Tell whether so many of the newest entries are complete: what the cell showed before is known, too."""
        return not self._undecided and any(entry.shown for entry in self.found[limit:])

    def read(self, envelope: Envelope) -> None:
        """Take the event before those that were read."""
        event = envelope.event()
        self._decide(event)
        tell = _TOLD.get(type(event))
        said = tell(event, self._cell) if tell is not None else None
        if said is None:
            return
        known = {"position": envelope.log_position, "time": envelope.time, "actor": envelope.actor}
        entry = CellEvent.model_validate({**known, "type": envelope.name, "previous": None, "shown": True, **said})
        self.found.append(entry)
        if isinstance(event, events.OutputsRecorded) and event.belongs is None:
            self._undecided.append(_Undecided(entry))

    def _decide(self, event: Any) -> None:
        for each in self._undecided:
            entry = each.entry
            revision = _revision(event, self._cell.row)
            if each.revision is None and revision is not None:
                each.revision = entry.revision == revision
            if each.version is None and isinstance(event, events.WorkflowChanged):
                each.version = entry.workflow_version == event.workflow_version
            if each.decided:
                entry.shown = bool(each.revision and each.version)
        self._undecided = [each for each in self._undecided if not each.decided]

    def complete(self) -> list[CellEvent]:
        """Give what was found, the newest last, each with what the cell showed before."""
        previous = None
        entries = self.found[::-1]
        for entry in entries:
            entry.previous = previous
            if entry.shown:
                previous = entry.value
        return entries


def _revision(event: Any, row: int) -> int | None:
    if isinstance(event, events.RowsAdded):
        return 1 if any(item.row == row for item in event.rows) else None
    if isinstance(event, events.RowEdited | events.RowsRestored):
        return next((item.revision for item in event.rows if item.row == row), None)
    return None


def _added(event: events.RowsAdded, cell: _Cell) -> dict[str, Any] | None:
    added = next((item for item in event.rows if item.row == cell.row), None)
    if added is None or (cell.column not in added.inputs and cell.default is None):
        return None
    return {"value": added.inputs.get(cell.column, cell.default), "revision": 1, "cause": event.cause}


def _edited(event: events.RowEdited, cell: _Cell) -> dict[str, Any] | None:
    edit = next((item for item in event.rows if item.row == cell.row), None)
    if edit is None or cell.column not in edit.changes:
        return None
    return {
        "value": edit.changes[cell.column],
        "revision": edit.revision,
        "cause": event.cause,
        "reason": event.reason,
        "undoes": event.undoes,
        "reset": cell.column in edit.reset,
    }


def _removed(event: events.RowsRemoved, cell: _Cell) -> dict[str, Any] | None:
    if cell.row not in event.rows:
        return None
    return {"value": None, "cause": event.cause, "undoes": event.undoes}


def _restored(event: events.RowsRestored, cell: _Cell) -> dict[str, Any] | None:
    restored = next((item for item in event.rows if item.row == cell.row), None)
    if restored is None or (cell.column not in restored.inputs and cell.default is None):
        return None
    return {
        "value": restored.inputs.get(cell.column, cell.default),
        "revision": restored.revision,
        "undoes": event.undoes,
    }


def _recorded(event: events.OutputsRecorded, cell: _Cell) -> dict[str, Any] | None:
    if event.row != cell.row or cell.column not in event.outputs:
        return None
    return {
        "value": event.outputs[cell.column],
        "shown": bool(event.belongs),
        "revision": event.revision,
        "job": event.job,
        "workflow_version": event.workflow_version,
        "reused_from": event.reused_from,
    }


def _imported(event: events.OutputsImported, cell: _Cell) -> dict[str, Any] | None:
    imported = next((item for item in event.rows if item.row == cell.row), None)
    if imported is None or cell.column not in imported.outputs:
        return None
    return {
        "value": imported.outputs[cell.column],
        "revision": imported.revision,
        "workflow_version": event.workflow_version,
    }


def _derived(event: events.DerivedValuesChanged, cell: _Cell) -> dict[str, Any] | None:
    derived = next((item for item in event.rows if item.row == cell.row), None)
    if derived is None or cell.column not in derived.values:
        return None
    return {"value": derived.values[cell.column], "shown": False, "cause": event.cause}


_TOLD: dict[type, Callable[[Any, _Cell], dict[str, Any] | None]] = {
    events.DerivedValuesChanged: _derived,
    events.OutputsImported: _imported,
    events.OutputsRecorded: _recorded,
    events.RowEdited: _edited,
    events.RowsAdded: _added,
    events.RowsRemoved: _removed,
    events.RowsRestored: _restored,
}
