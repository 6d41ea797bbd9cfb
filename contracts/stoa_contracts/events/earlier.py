"""Events as they were before their newest version. Stored events keep the version that they were written in.

Every field that a newer version has beside these may be left out, so that data is carried forward as it is.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stoa_contracts.registry import Event, event, upcaster
from stoa_contracts.types import (
    Cause,
    ColumnRole,
    Digest,
    FileReference,
    Frozen,
    LinkKind,
    Outcome,
    RowInputs,
    TableKind,
    Timestamp,
    Usage,
    Values,
)

__all__: list[str] = []


class Column(Frozen):
    """A column of a table: what it means and which values it takes."""

    name: str = Field(
        min_length=1, max_length=200, description="The CWL parameter's id, or the name in the imported file."
    )
    role: ColumnRole = Field(description="Inputs are writable, outputs and keys are not.")
    type: Any = Field(description="The CWL type: a name, or an array, enum, record or union in CWL's JSON form.")
    label: str | None = None
    description: str | None = None
    unit: str | None = Field(default=None, description="In VOUnits.")
    ucd: str | None = Field(default=None, description="UCD1+ word or words.")
    utype: str | None = None
    default: Any = Field(default=None, description="The value of a cell that nobody filled in.")


class LinkSpecification(Frozen):
    """How a table is filled from one or two parents.

    A ``keyed`` link has one parent. An ``inner`` or ``left`` join has two parents, of which the first is the left one.
    """

    link: str
    kind: LinkKind
    parents: list[str] = Field(min_length=1, max_length=2)
    per: Literal["row", "element"] = Field(
        default="element", description="One child row per parent row, or per element."
    )
    mapping: dict[str, str] = Field(
        description="Child column to parent column; for a join the parent column is written ``0.column`` or ``1.column``."
    )
    keys: list[str] = Field(
        default_factory=list, description="The child columns that make a row's identity within its parent row (keyed)."
    )
    on: list[tuple[str, str]] = Field(
        default_factory=list, description="Pairs of left and right column that must be equal (joins)."
    )


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


class QueuedJob(Frozen):
    """A job: one row revision and the full input object, so that nobody has to read the table again."""

    job: str
    row: int
    revision: int
    inputs: Values


@event("scheduler", "job-queued")
class JobQueued(Event):
    """Jobs were queued in one step; a large step is several events of one `run`."""

    table: str
    run: str = Field(description="What was asked for in one command or by one trigger.")
    requested_by: str
    reason: Literal["command", "automatic"]
    workflow_version: Digest
    priority: int = Field(default=0, description="Higher goes first.")
    jobs: list[QueuedJob]


@event("scheduler", "trigger-set")
class TriggerSet(Event):
    """What starts a table's runs was set: a person (`manual`), or each change that makes rows stale (`automatic`)."""

    table: str
    mode: Literal["manual", "automatic"]
    previous: Literal["manual", "automatic"]


@event("executor", "job-finished")
class JobFinished(Event):
    """An attempt at a job ended. Where `final` is false, another attempt follows."""

    table: str
    job: str
    attempt: int
    row: int
    revision: int
    workflow_version: Digest
    outcome: Outcome
    final: bool = Field(description="Whether this was the last attempt at the job.")
    exit_code: int | None = Field(
        default=None, description="Of the tool that decided the outcome; null where none ran."
    )
    outputs: Values | None = Field(
        default=None, description="The CWL output object, files by digest; null unless it succeeded."
    )
    error: str | None = Field(default=None, description="One sentence for people; null if it succeeded.")
    host: str
    software: dict[str, str] = Field(default_factory=dict, description="Name to version of what ran the job.")
    started: Timestamp
    finished: Timestamp
    usage: Usage
    log: FileReference | None = Field(default=None, description="What the tools wrote to their error streams.")


def _as_it_is(data: dict[str, Any]) -> dict[str, Any]:
    return data


for _service, _name in (
    ("tables", "table-created"),
    ("tables", "workflow-changed"),
    ("tables", "rows-added"),
    ("tables", "row-edited"),
    ("tables", "rows-removed"),
    ("tables", "outputs-recorded"),
    ("tables", "table-invalidated"),
    ("tables", "column-described"),
    ("tables", "table-linked"),
    ("scheduler", "job-queued"),
    ("scheduler", "trigger-set"),
    ("executor", "job-finished"),
):
    upcaster(_service, _name, 1)(_as_it_is)
