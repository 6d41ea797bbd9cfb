"""What goes over HTTP of the past."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from stoa_contracts.types import Cause, Column, ColumnRole, LinkSpecification, Timestamp

__all__ = [
    "CellChange",
    "CellEvent",
    "CellHistory",
    "ChangeOf",
    "ColumnChange",
    "Differences",
    "RowChange",
    "Summary",
    "TableChanges",
]

_T = TypeVar("_T")


class ChangeOf(BaseModel, Generic[_T]):
    """What something was at the first moment, and at the second one."""

    before: _T
    after: _T


class CellChange(BaseModel):
    """A cell that is different."""

    column: str
    role: ColumnRole
    before: Any
    after: Any


class RowChange(BaseModel):
    """A row that is different."""

    row: int
    change: str = Field(description="`added`, `removed` or `changed`.")
    status: ChangeOf[str | None] | None = Field(
        default=None, description="Where it differs; null on the side where the row is not there."
    )
    workflow_version: ChangeOf[str | None] | None = Field(
        default=None, description="Of the run whose outputs the row shows, where it differs."
    )
    cells: list[CellChange] = Field(
        default=[], description="Of a row that was added or removed every cell that is not empty."
    )


class ColumnChange(BaseModel):
    """A column that is different; null on the side where it is not there."""

    column: str
    before: Column | None
    after: Column | None


class TableChanges(BaseModel):
    """What is different about a table as such."""

    exists: ChangeOf[bool] | None = Field(
        default=None, description="Where it was created, or deleted, between the moments."
    )
    name: ChangeOf[str | None] | None = None
    description: ChangeOf[str | None] | None = None
    workflow_version: ChangeOf[str | None] | None = None
    columns: list[ColumnChange] = []
    links: ChangeOf[list[LinkSpecification]] | None = Field(
        default=None, description="What fills it: all links, where any differs."
    )


class Summary(BaseModel):
    """How much is different, over all pages."""

    rows_added: int = 0
    rows_removed: int = 0
    rows_changed: int = 0
    cells_changed: int = Field(default=0, description="In rows that are there at both moments.")
    statuses_changed: int = Field(default=0, description="In rows that are there at both moments.")


class Differences(BaseModel):
    """What is different in a table between two moments."""

    position: int = Field(description="The later of the two positions.")
    table: str
    before: int = Field(description="The position of the first moment.")
    after: int = Field(description="The position of the second moment.")
    changes: TableChanges
    summary: Summary
    rows: list[RowChange] = Field(description="In the order of their ids.")
    next: int | None = Field(description="What to give as `after` for the next page; null on the last one.")


class CellEvent(BaseModel):
    """A value that a cell got, or might have got."""

    position: int
    time: Timestamp
    actor: str
    type: str = Field(description="The event's name.")
    value: Any = Field(description="Null also where the row was removed.")
    previous: Any = Field(description="What the cell showed before.")
    shown: bool = Field(
        description="Whether the cell took the value: outputs of a run for other inputs are not shown, nor what upstream says of a "
        "corrected cell."
    )
    revision: int | None = Field(default=None, description="Of the row: after an edit, or for which it was run.")
    reason: str | None = Field(default=None, description="In the words of the person who did it.")
    cause: Cause | None = Field(default=None, description="Where the value was derived: what changed upstream.")
    undoes: str | None = Field(default=None, description="The id of the event that it takes back.")
    reset: bool = Field(default=False, description="Whether a correction was taken back.")
    job: str | None = None
    workflow_version: str | None = None
    reused_from: str | None = Field(default=None, description="The job whose outputs were taken instead of a run.")


class CellHistory(BaseModel):
    """What a cell held, the newest last."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    table: str
    row: int
    column: str
    events: list[CellEvent]
    before: int | None = Field(
        description="What to give as `before` for what happened earlier; null where that is all."
    )
