"""Tells what people's marks did to one row, in a sentence for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stoa_contracts.events import tables as events

__all__ = ["TOLD"]

_Told = tuple[str, dict[str, Any]]

_LONGEST = 60


def _flagged(event: events.RowFlagged, row: int, names: Mapping[str, str]) -> _Told:
    del row, names
    return f"{'Got' if event.flagged else 'Lost'} the flag {event.flag}", {"flag": event.flag, "flagged": event.flagged}


def _commented(event: events.RowCommented, row: int, names: Mapping[str, str]) -> _Told:
    del row, names
    verb = "Commented" if event.replies_to is None else "Replied"
    element = "" if event.element is None else f" of element {event.element}"
    place = f" on {event.column}{element}" if event.column else element.replace(" of", " on")
    return f"{verb}{place}: {_short(event.text)}", event.model_dump(mode="json", exclude={"table", "row"})


def _comment_edited(event: events.CommentEdited, row: int, names: Mapping[str, str]) -> _Told:
    del row, names
    details = event.model_dump(mode="json", exclude={"table"})
    if event.text is None:
        return "Withdrew a comment", details
    return f"Changed a comment to: {_short(event.text)}", details


def _locked(event: events.RowLocked, row: int, names: Mapping[str, str]) -> _Told:
    del row, names
    reason = f": {event.reason}" if event.reason else ""
    return f"{'Locked' if event.locked else 'Unlocked'}{reason}", {"locked": event.locked, "reason": event.reason}


def _withheld(event: events.UpdatesWithheld, row: int, names: Mapping[str, str]) -> _Told:
    found = next(item for item in event.rows if item.row == row)
    table = names.get(event.cause.table or "", event.cause.table or "upstream")
    details = {**found.model_dump(mode="json", exclude={"row"}), "cause": event.cause.model_dump(mode="json")}
    if found.gone:
        return f"Kept by its lock, though nothing in {table} gives it any more", details
    if not found.values:
        return f"{table} says again what the locked row has", details
    return f"Kept by its lock, though {', '.join(found.values)} changed because of {table}", details


def _restored(event: events.RowsRestored, row: int, names: Mapping[str, str]) -> _Told:
    del names
    found = next(item for item in event.rows if item.row == row)
    return "Put back", {"revision": found.revision, "inputs": found.inputs, "undoes": event.undoes}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


#: By the type of event.
TOLD: dict[type, Callable[[Any, int, Mapping[str, str]], _Told]] = {
    events.RowFlagged: _flagged,
    events.RowCommented: _commented,
    events.CommentEdited: _comment_edited,
    events.RowLocked: _locked,
    events.RowsRestored: _restored,
    events.UpdatesWithheld: _withheld,
}
