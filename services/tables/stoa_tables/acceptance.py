"""What people say of rows beside their inputs: that outputs are good as they are, and which workflow version counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stoa_contracts.events.tables import AcceptedRow, ElementKeySet, RowsAccepted, RowsPinned
from stoa_contracts.registry import Event
from stoa_tables.domain import Row, Table
from stoa_tables.problems import ConflictError, InvalidRequestError, NotFoundError
from stoa_tables.values import is_array

__all__ = ["accept_rows", "pin_rows", "set_element_key"]

_MAX_ROWS = 2000


def accept_rows(
    table: Table, rows: Mapping[int, Row], wanted: Sequence[int] | None, *, reason: str
) -> list[RowsAccepted]:
    """Declare the outputs of stale rows to be those of their present inputs and workflow version.

    Parameters
    ----------
    table
        The table.
    rows
        Those of the rows that exist.
    wanted
        Which; null for all that are stale and have outputs. Those whose outputs belong to them stay as they are.
    reason
        Why, in the person's words.

    Raises
    ------
    ConflictError
        If a row has no outputs or is being computed, or there is nothing to accept.
    NotFoundError
        If a row does not exist.
    """
    _refuse_without_workflow(table)
    accepted = []
    for number in sorted(rows if wanted is None else set(wanted)):
        row = rows.get(number)
        if row is None:
            raise NotFoundError(f"The table {table.name} has no row {number}", row=number)
        if wanted is not None and row.outputs is None:
            raise ConflictError(f"Row {number} of {table.name} has no outputs that could be accepted", row=number)
        if wanted is not None and row.status in {"queued", "running"}:
            raise ConflictError(
                f"Row {number} of {table.name} is {row.status}: cancel its job first, or wait for it", row=number
            )
        version = row.own_version(table.workflow_version)
        can_be = row.outputs is not None and row.status in {"stale", "failed", "cancelled"}
        is_current = row.belongs(table.workflow_version) and row.status == "stale"
        if can_be and not is_current and version is not None:
            accepted.append(AcceptedRow(row=number, revision=row.revision, workflow_version=version))
    if not accepted:
        raise ConflictError(
            f"There is nothing to accept in {table.name}: no row has outputs that belong to something else"
        )
    return [
        RowsAccepted(table=table.id, rows=accepted[start : start + _MAX_ROWS], reason=reason)
        for start in range(0, len(accepted), _MAX_ROWS)
    ]


def pin_rows(table: Table, rows: Mapping[int, Row], wanted: Sequence[int], version: str | None) -> list[RowsPinned]:
    """Let rows stay with a workflow version, or follow the table again.

    Parameters
    ----------
    table
        The table.
    rows
        Those of the rows that exist.
    wanted
        Which rows.
    version
        The version; null where they follow the table again.

    Raises
    ------
    ConflictError
        If the table has no workflow.
    NotFoundError
        If a row does not exist.
    """
    _refuse_without_workflow(table)
    for number in wanted:
        if number not in rows:
            raise NotFoundError(f"The table {table.name} has no row {number}", row=number)
    chosen = sorted(number for number, row in rows.items() if row.pinned != version)
    return [
        RowsPinned(table=table.id, rows=chosen[start : start + _MAX_ROWS], workflow_version=version)
        for start in range(0, len(chosen), _MAX_ROWS)
    ]


def _refuse_without_workflow(table: Table) -> None:
    if table.kind != "worktable":
        raise ConflictError(
            f"{table.name} is a {table.kind} table: it has no workflow, and its rows are always current"
        )


def set_element_key(table: Table, name: str | None) -> list[Event]:
    """Let elements be known by the value of an output column, or by their place again.

    Raises
    ------
    ConflictError
        If the table has no workflow.
    InvalidRequestError
        If the column is no output of an array type.
    """
    _refuse_without_workflow(table)
    column = None if name is None else table.column(name)
    if name is not None and (column is None or column.role != "output" or not is_array(column.type)):
        arrays = [known.name for known in table.outputs if is_array(known.type)]
        there_are = f"there are {', '.join(arrays)}" if arrays else "the table has none"
        raise InvalidRequestError(
            f"{name!r} is no output of {table.name} that holds an array; {there_are}", column=name
        )
    if name == table.element_key:
        return []
    return [ElementKeySet(table=table.id, column=name, previous=table.element_key)]
