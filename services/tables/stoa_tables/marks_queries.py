"""What people's marks are among rows: shown on them, filtered by, and views applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stoa_tables.domain import Table
from stoa_tables.marks_store import MarksStore
from stoa_tables.problems import InvalidFilterError, NotFoundError
from stoa_tables.store import Store
from stoa_tables.wire import ElementView, LockView, RowView

if TYPE_CHECKING:
    from stoa_tables.queries import Page

__all__ = ["apply_view", "comment_count", "mark_filters", "show_columns", "show_marks"]


def show_marks(store: Store, table: str, rows: Sequence[RowView]) -> None:
    """Put flags, locks and the number of comments into rows that are shown."""
    marks, ids = MarksStore(store.connection, store.tables), [row.row for row in rows]
    flags, counts, locks = marks.flags_of(table, ids), marks.comment_counts(table, ids), marks.locks(table, ids)
    for row in rows:
        row.flags, row.comments = flags.get(row.row, []), counts.get(row.row, 0)
        if row.row in locks:
            row.locked = LockView.model_validate(locks[row.row], from_attributes=True)


def comment_count(store: Store) -> sa.ColumnElement[Any]:
    """Count the comments on a row, in SQL."""
    row, comment = store.tables["row"], store.tables["comment"]
    mine = (comment.c.table_id == row.c.table_id, comment.c.row == row.c.row, comment.c.text.is_not(None))
    return sa.select(sa.func.count()).where(*mine).correlate(row).scalar_subquery()


def mark_filters(store: Store) -> Mapping[str, Callable[[str, str], sa.ColumnElement[bool]]]:
    """Give what filters named after marks mean: ``flag`` and ``locked``."""
    row, flag, lock = store.tables["row"], store.tables["row_flag"], store.tables["row_lock"]
    any_flag = sa.exists().where(flag.c.table_id == row.c.table_id, flag.c.row == row.c.row).correlate(row)
    any_lock = sa.exists().where(lock.c.table_id == row.c.table_id, lock.c.row == row.c.row).correlate(row)

    def by_flag(operator: str, text: str) -> sa.ColumnElement[bool]:
        if operator in {"=", "!="}:
            found = sa.not_(any_flag) if text == "null" else any_flag.where(flag.c.flag == text)
            return found if operator == "=" else sa.not_(found)
        if operator == "~":
            return any_flag.where(sa.func.lower(flag.c.flag).contains(text.lower(), autoescape=True))
        raise InvalidFilterError(
            f"Flags are compared with = or !=, or searched with ~; they have no order ({operator})"
        )

    def by_lock(operator: str, text: str) -> sa.ColumnElement[bool]:
        if operator not in {"=", "!="} or text not in {"true", "false"}:
            raise InvalidFilterError("A row is locked=true or locked=false")
        return any_lock if (operator == "=") == (text == "true") else sa.not_(any_lock)

    return {"flag": by_flag, "locked": by_lock}


def apply_view(store: Store, table: Table, page: Page) -> None:
    """Let a page show what its saved view says.

    Raises
    ------
    NotFoundError
        If there is no such view, or it is somebody else's.
    """
    if page.view is None:
        return
    saved = None if "\0" in page.view else MarksStore(store.connection, store.tables).view(table.id, page.view)
    if saved is None or not saved.visible_to(page.person):
        raise NotFoundError(f"The table {table.name} has no view {page.view!r}", view=page.view)
    view = saved.view
    page.filters = [*view.filters, *page.filters]
    page.sort = view.sort if page.sort is None else page.sort
    page.status = view.status if page.status is None else page.status
    page.columns = view.columns


def show_columns(page: Page, shown: Sequence[RowView | ElementView]) -> None:
    """Leave out the values of columns that the page does not show."""
    if page.columns is None:
        return
    for item in shown:
        item.values = {name: item.values[name] for name in page.columns if name in item.values}
