"""What happens to worktables. The stream of each event is the table's id."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import (
    Cause,
    Column,
    Derivation,
    Digest,
    FileReference,
    Frozen,
    LinkSpecification,
    RowInputs,
    RowStatus,
    TableKind,
    Timestamp,
    Usage,
    Values,
)

__all__ = [
    "ColumnDescribed",
    "EditedRow",
    "MovedRow",
    "OutputsRecorded",
    "RowEdited",
    "RowStatusChanged",
    "RowsAdded",
    "RowsRemoved",
    "SourcesMoved",
    "StatusChange",
    "TableCreated",
    "TableDeleted",
    "TableInvalidated",
    "TableLinked",
    "TableRenamed",
    "WorkflowChanged",
]


@event("tables", "table-created")
class TableCreated(Event):
    """A table was created. A worktable's columns follow in `workflow-changed`, at the next version of the stream."""

    table: str
    name: str
    kind: TableKind
    owner: str
    project: str
    description: str = ""
    columns: list[Column] = Field(default_factory=list, description="Of a plain table or a join.")


@event("tables", "workflow-changed")
class WorkflowChanged(Event):
    """A worktable has a new workflow version; rows whose outputs came from another version are stale."""

    table: str
    workflow_version: Digest
    previous_version: Digest | None
    main: str = Field(description="The file that holds the process, and after # its id where the file holds several.")
    process_class: str = Field(description="CommandLineTool, Workflow or ExpressionTool.")
    files: list[FileReference]
    columns: list[Column]
    label: str | None = None
    description: str | None = None


@event("tables", "rows-added")
class RowsAdded(Event):
    """Rows were added. They are stale in a worktable and current in a plain table or a join."""

    table: str
    rows: list[RowInputs]
    cause: Cause | None = Field(
        default=None, description="Why, where the rows were derived; null where a person added them."
    )


class EditedRow(Frozen):
    """The new values of a row's changed cells, and what they were."""

    row: int
    revision: int = Field(description="The row's revision after the edit.")
    changes: Values
    previous: Values


@event("tables", "row-edited")
class RowEdited(Event):
    """Inputs of one or several rows were changed in one step. Those rows are stale, their old outputs stay visible.

    Cells of a derived row that a person edits are corrections: later upstream values do not overwrite them.
    """

    table: str
    rows: list[EditedRow]
    cause: Cause | None = Field(
        default=None, description="Why, where the values were derived; null where a person edited them."
    )


@event("tables", "rows-removed")
class RowsRemoved(Event):
    """Rows were removed. Their ids are never used again."""

    table: str
    rows: list[int]
    cause: Cause | None = Field(
        default=None, description="Why, where the rows were derived; null where a person removed them."
    )


class MovedRow(Frozen):
    """A derived row, and where it comes from now."""

    row: int
    derived_from: Derivation


@event("tables", "sources-moved")
class SourcesMoved(Event):
    """Derived rows stay what they are, but what they are derived from stands elsewhere in the parent tables now."""

    table: str
    rows: list[MovedRow]


@event("tables", "outputs-recorded")
class OutputsRecorded(Event):
    """A finished job gave outputs for a row.

    Where `revision` and `workflow_version` are the row's present ones, the row is current; else the outputs are kept in
    the row's history and the row stays stale.
    """

    table: str
    row: int
    revision: int
    workflow_version: Digest
    job: str
    attempt: int
    outputs: Values
    elements: int | None = Field(
        description="How many elements the row yields; null where its outputs are not elements."
    )
    differs: bool = Field(description="Whether the outputs differ from those the row had.")
    started: Timestamp
    finished: Timestamp
    usage: Usage


class StatusChange(Frozen):
    """A row's new status."""

    row: int
    revision: int
    status: RowStatus
    job: str | None = None
    attempt: int | None = Field(
        default=None, description="The attempt at the job, where it is the attempt that says so."
    )
    reason: str | None = Field(default=None, description="One sentence for people: why a row failed or was cancelled.")


@event("tables", "row-status-changed")
class RowStatusChanged(Event):
    """Rows were queued, started, failed or were cancelled.

    Edits make a row stale, and `outputs-recorded` makes it current, without this event.
    """

    table: str
    changes: list[StatusChange]


@event("tables", "table-invalidated")
class TableInvalidated(Event):
    """Rows of a table became stale because of something that happened elsewhere, or to the table's workflow."""

    table: str
    cause: Cause
    rows: list[int] | None = Field(description="The rows that became stale; null for all rows of the table.")


@event("tables", "column-described")
class ColumnDescribed(Event):
    """A person described a column. Its name, role and type stay as they are."""

    table: str
    column: Column
    previous: Column


@event("tables", "table-linked")
class TableLinked(Event):
    """A table is filled from one parent (keyed) or two (a join), and kept up to date from now on."""

    table: str
    link: LinkSpecification


@event("tables", "table-renamed")
class TableRenamed(Event):
    """A table has a new name or description. Its id and its address by id stay."""

    table: str
    name: str
    description: str
    previous: dict[str, Any]


@event("tables", "table-deleted")
class TableDeleted(Event):
    """A table was deleted. Its history stays readable."""

    table: str
    name: str
