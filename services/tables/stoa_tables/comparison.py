"""Compares a table with itself at another moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from stoa_contracts.types import Column, LinkSpecification, Values
from stoa_tables.domain import Table, same
from stoa_tables.history_wire import CellChange, ChangeOf, ColumnChange, RowChange, Summary, TableChanges
from stoa_tables.models import read_model
from stoa_tables.moments import open_file
from stoa_tables.store import Store
from stoa_tables.wire import shown_values

__all__ = ["Comparison"]

_T = TypeVar("_T")

_BATCH = 1000
_BEFORE = "before"

# Without other names SQLite would take both for the same.
_AFTER_ROW = read_model.tables["row"].alias("row_after")
_BEFORE_ROW = read_model.tables["row"].to_metadata(sa.MetaData(), schema=_BEFORE).alias("row_before")
_COMPARED = ("inputs", "outputs", "status", "outputs_version")


class Comparison:
    """What is different between two moments of a table.

    Parameters
    ----------
    connection
        Of the file of the second moment.
    before
        The file of the first one.
    table
        The table's id.
    """

    def __init__(self, connection: sa.Connection, before: Path, table: str) -> None:
        self._connection = connection
        self._table = table
        self._after, self._links_after = _table(connection, table)
        with open_file(before) as earlier:
            self._before, self._links_before = _table(earlier, table)
        connection.exec_driver_sql(f"ATTACH DATABASE ? AS {_BEFORE}", (str(before),))
        # Rows whose cells were not touched may show other defaults.
        self._all = self._before is not None and self._after is not None and not self._same_columns()

    def _same_columns(self) -> bool:
        described = [
            [(column.name, column.role, column.type, column.default) for column in table.columns] if table else None
            for table in (self._before, self._after)
        ]
        return same(*described)

    def changes(self) -> TableChanges:
        """Tell what is different about the table as such."""
        before, after = self._before, self._after
        columns: dict[str, list[Column | None]] = {}
        for place, table in enumerate((before, after)):
            for column in table.columns if table else ():
                columns.setdefault(column.name, [None, None])[place] = column
        return TableChanges(
            exists=_change(before is not None, after is not None),
            name=_of(before, after, lambda table: table.name),
            description=_of(before, after, lambda table: table.description),
            workflow_version=_of(before, after, lambda table: table.workflow_version),
            columns=[
                ColumnChange(column=name, before=one, after=other)
                for name, (one, other) in columns.items()
                if one != other
            ],
            links=_change(self._links_before, self._links_after),
        )

    def rows(self, after: int = 0) -> Iterator[RowChange]:
        """Give the rows beyond an id that are different, in their order."""
        while True:
            found = self._candidates(after)
            for entry in found:
                change = self._compare(entry)
                if change is not None:
                    yield change
            if len(found) < _BATCH:
                return
            after = found[-1].row

    def summary(self) -> Summary:
        """Count what is different."""
        summary = Summary()
        for row in self.rows():
            if row.change == "added":
                summary.rows_added += 1
            elif row.change == "removed":
                summary.rows_removed += 1
            else:
                summary.rows_changed += 1
                summary.cells_changed += len(row.cells)
                summary.statuses_changed += row.status is not None
        return summary

    def _candidates(self, after: int) -> Sequence[Any]:
        one, other = _BEFORE_ROW, _AFTER_ROW
        both = sa.and_(one.c.table_id == other.c.table_id, one.c.row == other.c.row)
        shown = [
            sa.type_coerce(side.c[name], sa.Text()).label(f"{place}_{name}")
            for place, side in ((_BEFORE, one), ("after", other))
            for name in _COMPARED
        ]
        there = [one.c.row.is_not(None).label("was_there"), other.c.row.is_not(None).label("is_there")]
        differs = sa.or_(
            one.c.row.is_(None),
            *(
                sa.type_coerce(one.c[name], sa.Text()).is_distinct_from(sa.type_coerce(other.c[name], sa.Text()))
                for name in _COMPARED
            ),
        )
        left = (
            sa.select(other.c.row, *there, *shown)
            .select_from(other.outerjoin(one, both))
            .where(other.c.table_id == self._table, other.c.row > after)
            .order_by(other.c.row)
            .limit(_BATCH)
        )
        gone = (
            sa.select(one.c.row, *there, *shown)
            .select_from(one.outerjoin(other, both))
            .where(one.c.table_id == self._table, one.c.row > after, other.c.row.is_(None))
            .order_by(one.c.row)
            .limit(_BATCH)
        )
        present = self._connection.execute(left if self._all else left.where(differs)).all()
        removed = self._connection.execute(gone).all()
        return sorted([*present, *removed], key=lambda entry: entry.row)[:_BATCH]

    def _compare(self, entry: Any) -> RowChange | None:
        before = _values(self._before, entry.before_inputs, entry.before_outputs) if entry.was_there else {}
        after = _values(self._after, entry.after_inputs, entry.after_outputs) if entry.is_there else {}
        roles = {column.name: column.role for table in (self._before, self._after) if table for column in table.columns}
        cells = [
            CellChange(column=name, role=role, before=before.get(name), after=after.get(name))
            for name, role in roles.items()
            if not same(before.get(name), after.get(name))
        ]
        status = _change(entry.before_status, entry.after_status)
        version = _change(entry.before_outputs_version, entry.after_outputs_version)
        change = "changed" if entry.was_there and entry.is_there else "removed" if entry.was_there else "added"
        if change == "changed" and not cells and status is None and version is None:
            return None
        return RowChange(row=entry.row, change=change, status=status, workflow_version=version, cells=cells)


def _values(table: Table | None, inputs: str, outputs: str | None) -> Values:
    if table is None:
        return {}
    return shown_values(table, json.loads(inputs), None if outputs is None else json.loads(outputs))


def _change(before: _T, after: _T) -> ChangeOf[_T] | None:
    return None if before == after else ChangeOf(before=before, after=after)


def _of(before: Table | None, after: Table | None, read: Callable[[Table], str | None]) -> ChangeOf[str | None] | None:
    return _change(*(None if table is None else read(table) for table in (before, after)))


def _table(connection: sa.Connection, table: str) -> tuple[Table | None, list[LinkSpecification]]:
    store = Store(connection, read_model.tables)
    return store.table(table), store.links_of(table)
