"""Answers questions about people's marks from the read model."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from stoa_tables.domain import Table
from stoa_tables.marks import Comment, SavedView
from stoa_tables.marks_store import MarksStore
from stoa_tables.marks_wire import (
    CommentDetail,
    CommentPage,
    CommentVersion,
    FlagList,
    FlagView,
    LockList,
    SavedViewAnswer,
    ViewList,
    comment_view,
    lock_view,
    saved_view,
)
from stoa_tables.problems import NotFoundError
from stoa_tables.queries import Queries
from stoa_tables.store import Store

__all__ = [
    "comment",
    "comments_of_row",
    "comments_of_table",
    "find_comment",
    "find_view",
    "flag_list",
    "flags",
    "locks",
    "view",
    "views",
]


def flags(queries: Queries, name: str, position: int) -> FlagList:
    """List the flags of a table."""
    return flag_list(queries.store, queries.table(name), position)


def flag_list(store: Store, table: Table, position: int) -> FlagList:
    """List a table's flags with the number of rows that have them."""
    found = _marks(store)
    counts = found.flag_counts(table.id)
    flags = [
        FlagView(flag=flag.flag, colour=flag.colour, description=flag.description, rows=counts.get(flag.flag, 0))
        for flag in found.flags(table.id).values()
    ]
    return FlagList(position=position, flags=flags)


def comments_of_table(queries: Queries, name: str, position: int, *, before: int | None, limit: int) -> CommentPage:
    """List the comments on the rows of a table, the newest first."""
    table = queries.table(name)
    found = _marks(queries.store).comments_of_table(table.id, before=before, limit=limit + 1)
    return _page(found, limit, position)


def comments_of_row(queries: Queries, name: str, row: int, position: int, *, after: int, limit: int) -> CommentPage:
    """List the comments on a row, the oldest first.

    Raises
    ------
    NotFoundError
        If the table never had such a row.
    """
    table = queries.table(name)
    item = queries.store.tables["row_event"]
    mine = sa.exists().where(item.c.table_id == table.id, item.c.row == row)
    if not queries.store.connection.execute(sa.select(mine)).scalar_one():
        raise NotFoundError(f"The table {table.name} has no row {row}, and never had", table=table.id, row=row)
    return _page(_marks(queries.store).comments_of_row(table.id, row, after=after, limit=limit + 1), limit, position)


def _page(found: Sequence[Comment], limit: int, position: int) -> CommentPage:
    after = found[limit - 1].position if len(found) > limit else None
    return CommentPage(position=position, comments=[comment_view(item) for item in found[:limit]], next=after)


def comment(queries: Queries, name: str, comment: str, position: int) -> CommentDetail:
    """Give a comment with everything that it said."""
    table = queries.table(name)
    found = find_comment(queries.store, table, comment)
    versions = [
        CommentVersion.model_validate({"time": time, "text": text})
        for _, time, text in _marks(queries.store).versions(comment)
    ]
    return CommentDetail(position=position, versions=versions, **dict(comment_view(found)))


def find_comment(store: Store, table: Table, comment: str) -> Comment:
    """Find a comment on a table.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found = None if "\0" in comment else _marks(store).comment(comment)
    if found is None or found.table != table.id:
        raise NotFoundError(f"The table {table.name} has no comment {comment!r}", comment=comment)
    return found


def locks(queries: Queries, name: str, position: int, *, after: int, limit: int) -> LockList:
    """List the locked rows of a table."""
    table = queries.table(name)
    found = _marks(queries.store).locks_after(table.id, after, limit + 1)
    shown = [lock_view(lock) for lock in found[:limit]]
    return LockList(position=position, locks=shown, next=shown[-1].row if len(found) > limit else None)


def views(queries: Queries, name: str, position: int, person: str) -> ViewList:
    """List the views that a person may see."""
    found = _marks(queries.store).views(queries.table(name).id)
    return ViewList(position=position, views=[saved_view(item) for item in found if item.visible_to(person)])


def view(queries: Queries, name: str, view: str, position: int, person: str) -> SavedViewAnswer:
    """Give a view."""
    found = find_view(queries.store, queries.table(name), view, person)
    return SavedViewAnswer(position=position, **dict(saved_view(found)))


def find_view(store: Store, table: Table, view: str, person: str) -> SavedView:
    """Find a view that a person may see.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found = None if "\0" in view else _marks(store).view(table.id, view)
    if found is None or not found.visible_to(person):
        raise NotFoundError(f"The table {table.name} has no view {view!r}", view=view)
    return found


def _marks(store: Store) -> MarksStore:
    return MarksStore(store.connection, store.tables)
