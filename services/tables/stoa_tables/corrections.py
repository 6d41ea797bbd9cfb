"""Corrections: what a person says of cells that are derived from other tables. Pure.

A correction stands in the cell until a person takes it back, whatever upstream says. Beside it stand the value that upstream
says now (`derived`) and the one that it said when a person last judged the correction (`seen`). Where upstream says something
else than then, and does not agree with the person, the correction is to be reviewed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from stoa_contracts.events.tables import CorrectionsConfirmed, EditedRow, ReviewedRow, RowEdited
from stoa_contracts.types import Values
from stoa_tables.domain import Row, Table, same
from stoa_tables.packing import pack, size_of_edit
from stoa_tables.problems import ConflictError, InvalidRequestError, NotFoundError

__all__ = [
    "Corrections",
    "after_confirmation",
    "after_edit",
    "after_upstream",
    "confirm",
    "differing",
    "reset",
    "taken_back",
    "to_be_reviewed",
]

#: Column to what is known of its correction, as it stands in the read model.
Corrections = Mapping[str, Mapping[str, Any]]

_MAX_ROWS = 1000


# --- what events do to the corrections of a row --------------------------------------------------------------------------


def after_edit(
    corrections: Corrections,
    edit: EditedRow,
    *,
    derived_columns: Collection[str],
    made: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the corrections of a derived row after a person edited it.

    Parameters
    ----------
    corrections
        Those from before.
    edit
        What the person did.
    derived_columns
        The columns that the row's link fills.
    made
        Who edited, when, where in the log, and why.
    """
    present = dict(corrections)
    for name in sorted(derived_columns & edit.changes.keys()):
        known = corrections.get(name)
        derived = edit.previous.get(name) if known is None else known.get("derived")
        if same(edit.changes[name], derived):
            present.pop(name, None)
        else:
            present[name] = {**made, "derived": derived, "seen": derived}
    for name in edit.reset:
        present.pop(name, None)
    return present


def after_upstream(corrections: Corrections, derived: Values) -> dict[str, Any]:
    """Give the corrections of a row after upstream said other values of its cells."""
    present = dict(corrections)
    for name, value in derived.items():
        if (known := corrections.get(name)) is not None:
            present[name] = {"seen": value, **known, "derived": value}
    return present


def after_confirmation(corrections: Corrections, columns: Iterable[str], made: Mapping[str, Any]) -> dict[str, Any]:
    """Give the corrections of a row after a person found some of them to be still right."""
    present = dict(corrections)
    for name in columns:
        if (known := corrections.get(name)) is not None:
            present[name] = {**known, "seen": known.get("derived"), "confirmed": dict(made)}
    return present


def to_be_reviewed(corrections: Corrections, inputs: Values) -> list[str]:
    """Name the columns whose upstream value is another one than a person saw, and not the one that the person wrote."""
    return [
        name
        for name, known in corrections.items()
        if "derived" in known
        and not same(known["derived"], known.get("seen"))
        and not same(known["derived"], inputs.get(name))
    ]


def differing(row: Row, wanted: Values) -> Values:
    """Give what upstream says of a row's corrected cells, where that is something else than what is known."""
    return {
        name: wanted[name]
        for name, known in row.corrected.items()
        if name in wanted and not ("derived" in known and same(known["derived"], wanted[name]))
    }


# --- decisions ---------------------------------------------------------------------------------------------------------


def taken_back(row: Row, changes: Values) -> list[str]:
    """Name the corrections that an edit takes back, because it writes what is derived."""
    return sorted(
        name
        for name, value in changes.items()
        if (known := row.corrected.get(name)) is not None and "derived" in known and same(known["derived"], value)
    )


def reset(
    table: Table, rows: Mapping[int, Row], wanted: Sequence[int], columns: Sequence[str] | None, *, event_bytes: int
) -> list[RowEdited]:
    """Take corrections back: the cells hold again what is derived.

    Parameters
    ----------
    table
        The table.
    rows
        Those of the rows that exist.
    wanted
        The rows. Those that have no such correction stay as they are.
    columns
        Whose corrections are taken back; None for all.
    event_bytes
        About how large an event may become.

    Raises
    ------
    NotFoundError
        If a row does not exist.
    InvalidRequestError
        If a column does not exist.
    ConflictError
        If none of the rows has such a correction.
    """
    edits = []
    for row, names in _chosen(table, rows, wanted, columns).values():
        derived = {name: row.corrected[name].get("derived") for name in names}
        changes = {name: value for name, value in derived.items() if not same(row.inputs.get(name), value)}
        previous = {name: row.inputs.get(name) for name in changes}
        edits.append(EditedRow(row=row.row, revision=row.revision + 1, changes=changes, previous=previous, reset=names))
    return [RowEdited(table=table.id, rows=some) for some in pack(edits, size_of_edit, event_bytes)]


def confirm(
    table: Table,
    rows: Mapping[int, Row],
    wanted: Sequence[int],
    columns: Sequence[str] | None,
    *,
    reason: str | None,
) -> list[CorrectionsConfirmed]:
    """Keep corrections whose upstream values have changed.

    Parameters
    ----------
    table, rows, wanted, columns
        As for `reset`.
    reason
        Why, in the person's words.

    Raises
    ------
    NotFoundError, InvalidRequestError, ConflictError
        As for `reset`.
    """
    reviewed = []
    for row, names in _chosen(table, rows, wanted, columns).values():
        waiting = [name for name in to_be_reviewed(row.corrected, row.inputs) if name in names]
        if waiting:
            reviewed.append(ReviewedRow(row=row.row, columns=sorted(waiting)))
    return [
        CorrectionsConfirmed(table=table.id, rows=reviewed[start : start + _MAX_ROWS], reason=reason)
        for start in range(0, len(reviewed), _MAX_ROWS)
    ]


def _chosen(
    table: Table, rows: Mapping[int, Row], wanted: Sequence[int], columns: Sequence[str] | None
) -> dict[int, tuple[Row, list[str]]]:
    for name in columns or ():
        if table.column(name) is None:
            raise InvalidRequestError(f"The table {table.name} has no column {name!r}", column=name)
    chosen: dict[int, tuple[Row, list[str]]] = {}
    for number in wanted:
        row = rows.get(number)
        if row is None:
            raise NotFoundError(f"The table {table.name} has no row {number}", row=number)
        names = sorted(name for name in row.corrected if columns is None or name in columns)
        if names:
            chosen[number] = (row, names)
    if not chosen:
        cells = "" if columns is None else f" in {' or '.join(columns)}"
        named = f"Row {wanted[0]}" if len(set(wanted)) == 1 else "None of the rows"
        no = "no" if len(set(wanted)) == 1 else "a"
        raise ConflictError(f"{named} of {table.name} has {no} correction{cells}")
    return chosen
