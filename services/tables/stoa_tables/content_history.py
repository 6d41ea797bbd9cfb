"""Tells what suspicion, acceptance and pins did to one row, in a sentence for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stoa_contracts.events import tables as events
from stoa_contracts.types import Cause

__all__ = ["CONTENT"]

_MOST_ROWS = 5

_Told = tuple[str, dict[str, Any]]

_WORDS = {
    "edit": "{} was edited",
    "upstream": "the outputs of {} are not settled",
    "workflow": "{} has another workflow version",
    "link": "the link to {} was changed",
    "trigger": "a trigger of {} fired",
    "file": "a file changed that {} reads",
}


def _where(cause: Cause, names: Mapping[str, str]) -> str:
    table = names.get(cause.table or "", cause.table or "something upstream")
    if not cause.rows or len(cause.rows) > _MOST_ROWS:
        return table
    return f"{table} row{'' if len(cause.rows) == 1 else 's'} {', '.join(map(str, cause.rows))}"


def _details(cause: Cause) -> dict[str, Any]:
    return {"cause": cause.model_dump(mode="json", exclude_none=True)}


def _invalidated(event: events.TableInvalidated, row: int, names: Mapping[str, str]) -> _Told:
    del row
    details = _details(event.cause)
    if event.file is not None:
        details["file"] = event.file.model_dump(mode="json")
        what = "is gone" if event.file.sha256 is None else "holds something else"
        return f"Stale, because {event.file.location} {what}", details
    why = _WORDS[event.cause.kind].format(_where(event.cause, names))
    return f"{'Suspected' if event.suspected else 'Stale'}, because {why}", details


def _confirmed(event: events.RowsConfirmed, row: int, names: Mapping[str, str]) -> _Told:
    del row
    details = _details(event.cause)
    if event.file is not None:
        details["file"] = event.file.model_dump(mode="json")
        return f"Current again, because {event.file.location} holds what it held", details
    if event.cause.kind == "workflow":
        return "Current again, because its outputs are those of this workflow version", details
    return f"No longer suspected, because {_where(event.cause, names)} came out the same", details


def _accepted(event: events.RowsAccepted, row: int, names: Mapping[str, str]) -> _Told:
    del names
    accepted = next(item for item in event.rows if item.row == row)
    return f"Accepted as current: {event.reason}", {"reason": event.reason, **accepted.model_dump(mode="json")}


def _pinned(event: events.RowsPinned, row: int, names: Mapping[str, str]) -> _Told:
    del row, names
    details = {"workflow_version": event.workflow_version}
    if event.workflow_version is None:
        return "Follows the workflow of the table again", details
    return f"Stays with workflow version {event.workflow_version[:12]}", details


#: By event, for `stoa_tables.history`.
CONTENT: dict[type, Callable[[Any, int, Mapping[str, str]], _Told]] = {
    events.RowsAccepted: _accepted,
    events.RowsConfirmed: _confirmed,
    events.RowsPinned: _pinned,
    events.TableInvalidated: _invalidated,
}
