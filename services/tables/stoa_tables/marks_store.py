"""Reads people's marks into values of the domain, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from stoa_chassis.projection import ReadModel
from stoa_contracts.events.tables import View
from stoa_tables.marks import Comment, Flag, Lock, SavedView
from stoa_tables.store import chunks

__all__ = ["MarksStore"]


class MarksStore:
    """The marks in one transaction.

    Parameters
    ----------
    connection
        Of the transaction.
    tables
        The read model.
    """

    def __init__(self, connection: sa.Connection, tables: ReadModel) -> None:
        self._connection = connection
        self._flag, self._row_flag, self._row = tables["flag"], tables["row_flag"], tables["row"]
        self._comment, self._version = tables["comment"], tables["comment_version"]
        self._lock, self._view = tables["row_lock"], tables["saved_view"]

    # --- flags ---

    def flags(self, table: str) -> dict[str, Flag]:
        """Give a table's flags by name."""
        statement = sa.select(self._flag).where(self._flag.c.table_id == table).order_by(self._flag.c.flag)
        found = self._connection.execute(statement)
        return {entry.flag: Flag(entry.flag, entry.colour, entry.description) for entry in found}

    def flag_counts(self, table: str) -> dict[str, int]:
        """Count the rows that have each flag; rows that were removed do not count."""
        item, row = self._row_flag, self._row
        present = sa.and_(row.c.table_id == item.c.table_id, row.c.row == item.c.row)
        statement = (
            sa.select(item.c.flag, sa.func.count().label("n"))
            .join(row, present)
            .where(item.c.table_id == table)
            .group_by(item.c.flag)
        )
        return {entry.flag: entry.n for entry in self._connection.execute(statement)}

    def flagged(self, table: str, flag: str, rows: Iterable[int]) -> set[int]:
        """Tell which of the rows have a flag."""
        item, found = self._row_flag, set[int]()
        for some in chunks(sorted(set(rows))):
            mine = (item.c.table_id == table, item.c.flag == flag, item.c.row.in_(some))
            found |= set(self._connection.execute(sa.select(item.c.row).where(*mine)).scalars())
        return found

    def flags_of(self, table: str, rows: Iterable[int]) -> dict[int, list[str]]:
        """Give the flags of rows; rows without any are left out."""
        item, found = self._row_flag, dict[int, list[str]]()
        for some in chunks(sorted(set(rows))):
            mine = (item.c.table_id == table, item.c.row.in_(some))
            statement = sa.select(item.c.row, item.c.flag).where(*mine).order_by(item.c.row, item.c.flag)
            for entry in self._connection.execute(statement):
                found.setdefault(entry.row, []).append(entry.flag)
        return found

    # --- comments ---

    def comment(self, comment: str) -> Comment | None:
        """Find a comment."""
        statement = sa.select(self._comment).where(self._comment.c.comment == comment)
        found = self._connection.execute(statement).first()
        return None if found is None else _to_comment(found)

    def comments_of_row(self, table: str, row: int, *, after: int, limit: int) -> list[Comment]:
        """List the comments on a row, the oldest first."""
        item = self._comment
        mine = (item.c.table_id == table, item.c.row == row, item.c.position > after)
        return self._comments(sa.select(item).where(*mine).order_by(item.c.position).limit(limit))

    def comments_of_table(self, table: str, *, before: int | None, limit: int) -> list[Comment]:
        """List the comments on a table's rows, the newest first; those on removed rows are left out."""
        item, row = self._comment, self._row
        present = sa.and_(row.c.table_id == item.c.table_id, row.c.row == item.c.row)
        statement = sa.select(item).join(row, present).where(item.c.table_id == table)
        if before is not None:
            statement = statement.where(item.c.position < before)
        return self._comments(statement.order_by(item.c.position.desc()).limit(limit))

    def _comments(self, statement: sa.Select[Any]) -> list[Comment]:
        return [_to_comment(entry) for entry in self._connection.execute(statement)]

    def versions(self, comment: str) -> list[tuple[int, str, str | None]]:
        """List what a comment said, the oldest first: position, time and text."""
        item = self._version
        statement = sa.select(item).where(item.c.comment == comment).order_by(item.c.position)
        return [(entry.position, entry.time, entry.text) for entry in self._connection.execute(statement)]

    def comment_counts(self, table: str, rows: Iterable[int]) -> dict[int, int]:
        """Count the comments on rows; withdrawn ones do not count."""
        item, found = self._comment, dict[int, int]()
        for some in chunks(sorted(set(rows))):
            mine = (item.c.table_id == table, item.c.row.in_(some), item.c.text.is_not(None))
            statement = sa.select(item.c.row, sa.func.count().label("n")).where(*mine).group_by(item.c.row)
            found |= {entry.row: entry.n for entry in self._connection.execute(statement)}
        return found

    # --- locks ---

    def locks(self, table: str, rows: Iterable[int]) -> dict[int, Lock]:
        """Give the locks of rows; those that have none are left out."""
        item, found = self._lock, dict[int, Lock]()
        for some in chunks(sorted(set(rows))):
            statement = sa.select(item).where(item.c.table_id == table, item.c.row.in_(some))
            found |= {entry.row: _to_lock(entry) for entry in self._connection.execute(statement)}
        return found

    def has_locks(self, table: str) -> bool:
        """Tell whether any row of a table is locked."""
        statement = sa.select(self._lock.c.row).where(self._lock.c.table_id == table).limit(1)
        return self._connection.execute(statement).first() is not None

    def locks_behind(self, table: str) -> dict[int, Lock]:
        """Give the locks of a table that keep rows from following upstream."""
        item = self._lock
        behind = sa.or_(item.c.gone, item.c.withheld.is_not(None))
        statement = sa.select(item).where(item.c.table_id == table, behind)
        return {entry.row: _to_lock(entry) for entry in self._connection.execute(statement)}

    def all_locks(self, table: str) -> dict[int, Lock]:
        """Give every lock of a table, of rows that are there."""
        item, row = self._lock, self._row
        present = sa.and_(row.c.table_id == item.c.table_id, row.c.row == item.c.row)
        statement = sa.select(item).join(row, present).where(item.c.table_id == table)
        return {entry.row: _to_lock(entry) for entry in self._connection.execute(statement)}

    def locks_after(self, table: str, row: int, limit: int) -> list[Lock]:
        """List the locks of a table's rows behind a row, in the order of the rows."""
        item, present = self._lock, self._row
        there = sa.and_(present.c.table_id == item.c.table_id, present.c.row == item.c.row)
        statement = sa.select(item).join(present, there).where(item.c.table_id == table, item.c.row > row)
        return [_to_lock(entry) for entry in self._connection.execute(statement.order_by(item.c.row).limit(limit))]

    # --- views ---

    def views(self, table: str) -> list[SavedView]:
        """List the views of a table in the order in which they were saved first."""
        item = self._view
        statement = sa.select(item).where(item.c.table_id == table).order_by(item.c.view)
        return [_to_view(entry) for entry in self._connection.execute(statement)]

    def view(self, table: str, view: str) -> SavedView | None:
        """Find a view of a table."""
        item = self._view
        statement = sa.select(item).where(item.c.table_id == table, item.c.view == view)
        found = self._connection.execute(statement).first()
        return None if found is None else _to_view(found)


def _to_comment(entry: Any) -> Comment:
    return Comment(
        comment=entry.comment,
        table=entry.table_id,
        row=entry.row,
        author=entry.author,
        text=entry.text,
        created=entry.created,
        position=entry.position,
        element=entry.element,
        column=entry.column,
        replies_to=entry.replies_to,
        edited=entry.edited,
    )


def _to_lock(entry: Any) -> Lock:
    return Lock(entry.row, entry.by, entry.time, entry.reason, entry.withheld or {}, bool(entry.gone))


def _to_view(entry: Any) -> SavedView:
    return SavedView(entry.author, View.model_validate(entry.specification))
