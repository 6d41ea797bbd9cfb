"""What happens to worktables. The stream of each event is the table's id."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stoa_contracts.registry import Event, event
from stoa_contracts.types import (
    Cause,
    ChangedFile,
    Column,
    Derivation,
    Digest,
    FileReference,
    Frozen,
    InputFile,
    JobKey,
    LinkSpecification,
    RowInputs,
    RowStatus,
    TableKind,
    Timestamp,
    Usage,
    Values,
)

__all__ = [
    "AcceptedRow",
    "ColumnDescribed",
    "CommentEdited",
    "CorrectionsConfirmed",
    "DerivedValues",
    "DerivedValuesChanged",
    "EditedRow",
    "ElementKeySet",
    "FlagDefined",
    "GroupMember",
    "GroupMembersChanged",
    "ImportedOutputs",
    "LinkChanged",
    "MovedRow",
    "OutputsImported",
    "OutputsRecorded",
    "RestoredRow",
    "ReviewedRow",
    "RowCommented",
    "RowEdited",
    "RowFlagged",
    "RowLocked",
    "RowStatusChanged",
    "RowsAccepted",
    "RowsAdded",
    "RowsConfirmed",
    "RowsPinned",
    "RowsRemoved",
    "RowsRestored",
    "SourcesMoved",
    "StatusChange",
    "TableCreated",
    "TableDeleted",
    "TableInvalidated",
    "TableLinked",
    "TableRenamed",
    "TableUnlinked",
    "UpdatesWithheld",
    "View",
    "ViewDeleted",
    "ViewSaved",
    "WithheldRow",
    "WorkflowChanged",
]


@event("tables", "table-created", version=2)
class TableCreated(Event):
    """A table was created. A worktable's columns follow in `workflow-changed`, at the next version of the stream."""

    table: str
    name: str
    kind: TableKind
    owner: str
    project: str
    description: str = ""
    columns: list[Column] = Field(default_factory=list, description="Of a plain table or a join.")


@event("tables", "workflow-changed", version=2)
class WorkflowChanged(Event):
    """A worktable has a new workflow version; rows whose outputs came from another version are stale.

    All that are not pinned are stale, but for those that `rows-confirmed` names next.
    """

    table: str
    workflow_version: Digest
    previous_version: Digest | None
    main: str = Field(description="The file that holds the process, and after # its id where the file holds several.")
    process_class: str = Field(description="CommandLineTool, Workflow or ExpressionTool.")
    files: list[FileReference]
    columns: list[Column]
    label: str | None = None
    description: str | None = None


@event("tables", "rows-added", version=2)
class RowsAdded(Event):
    """Rows were added. They are stale in a worktable and current in a plain table or a join."""

    table: str
    rows: list[RowInputs]
    cause: Cause | None = Field(
        default=None, description="Why, where the rows were derived; null where a person added them."
    )
    imported_from: FileReference | None = Field(default=None, description="The file that the rows were read from.")


class EditedRow(Frozen):
    """The new values of a row's changed cells, and what they were."""

    row: int
    revision: int = Field(description="The row's revision after the edit.")
    changes: Values
    previous: Values
    reset: list[str] = Field(
        default_factory=list, description="The columns whose correction was taken back: their values are derived again."
    )
    restored: bool = Field(
        default=False, description="Whether the row has the inputs again from which its outputs were made."
    )
    current: bool = Field(default=False, description="Whether the row is current with them; else it is stale.")


@event("tables", "row-edited", version=2)
class RowEdited(Event):
    """Inputs of one or several rows were changed in one step. Those rows are stale, their old outputs stay visible.

    A row whose new inputs are those from which its outputs were made is `current`. Whether rows are suspected stays as it was.

    Cells of a derived row that a person edits are corrections: later upstream values do not overwrite them.
    """

    table: str
    rows: list[EditedRow]
    cause: Cause | None = Field(
        default=None, description="Why, where the values were derived; null where a person edited them."
    )
    reason: str | None = Field(default=None, description="Why, in the words of the person who edited them.")
    undoes: str | None = Field(default=None, description="The id of the event that this one takes back.")


@event("tables", "rows-removed", version=2)
class RowsRemoved(Event):
    """Rows were removed. Their ids are never used again."""

    table: str
    rows: list[int]
    cause: Cause | None = Field(
        default=None, description="Why, where the rows were derived; null where a person removed them."
    )
    undoes: str | None = Field(default=None, description="The id of the event that this one takes back.")


class MovedRow(Frozen):
    """A derived row, and where it comes from now."""

    row: int
    derived_from: Derivation


@event("tables", "sources-moved")
class SourcesMoved(Event):
    """Derived rows stay what they are, but what they are derived from stands elsewhere in the parent tables now."""

    table: str
    rows: list[MovedRow]


@event("tables", "outputs-recorded", version=2)
class OutputsRecorded(Event):
    """A finished job gave outputs for a row.

    Where they belong to the row as it is now, the row is current, or stays stale while it is suspected; else they are kept in
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
    key: JobKey | None = Field(default=None, description="What decided the outputs; null where it is not known.")
    files: list[InputFile] = Field(
        default_factory=list, description="What the run read from places whose content may change."
    )
    reused_from: str | None = Field(
        default=None, description="The job with the same key whose outputs these are; null where it was run."
    )
    belongs: bool | None = Field(
        default=None,
        description=(
            "Whether they belong to the row as it is now, perhaps at a later revision with the same inputs; null where"
            " they do if `revision` and `workflow_version` are the row's present ones."
        ),
    )


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


@event("tables", "table-invalidated", version=2)
class TableInvalidated(Event):
    """Rows of a table became stale because of something that happened elsewhere, or to the table's workflow.

    Where they are only `suspected`, something that they depend on is being computed anew: the rows either get other inputs,
    or `rows-confirmed` says that they are current as they are. Rows that failed or were cancelled stay so while they are
    suspected, and rows of plain tables and joins stay current; none of them is run. Where rows are not suspected, they are stale
    for sure.
    """

    table: str
    cause: Cause
    rows: list[int] | None = Field(description="The rows that became stale; null for all rows of the table.")
    suspected: bool = False
    file: ChangedFile | None = Field(default=None, description="The file that changed, as it is now.")


@event("tables", "column-described", version=2)
class ColumnDescribed(Event):
    """A person described a column. Its name, role and type stay as they are."""

    table: str
    column: Column
    previous: Column


@event("tables", "table-linked", version=2)
class TableLinked(Event):
    """A table is filled from one parent (keyed) or two (a join), and kept up to date from now on."""

    table: str
    link: LinkSpecification


@event("tables", "link-changed")
class LinkChanged(Event):
    """A link fills other columns, from other columns, or through another filter. Its id and its parents stay.

    Cells that it no longer fills keep their values, as ordinary cells.
    """

    table: str
    link: LinkSpecification
    previous: LinkSpecification
    columns: list[Column] | None = Field(default=None, description="The columns of a join as they are now.")


class GroupMember(Frozen):
    """A row of a parent, or an element of it, and the group in which it is."""

    row: int
    element: int | None = None
    key: Digest | None = Field(
        description="The `key` of the derived row that holds the group's values; null where it is in no group any more."
    )


@event("tables", "group-members-changed")
class GroupMembersChanged(Event):
    """Rows or elements of a parent came into groups from which rows of this table are derived, or left them.

    The row of a group names no sources of its own: there may be very many, and few of them change at a time.
    """

    table: str
    link: str
    members: list[GroupMember]


@event("tables", "table-unlinked")
class TableUnlinked(Event):
    """A table is no longer filled through a link. Its rows stay as they are, as rows of its own, or were removed before.

    A join is a plain table from then on.
    """

    table: str
    link: LinkSpecification
    rows: Literal["stay", "go"]


class DerivedValues(Frozen):
    """What upstream says of cells that a person corrected."""

    row: int
    values: Values


@event("tables", "derived-values-changed")
class DerivedValuesChanged(Event):
    """Upstream values changed under corrections. The corrections stay, and the rows are marked for review."""

    table: str
    rows: list[DerivedValues]
    cause: Cause


class ReviewedRow(Frozen):
    """Corrections of a row that a person found to be still right."""

    row: int
    columns: list[str]


@event("tables", "corrections-confirmed")
class CorrectionsConfirmed(Event):
    """A person looked at corrections after their upstream values had changed, and keeps them."""

    table: str
    rows: list[ReviewedRow]
    reason: str | None = None


@event("tables", "rows-confirmed")
class RowsConfirmed(Event):
    """Rows are no longer suspected, and those of them that were stale are current without a run.

    What they depend on came out the same, or the workflow version or the file is back from which their outputs were made.
    """

    table: str
    rows: list[int] | None = Field(description="Null for all rows of the table that were suspected.")
    cause: Cause
    file: ChangedFile | None = Field(default=None, description="The file that changed back, as it is now.")


class AcceptedRow(Frozen):
    """A row as it was accepted."""

    row: int
    revision: int
    workflow_version: Digest


@event("tables", "rows-accepted")
class RowsAccepted(Event):
    """A person declared the outputs of stale rows to be those of their present inputs and workflow version.

    The rows are current, or stay stale while they are suspected, until something changes again on which their outputs depend.
    """

    table: str
    rows: list[AcceptedRow]
    reason: str


@event("tables", "rows-pinned")
class RowsPinned(Event):
    """Rows stay with one workflow version, whatever version the table has.

    What that makes of them, `rows-confirmed` and `table-invalidated` say.
    """

    table: str
    rows: list[int]
    workflow_version: Digest | None = Field(description="Null where rows follow the table again.")


class RestoredRow(Frozen):
    """A removed row as it is once more."""

    row: int
    revision: int = Field(description="One more than it had when it was removed.")
    inputs: Values


@event("tables", "rows-restored")
class RowsRestored(Event):
    """A person took the removal of rows back. The rows have their ids and inputs, and are stale."""

    table: str
    rows: list[RestoredRow]
    undoes: str = Field(description="The id of the event that this one takes back.")


class ImportedOutputs(Frozen):
    """What a file says that a run of a row gave."""

    row: int
    revision: int
    outputs: Values
    elements: int | None = None


@event("tables", "outputs-imported")
class OutputsImported(Event):
    """Rows got outputs from a file, where they had been computed elsewhere. The rows are current."""

    table: str
    workflow_version: Digest
    rows: list[ImportedOutputs]
    imported_from: FileReference


@event("tables", "element-key-set")
class ElementKeySet(Event):
    """Elements of a table's rows are known by the value of one output column from now on, not by their place."""

    table: str
    column: str | None = Field(description="Null where their place counts again.")
    previous: str | None


@event("tables", "flag-defined")
class FlagDefined(Event):
    """A flag with which rows of a table can be marked was defined, described anew, or given up."""

    table: str
    flag: str
    colour: str | None = Field(description="#rrggbb; null where the flag was given up, and taken off every row.")
    description: str | None = None


@event("tables", "row-flagged")
class RowFlagged(Event):
    """A flag was put on rows, or taken off."""

    table: str
    rows: list[int]
    flag: str
    flagged: bool


@event("tables", "row-commented")
class RowCommented(Event):
    """A person wrote about a row, or about one of its cells."""

    table: str
    comment: str
    row: int
    element: int | None = None
    column: str | None = Field(default=None, description="The cell's column; null where it is about the row.")
    replies_to: str | None = Field(default=None, description="The comment that began the thread.")
    text: str = Field(description="Markdown.")


@event("tables", "comment-edited")
class CommentEdited(Event):
    """A person changed a comment of their own. What it said before stays in its history."""

    table: str
    comment: str
    text: str | None = Field(description="Markdown; null where the comment was withdrawn.")
    previous: str


@event("tables", "row-locked")
class RowLocked(Event):
    """Rows were locked: nobody edits, removes or runs them until they are unlocked."""

    table: str
    rows: list[int]
    locked: bool
    reason: str | None = None


class WithheldRow(Frozen):
    """What upstream says of a locked row, where that is something else than what the row has."""

    row: int
    values: Values = Field(description="Cells that would have changed; none where the row is again what upstream says.")
    gone: bool = Field(default=False, description="Whether nothing upstream gives the row any more.")


@event("tables", "updates-withheld")
class UpdatesWithheld(Event):
    """Upstream changed, and locked rows stayed as they are. They follow it when they are unlocked."""

    table: str
    rows: list[WithheldRow]
    cause: Cause


class View(Frozen):
    """How somebody looks at a table."""

    view: str
    name: str
    shared: bool = False
    filters: list[str] = Field(default_factory=list, description="As in the address of a page of rows.")
    status: RowStatus | None = None
    sort: str | None = None
    columns: list[str] | None = Field(default=None, description="Those that are shown, in their order; null for all.")


@event("tables", "view-saved")
class ViewSaved(Event):
    """A person saved a view of a table, or changed one."""

    table: str
    view: View


@event("tables", "view-deleted")
class ViewDeleted(Event):
    """A person deleted a view of a table."""

    table: str
    view: str


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
