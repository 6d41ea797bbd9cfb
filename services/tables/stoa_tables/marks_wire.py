"""What goes over HTTP of people's marks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stoa_contracts.types import RowStatus, Timestamp
from stoa_tables.marks import Comment, Lock, SavedView
from stoa_tables.wire import LockView, RowId, Words, _Answer, _Request

__all__ = [
    "CommentAnswer",
    "CommentDetail",
    "CommentPage",
    "CommentVersion",
    "CommentView",
    "EditComment",
    "FlagDefinition",
    "FlagList",
    "FlagRows",
    "FlagView",
    "LockList",
    "LockRows",
    "LockedRow",
    "MarkedRows",
    "NewComment",
    "NewView",
    "SavedViewAnswer",
    "SavedViewView",
    "ViewList",
    "comment_view",
    "lock_view",
    "saved_view",
]

_MAX_TEXT = 20_000

_Rows = Annotated[list[RowId], Field(min_length=1)]


# --- flags -------------------------------------------------------------------------------------------------------------


class FlagDefinition(_Request):
    """What a flag looks like, and when people use it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"colour": "#d9480f", "description": "The fit did not converge"}]},
    )

    colour: str = Field(description="#rrggbb")
    description: Words | None = Field(default=None, max_length=1000)


class FlagView(BaseModel):
    """A flag of a table."""

    flag: str
    colour: str = Field(description="#rrggbb")
    description: str | None = None
    rows: int = Field(description="How many rows have it.")


class FlagList(_Answer):
    """The flags of a table, by name."""

    flags: list[FlagView]


class FlagRows(_Request):
    """Rows that get a flag, or lose it: all of them, or none."""

    rows: _Rows
    flagged: bool = Field(default=True, description="False takes the flag off.")


class MarkedRows(_Answer):
    """The rows for which something changed; the others were like this already."""

    rows: list[int]


# --- comments ----------------------------------------------------------------------------------------------------------


class NewComment(_Request):
    """What a person writes about a row, an element or a cell."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "Is this **blended**?", "column": "flux", "element": 0}]},
    )

    text: Words = Field(min_length=1, max_length=_MAX_TEXT, description="Markdown; kept as it is given.")
    element: int | None = Field(default=None, ge=0, lt=2**31, description="The element that it is about.")
    column: Words | None = Field(default=None, max_length=200, description="The cell's column.")
    replies_to: str | None = Field(default=None, max_length=36, description="A comment on the same row.")


class EditComment(_Request):
    """What a comment says from now on."""

    text: Words = Field(min_length=1, max_length=_MAX_TEXT, description="Markdown; kept as it is given.")


class CommentView(BaseModel):
    """A comment."""

    comment: str
    row: int
    element: int | None = None
    column: str | None = None
    replies_to: str | None = Field(default=None, description="The comment that began the thread; null where it did.")
    author: str
    text: str | None = Field(description="Markdown as it was given, which may hold HTML; null where it was withdrawn.")
    created: Timestamp
    edited: Timestamp | None = None


class CommentAnswer(CommentView, _Answer):
    """A comment, and the position that it shows."""


class CommentVersion(BaseModel):
    """What a comment said since a moment."""

    time: Timestamp
    text: str | None = Field(description="Null where it was withdrawn.")


class CommentDetail(CommentAnswer):
    """A comment with everything that it said, the oldest first."""

    versions: list[CommentVersion]


class CommentPage(_Answer):
    """Comments in the order of the list."""

    comments: list[CommentView]
    next: int | None = Field(description="What to give as `after` for the next page; null on the last one.")


# --- locks -------------------------------------------------------------------------------------------------------------


class LockRows(_Request):
    """Rows to lock or unlock: all of them, or none."""

    rows: _Rows
    locked: bool = Field(default=True, description="False unlocks them.")
    reason: Words | None = Field(default=None, max_length=1000)


class LockedRow(LockView):
    """A locked row."""

    row: int


class LockList(_Answer):
    """The locked rows of a table, in their order."""

    locks: list[LockedRow]
    next: int | None = Field(description="What to give as `after` for the next page; null on the last one.")


# --- views -------------------------------------------------------------------------------------------------------------


class NewView(_Request):
    """How to look at a table."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Bright",
                    "shared": True,
                    "filters": ["flux>5"],
                    "sort": "-flux",
                    "columns": ["object", "flux"],
                }
            ]
        },
    )

    name: Words = Field(min_length=1, max_length=200)
    shared: bool = Field(default=False, description="Whether others see it.")
    filters: list[Words] = Field(
        default_factory=list, max_length=50, description="As in the address of a page of rows."
    )
    status: RowStatus | None = None
    sort: Words | None = Field(default=None, max_length=2000)
    columns: list[Words] | None = Field(
        default=None, max_length=2000, description="Those that are shown, in their order; null for all."
    )


class SavedViewView(NewView):
    """A saved view."""

    view: str
    author: str


class SavedViewAnswer(SavedViewView, _Answer):
    """A saved view, and the position that it shows."""


class ViewList(_Answer):
    """The views that the person who asks may see: their own, and shared ones."""

    views: list[SavedViewView]


# --- from the domain ---------------------------------------------------------------------------------------------------


def comment_view(comment: Comment) -> CommentView:
    """Show a comment."""
    return CommentView.model_validate(comment, from_attributes=True)


def lock_view(lock: Lock) -> LockedRow:
    """Show a lock."""
    return LockedRow.model_validate(lock, from_attributes=True)


def saved_view(saved: SavedView) -> SavedViewView:
    """Show a view."""
    return SavedViewView(author=saved.author, **saved.view.model_dump())
