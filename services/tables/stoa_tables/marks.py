"""Decide what people's marks do: flags, comments, locks and saved views. Pure functions; nothing here reads or writes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stoa_contracts.events.tables import (
    CommentEdited,
    FlagDefined,
    RowCommented,
    RowFlagged,
    RowLocked,
    UpdatesWithheld,
    View,
    ViewDeleted,
    ViewSaved,
    WithheldRow,
)
from stoa_contracts.registry import Event
from stoa_contracts.types import Cause, Values
from stoa_tables.derivation import Difference
from stoa_tables.domain import Row, Table, same
from stoa_tables.packing import pack, size_of_values
from stoa_tables.problems import ConflictError, ForbiddenError, InvalidRequestError, LockedError, NotFoundError

__all__ = [
    "Comment",
    "Flag",
    "Lock",
    "SavedView",
    "comment_on",
    "define_flag",
    "delete_view",
    "edit_comment",
    "flag_rows",
    "give_up_flag",
    "lock_rows",
    "refuse_locked",
    "save_view",
    "withhold",
]

#: How many row ids an event may list.
_MAX_IDS = 20_000

_MAX_FLAGS = 200
_MAX_VIEWS = 1000
_NAMED_ROWS = 5

_FLAG = re.compile(r"^\w(?:[\w .+-]{0,61}\w)?$")
_COLOUR = re.compile(r"^#[0-9a-fA-F]{6}$")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a table."""

    flag: str
    colour: str
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as the commands see it."""

    comment: str
    table: str
    row: int
    author: str
    text: str | None
    created: str
    position: int
    element: int | None = None
    column: str | None = None
    replies_to: str | None = None
    edited: str | None = None


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of a row."""

    row: int
    by: str
    time: str
    reason: str | None = None
    withheld: Values = field(default_factory=dict)
    """What upstream says of cells that the lock keeps as they are."""
    gone: bool = False
    """Whether nothing upstream gives the row any more."""


@dataclass(frozen=True, slots=True)
class SavedView:
    """A view with the person who saved it."""

    author: str
    view: View

    def visible_to(self, person: str) -> bool:
        """Tell whether a person may see the view."""
        return self.view.shared or self.author == person


def _existing(table: Table, rows: Mapping[int, Row], wanted: Iterable[int]) -> list[int]:
    ids = sorted(set(wanted))
    for row in ids:
        if row not in rows:
            raise NotFoundError(f"The table {table.name} has no row {row}", row=row)
    return ids


def _chunks(rows: Sequence[int]) -> list[list[int]]:
    return [list(rows[start : start + _MAX_IDS]) for start in range(0, len(rows), _MAX_IDS)]


# --- flags -------------------------------------------------------------------------------------------------------------


def define_flag(
    table: Table, flags: Mapping[str, Flag], name: str, *, colour: str, description: str | None
) -> list[Event]:
    """Define a flag, or change its colour and description.

    Raises
    ------
    InvalidRequestError
        If the name is no name, or the colour no colour.
    ConflictError
        If another flag differs only in case, or the table has too many.
    """
    if not _FLAG.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} is no name for a flag: it has up to 63 letters, digits, spaces and _ . + -, and begins and ends with a letter or digit",
            flag=name,
        )
    if not _COLOUR.fullmatch(colour):
        raise InvalidRequestError(f"{colour!r} is no colour: it is written #rrggbb, such as #d9480f", colour=colour)
    new = Flag(name, colour.lower(), description or None)
    if flags.get(name) == new:
        return []
    if name not in flags:
        for known in flags:
            if known.casefold() == name.casefold():
                raise ConflictError(f"{table.name} has a flag {known!r} already", flag=known)
        if len(flags) >= _MAX_FLAGS:
            raise ConflictError(f"{table.name} has {_MAX_FLAGS} flags; give up one of them first")
    return [FlagDefined(table=table.id, flag=name, colour=new.colour, description=new.description)]


def give_up_flag(table: Table, flags: Mapping[str, Flag], name: str) -> list[Event]:
    """Give a flag up, and take it off every row.

    Raises
    ------
    NotFoundError
        If there is no such flag.
    """
    _known_flag(table, flags, name)
    return [FlagDefined(table=table.id, flag=name, colour=None)]


def flag_rows(
    table: Table,
    flags: Mapping[str, Flag],
    rows: Mapping[int, Row],
    having: Collection[int],
    name: str,
    wanted: Iterable[int],
    *,
    flagged: bool,
) -> list[Event]:
    """Put a flag on rows, or take it off.

    Parameters
    ----------
    table
        The table.
    flags
        Its flags.
    rows
        Those of the rows that exist.
    having
        Those that have the flag.
    name
        The flag.
    wanted
        The rows.
    flagged
        Whether they are to have it.

    Raises
    ------
    NotFoundError
        If there is no such flag or row.
    """
    _known_flag(table, flags, name)
    changed = [row for row in _existing(table, rows, wanted) if (row in having) != flagged]
    return [RowFlagged(table=table.id, rows=some, flag=name, flagged=flagged) for some in _chunks(changed)]


def _known_flag(table: Table, flags: Mapping[str, Flag], name: str) -> None:
    if name in flags:
        return
    close = difflib.get_close_matches(name, flags, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "; define it first"
    raise NotFoundError(f"The table {table.name} has no flag {name!r}{guess}", flag=name)


# --- comments ----------------------------------------------------------------------------------------------------------


def comment_on(
    table: Table,
    row: Row | None,
    number: int,
    *,
    comment: str,
    text: str,
    element: int | None,
    column: str | None,
    replied: Comment | None = None,
) -> list[Event]:
    """Write about a row, an element or a cell, or reply.

    A reply belongs to what its thread is about, whatever it says itself; a reply to a reply belongs to the same thread.

    Raises
    ------
    NotFoundError
        If there is no such row, element or column.
    InvalidRequestError
        If the comment that is replied to is about another row.
    """
    if row is None:
        raise NotFoundError(f"The table {table.name} has no row {number}", row=number)
    if replied is not None:
        if (replied.table, replied.row) != (table.id, number):
            raise InvalidRequestError("A reply belongs to the row of the comment that it replies to")
        element, column = replied.element, replied.column
    else:
        if column is not None and table.column(column) is None:
            raise NotFoundError(f"The table {table.name} has no column {column!r}", column=column)
        if element is not None and element >= (row.elements or 0):
            raise NotFoundError(f"Row {number} of {table.name} has no element {element}", row=number, element=element)
    return [
        RowCommented(
            table=table.id,
            comment=comment,
            row=number,
            element=element,
            column=column,
            replies_to=None if replied is None else replied.replies_to or replied.comment,
            text=text,
        )
    ]


def edit_comment(comment: Comment, person: str, text: str | None) -> list[Event]:
    """Change what a comment says, or withdraw it.

    Raises
    ------
    ForbiddenError
        If somebody else wrote it.
    ConflictError
        If it was withdrawn.
    """
    if comment.author != person:
        raise ForbiddenError(f"{comment.author} wrote this comment; only they can change or withdraw it")
    if comment.text is None:
        if text is None:
            return []
        raise ConflictError("This comment was withdrawn; write a new one")
    if comment.text == text:
        return []
    return [CommentEdited(table=comment.table, comment=comment.comment, text=text, previous=comment.text)]


# --- locks -------------------------------------------------------------------------------------------------------------


def lock_rows(
    table: Table,
    rows: Mapping[int, Row],
    locked: Collection[int],
    wanted: Iterable[int],
    *,
    lock: bool,
    reason: str | None,
) -> list[Event]:
    """Lock rows, or unlock them.

    Parameters
    ----------
    table
        The table.
    rows
        Those of the rows that exist.
    locked
        Those that are locked.
    wanted
        The rows.
    lock
        Whether they are to be locked.
    reason
        Why.

    Raises
    ------
    NotFoundError
        If a row does not exist.
    ConflictError
        If a row that is to be locked is queued or running.
    """
    changed = [row for row in _existing(table, rows, wanted) if (row in locked) != lock]
    busy = [row for row in changed if lock and rows[row].status in {"queued", "running"}]
    if busy:
        raise ConflictError(
            f"{_named(busy)} of {table.name} {'is' if len(busy) == 1 else 'are'} queued or running: wait for the end, or cancel"
            " first",
            rows=busy[:1000],
        )
    return [RowLocked(table=table.id, rows=some, locked=lock, reason=reason or None) for some in _chunks(changed)]


def refuse_locked(table: Table, locked: Mapping[int, Lock], what: str) -> None:
    """Refuse what locked rows do not take.

    Parameters
    ----------
    table
        The table.
    locked
        Those of the rows that are locked.
    what
        What was asked for, as a participle: ``edited``.

    Raises
    ------
    LockedError
        If there are any.
    """
    if not locked:
        return
    rows = sorted(locked)
    lock = locked[rows[0]]
    why = f" ({lock.reason})" if lock.reason else ""
    raise LockedError(
        f"{_named(rows)} of {table.name} {'was' if len(rows) == 1 else 'were'} locked by {lock.by}{why} and cannot be {what}:"
        " unlock first",
        rows=rows[:1000],
    )


def withhold(
    table: Table,
    difference: Difference,
    locked: Mapping[int, Lock],
    compared: Iterable[Row],
    cause: Cause,
    *,
    event_bytes: int,
) -> list[Event]:
    """Take what locked rows would lose or get out of a difference, and tell it instead.

    Parameters
    ----------
    table
        The derived table.
    difference
        What has to change in it; locked rows are taken out.
    locked
        The locks of its rows.
    compared
        The locked rows that were compared with what upstream says.
    cause
        What happened upstream.
    event_bytes
        About how large an event may become.
    """
    if not locked:
        return []
    news: dict[int, WithheldRow] = {row.row: WithheldRow(row=row.row, values={}) for row in compared}
    for row, changes, _ in difference.edited:
        if row.row in locked:
            news[row.row] = WithheldRow(row=row.row, values=changes)
    for row in difference.removed:
        if row.row in locked:
            news[row.row] = WithheldRow(row=row.row, values={}, gone=True)
    difference.edited = [item for item in difference.edited if item[0].row not in locked]
    difference.removed = [row for row in difference.removed if row.row not in locked]
    changed = [
        row
        for number, row in sorted(news.items())
        if not same(locked[number].withheld, row.values) or locked[number].gone != row.gone
    ]
    packed = pack(changed, lambda row: size_of_values(row.values) + 60, event_bytes)
    return [UpdatesWithheld(table=table.id, rows=some, cause=cause) for some in packed]


def _named(rows: Sequence[int]) -> str:
    if len(rows) == 1:
        return f"Row {rows[0]}"
    shown = ", ".join(map(str, rows[:_NAMED_ROWS]))
    return f"Rows {shown}" + (f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else "")


# --- views -------------------------------------------------------------------------------------------------------------


def save_view(table: Table, views: Iterable[SavedView], view: View, person: str) -> list[Event]:
    """Save a view, or change one.

    Parameters
    ----------
    table
        The table.
    views
        Its views.
    view
        The view as it is to be.
    person
        Who saves it.

    Raises
    ------
    ForbiddenError
        If somebody else saved it first.
    ConflictError
        If another view of the same person has the name, or there are too many.
    NotFoundError
        If a column that is to be shown does not exist.
    """
    known = {saved.view.view: saved for saved in views}
    before = known.get(view.view)
    if before is not None and before.author != person:
        raise ForbiddenError(f"{before.author} saved this view; only they can change it")
    if before is None and len(known) >= _MAX_VIEWS:
        raise ConflictError(f"{table.name} has {_MAX_VIEWS} views; delete one of them first")
    for saved in known.values():
        taken = saved.author == person and saved.view.name.casefold() == view.name.casefold()
        if taken and saved.view.view != view.view:
            raise ConflictError(
                f"You have a view of {table.name} called {saved.view.name!r} already", view=saved.view.view
            )
    for name in view.columns or ():
        if table.column(name) is None:
            raise NotFoundError(f"The table {table.name} has no column {name!r}", column=name)
    if before is not None and before.view == view:
        return []
    return [ViewSaved(table=table.id, view=view)]


def delete_view(table: Table, saved: SavedView, person: str) -> list[Event]:
    """Delete a view.

    Raises
    ------
    ForbiddenError
        If somebody else saved it.
    """
    if saved.author != person:
        raise ForbiddenError(f"{saved.author} saved this view; only they can delete it")
    return [ViewDeleted(table=table.id, view=saved.view.view)]
