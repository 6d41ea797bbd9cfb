"""Evolve: how people's marks change the read model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stoa_contracts.events import tables as events
from stoa_tables.store import chunks

if TYPE_CHECKING:
    from stoa_tables.projection import Batch as Batch

__all__ = ["MARKS", "forget_marks"]


def _time(batch: Batch) -> str:
    time: str = batch.envelope.written_time
    return time


def _flag_defined(batch: Batch, event: events.FlagDefined) -> None:
    flag, row_flag = batch.tables["flag"], batch.tables["row_flag"]
    mine = (flag.c.table_id == event.table, flag.c.flag == event.flag)
    if event.colour is None:
        batch.connection.execute(
            sa.delete(row_flag).where(row_flag.c.table_id == event.table, row_flag.c.flag == event.flag)
        )
        batch.connection.execute(sa.delete(flag).where(*mine))
        return
    values = {"colour": event.colour, "description": event.description}
    if not batch.connection.execute(sa.update(flag).where(*mine).values(values)).rowcount:
        batch.insert("flag", [{"table_id": event.table, "flag": event.flag, **values}])


def _row_flagged(batch: Batch, event: events.RowFlagged) -> None:
    flag = batch.tables["row_flag"]
    for some in chunks(event.rows):
        batch.connection.execute(
            sa.delete(flag).where(flag.c.table_id == event.table, flag.c.flag == event.flag, flag.c.row.in_(some))
        )
    if event.flagged:
        batch.insert(
            "row_flag", [{"table_id": event.table, "row": row, "flag": event.flag} for row in sorted(set(event.rows))]
        )
    batch.remember(sorted(set(event.rows)))


def _row_commented(batch: Batch, event: events.RowCommented) -> None:
    time = _time(batch)
    comment = {
        "comment": event.comment,
        "table_id": event.table,
        "row": event.row,
        "element": event.element,
        "column": event.column,
        "replies_to": event.replies_to,
        "author": batch.envelope.actor,
        "text": event.text,
        "created": time,
        "edited": None,
        "position": batch.position,
    }
    batch.insert("comment", [comment])
    _remember_version(batch, event.comment, event.text)
    batch.remember([event.row])


def _comment_edited(batch: Batch, event: events.CommentEdited) -> None:
    comment = batch.tables["comment"]
    mine = comment.c.comment == event.comment
    row = batch.connection.execute(sa.select(comment.c.row).where(mine)).scalar_one()
    batch.connection.execute(sa.update(comment).where(mine).values(text=event.text, edited=_time(batch)))
    _remember_version(batch, event.comment, event.text)
    batch.remember([row])


def _remember_version(batch: Batch, comment: str, text: str | None) -> None:
    version = {"comment": comment, "position": batch.position, "text": text, "time": _time(batch)}
    batch.insert("comment_version", [version])


def _row_locked(batch: Batch, event: events.RowLocked) -> None:
    batch.delete_rows("row_lock", event.rows)
    if event.locked:
        lock = {
            "table_id": event.table,
            "by": batch.envelope.actor,
            "reason": event.reason,
            "time": _time(batch),
            "withheld": None,
            "gone": False,
        }
        batch.insert("row_lock", [{**lock, "row": row} for row in sorted(set(event.rows))])
    batch.remember(sorted(set(event.rows)))


def _updates_withheld(batch: Batch, event: events.UpdatesWithheld) -> None:
    lock = batch.tables["row_lock"]
    for row in event.rows:
        mine = (lock.c.table_id == event.table, lock.c.row == row.row)
        batch.connection.execute(sa.update(lock).where(*mine).values(withheld=row.values or None, gone=row.gone))
    batch.remember([row.row for row in event.rows])


def _view_saved(batch: Batch, event: events.ViewSaved) -> None:
    view = batch.tables["saved_view"]
    values = {"name": event.view.name, "specification": event.view.model_dump(mode="json")}
    known = sa.update(view).where(view.c.view == event.view.view).values(values)
    if not batch.connection.execute(known).rowcount:
        author = batch.envelope.actor
        batch.insert("saved_view", [{"view": event.view.view, "table_id": event.table, "author": author, **values}])


def _view_deleted(batch: Batch, event: events.ViewDeleted) -> None:
    view = batch.tables["saved_view"]
    batch.connection.execute(sa.delete(view).where(view.c.view == event.view))


def forget_marks(batch: Batch, table: str) -> None:
    """Forget the marks of a table that is deleted; its log still tells them."""
    comment, version = batch.tables["comment"], batch.tables["comment_version"]
    mine = sa.select(comment.c.comment).where(comment.c.table_id == table)
    batch.connection.execute(sa.delete(version).where(version.c.comment.in_(mine)))
    batch.delete_all("comment", "flag", "row_flag", "row_lock", "saved_view")


#: What each event of theirs does.
MARKS: dict[type, Callable[[Batch, Any], None]] = {
    events.FlagDefined: _flag_defined,
    events.RowFlagged: _row_flagged,
    events.RowCommented: _row_commented,
    events.CommentEdited: _comment_edited,
    events.RowLocked: _row_locked,
    events.UpdatesWithheld: _updates_withheld,
    events.ViewSaved: _view_saved,
    events.ViewDeleted: _view_deleted,
}
