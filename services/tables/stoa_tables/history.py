"""Tells what an event did to one row, in a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from stoa_contracts.envelope import Envelope
from stoa_contracts.events import tables as events
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause
from stoa_tables.content_history import CONTENT
from stoa_tables.marks_history import TOLD as MARKS
from stoa_tables.wire import RowEvent

__all__ = ["tell", "tells"]

_LONGEST = 60
_MOST_CELLS = 4
_MOST_ROWS = 5


def tell(envelope: Envelope, row: int, names: Mapping[str, str]) -> RowEvent:
    """Tell what an event did to a row.

    Parameters
    ----------
    envelope
        The event.
    row
        The row's id.
    names
        Names of tables by id.
    """
    event = envelope.event()
    summary, details = _TOLD[type(event)](event, row, names)
    return RowEvent(
        position=envelope.log_position,
        time=envelope.time,
        actor=envelope.actor,
        type=envelope.name,
        summary=summary,
        details=details,
    )


def tells(event: Event) -> bool:
    """Tell whether an event has a sentence of its own."""
    return type(event) in _TOLD


def _added(event: events.RowsAdded, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    added = next(item for item in event.rows if item.row == row)
    details = {"inputs": added.inputs, **_why(event.cause)}
    if added.derived_from is None:
        return "Added", details
    if not added.derived_from.sources:
        return "Derived from a group of rows", {
            **details,
            "derived_from": added.derived_from.model_dump(mode="json"),
        }
    source = added.derived_from.sources[0]
    element = "" if source.element is None else f", element {source.element}"
    return f"Derived from {names.get(source.table, source.table)} row {source.row}{element}", {
        **details,
        "derived_from": added.derived_from.model_dump(mode="json"),
    }


def _edited(event: events.RowEdited, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    edit = next(item for item in event.rows if item.row == row)
    cells = [
        f"{name} from {_short(edit.previous.get(name))} to {_short(value)}" for name, value in edit.changes.items()
    ]
    more = f" and {len(cells) - _MOST_CELLS} more" if len(cells) > _MOST_CELLS else ""
    why = "" if event.cause is None else f", because {_cause(event.cause, names)} changed"
    if event.reason is not None:
        why = f": {event.reason}"
    details = {"revision": edit.revision, "changes": edit.changes, "previous": edit.previous, **_why(event.cause)}
    if event.undoes is not None:
        why = f", to take an edit back{why}"
        details["undoes"] = event.undoes
    if event.reason is not None:
        details["reason"] = event.reason
    reset = ""
    if edit.reset:
        details["reset"] = edit.reset
        reset = f"Took back the correction of {', '.join(edit.reset)}"
    changed = f"Changed {', '.join(cells[:_MOST_CELLS])}{more}" if cells else ""
    return f"{'; '.join(filter(None, [reset, changed]))}{why}", details


def _derived_values(
    event: events.DerivedValuesChanged, row: int, names: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    values = next(item for item in event.rows if item.row == row).values
    cells = ", ".join(f"{name} would be {_short(value)}" for name, value in values.items())
    summary = f"Under a correction {cells}, because {_cause(event.cause, names)} changed"
    return summary, {"values": values, **_why(event.cause)}


def _confirmed(event: events.CorrectionsConfirmed, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del names
    columns = next(item for item in event.rows if item.row == row).columns
    why = "" if event.reason is None else f": {event.reason}"
    return f"Kept the correction of {', '.join(columns)}{why}", {"columns": columns, "reason": event.reason}


def _removed(event: events.RowsRemoved, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del row
    why = "" if event.cause is None else f", because {_cause(event.cause, names)} changed"
    return f"Removed{why}", _why(event.cause)


def _recorded(event: events.OutputsRecorded, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del row, names
    result = "New outputs" if event.differs else "The same outputs"
    elements = "" if event.elements is None else f" with {event.elements} element{'' if event.elements == 1 else 's'}"
    details = event.model_dump(mode="json", exclude={"table", "row"})
    return f"{result}{elements} for revision {event.revision}, after {event.usage.wall_s:.3g} s", details


def _outputs_imported(event: events.OutputsImported, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del names
    imported = next(item for item in event.rows if item.row == row)
    details = {**imported.model_dump(mode="json", exclude={"row"}), "workflow_version": event.workflow_version}
    return f"Outputs that came in {event.imported_from.name}", details


def _status(event: events.RowStatusChanged, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del names
    change = [item for item in event.changes if item.row == row][-1]
    word = {"stale": "Cannot be run", "running": "Started"}.get(change.status, change.status.capitalize())
    reason = f": {change.reason}" if change.reason else ""
    return f"{word}{reason}", change.model_dump(mode="json", exclude={"row"}, exclude_none=True)


def _workflow(event: events.WorkflowChanged, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del row, names
    details = {"workflow_version": event.workflow_version, "previous_version": event.previous_version}
    return f"The table has a new workflow version, {event.workflow_version[:12]}", details


def _unlinked(event: events.TableUnlinked, row: int, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    del row
    parents = " and ".join(names.get(parent, parent) for parent in event.link.parents)
    return f"The table is no longer filled from {parents}", event.model_dump(mode="json", exclude={"table"})


def _cause(cause: Cause, names: Mapping[str, str]) -> str:
    table = names.get(cause.table or "", cause.table or "something upstream")
    if not cause.rows or len(cause.rows) > _MOST_ROWS:
        return f"rows of {table}"
    return f"{table} row{'' if len(cause.rows) == 1 else 's'} {', '.join(map(str, cause.rows))}"


def _why(cause: Cause | None) -> dict[str, Any]:
    return {} if cause is None else {"cause": cause.model_dump(mode="json", exclude_none=True)}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_TOLD: dict[type, Callable[[Any, int, Mapping[str, str]], tuple[str, dict[str, Any]]]] = {
    events.CorrectionsConfirmed: _confirmed,
    events.DerivedValuesChanged: _derived_values,
    events.RowsAdded: _added,
    events.RowEdited: _edited,
    events.RowsRemoved: _removed,
    events.OutputsImported: _outputs_imported,
    events.OutputsRecorded: _recorded,
    events.RowStatusChanged: _status,
    events.TableUnlinked: _unlinked,
    events.WorkflowChanged: _workflow,
    **CONTENT,
    **MARKS,
}
