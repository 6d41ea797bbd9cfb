"""What goes over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stoa_contracts.types import (
    Column,
    ColumnRole,
    Digest,
    Display,
    FileReference,
    LinkKind,
    LinkSpecification,
    RowStatus,
    TableKind,
    Timestamp,
    Values,
)
from stoa_tables.corrections import to_be_reviewed
from stoa_tables.domain import Row, Table
from stoa_tables.values import fill_defaults, missing_inputs

__all__ = [
    "Added",
    "Change",
    "ColumnDescription",
    "Confirmation",
    "Correction",
    "CreateTable",
    "Derived",
    "EditRows",
    "Edited",
    "ElementPage",
    "ElementView",
    "Graph",
    "GraphLink",
    "History",
    "Linked",
    "LockView",
    "NewColumn",
    "NewJoin",
    "NewLink",
    "NewRows",
    "NewWorktable",
    "Reason",
    "RemoveRows",
    "Removed",
    "RenameTable",
    "RowAnswer",
    "RowEdit",
    "RowEvent",
    "RowPage",
    "RowView",
    "TableChange",
    "TableDetail",
    "TableList",
    "TableSummary",
    "WorkflowView",
    "correction_views",
    "row_view",
]


def _without_nul(text: str) -> str:
    if "\0" in text:
        msg = "a NUL character cannot be kept"
        raise ValueError(msg)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        msg = "half of a surrogate pair is no valid Unicode"
        raise ValueError(msg)
    return text


#: Text that any database can keep.
Words = Annotated[str, AfterValidator(_without_nul)]

#: A row's id, as far as it can be one.
RowId = Annotated[int, Field(ge=1, lt=2**63)]


#: Why a person did something.
Reason = Annotated[Words, Field(min_length=1, max_length=2000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answer(BaseModel):
    position: int = Field(description="The head of the log of the tables service that this answer shows.")


# --- tables ------------------------------------------------------------------------------------------------------------


class NewColumn(_Request):
    """A column of a plain table."""

    name: Words = Field(min_length=1, max_length=200)
    type: Any = Field(description="The CWL type: a name, or an array, enum, record or union in CWL's JSON form.")
    role: ColumnRole = Field(
        default="input", description="The columns of a plain table are all writable, whatever is given."
    )
    label: Words | None = None
    description: Words | None = None
    unit: Words | None = Field(default=None, description="In VOUnits.")
    ucd: Words | None = Field(default=None, description="UCD1+ word or words.")
    utype: Words | None = None
    default: Any = None
    display: Display | None = Field(default=None, description="How people see the values.")


class NewJoin(_Request):
    """What a join is made of."""

    kind: Literal["inner", "left"] = Field(
        default="inner", description="Whether left rows without a right one stand there, too."
    )
    left: str = Field(description="Id or name of a table.")
    right: str = Field(description="Id or name of a table.")
    on: list[tuple[str, str]] = Field(min_length=1, description="Pairs of left and right column that have to be equal.")
    columns: dict[str, str] | None = Field(
        default=None,
        description="Name to `0.column` (left) or `1.column` (right). Without it: all of the left one, and those of the right "
        "one that are not joined on; where both have a name, the right one is called `<right table>_<name>`.",
    )


class CreateTable(_Request):
    """A plain table or a join; a worktable comes with its files, as multipart/form-data."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "targets",
                    "kind": "plain",
                    "columns": [{"name": "object", "type": "string"}, {"name": "ra", "type": "double", "unit": "deg"}],
                },
                {
                    "name": "catalogue",
                    "kind": "join",
                    "join": {"left": "sources", "right": "coords", "on": [["product", "product"]]},
                },
            ]
        },
    )

    name: Words
    kind: Literal["plain", "join"] = "plain"
    description: Words = ""
    project: Words = "default"
    columns: list[NewColumn] | None = Field(default=None, description="Of a plain table.")
    join: NewJoin | None = Field(default=None, description="Of a join.")


class NewWorktable(_Request):
    """The field `table` beside the files of a worktable's workflow."""

    name: Words
    description: Words = ""
    project: Words = "default"
    main: str | None = Field(
        default=None,
        description="The file that holds the process, and after # its id; where it is not clear from the files.",
    )


class RenameTable(_Request):
    """A new name, a new description, or both."""

    name: Words | None = None
    description: Words | None = None


class TableSummary(BaseModel):
    """A table in a list."""

    id: str
    name: str
    kind: TableKind
    owner: str
    project: str
    description: str
    created: Timestamp
    rows: int
    counts: dict[RowStatus, int] = Field(description="Rows by status; what has none is left out.")
    parents: list[str] = Field(default=[], description="Ids of the tables that fill it.")


class TableList(_Answer):
    """Tables in the order in which they were created."""

    tables: list[TableSummary]


class WorkflowView(BaseModel):
    """A workflow version."""

    version: Digest
    main: str = Field(description="The file that holds the process, and after # its id where the file holds several.")
    process_class: str
    files: list[FileReference]
    label: str | None = None
    description: str | None = None


class TableDetail(_Answer):
    """A table with its columns, workflow and links."""

    id: str
    name: str
    kind: TableKind
    owner: str
    project: str
    description: str
    created: Timestamp
    columns: list[Column]
    workflow: WorkflowView | None
    rows: int
    counts: dict[RowStatus, int]
    links: list[LinkSpecification] = Field(description="The links that fill the table.")
    element_key: str | None = Field(
        default=None, description="The output column by whose value elements are known in linked tables."
    )
    warnings: list[str] = Field(
        default=[], description="What a person should know of a workflow that was just uploaded."
    )


class ColumnDescription(_Request):
    """What is said of a column; what is left out stays, null takes it away."""

    label: Words | None = None
    unit: Words | None = Field(default=None, description="In VOUnits.")
    ucd: Words | None = Field(default=None, description="UCD1+ word or words.")
    utype: Words | None = None
    description: Words | None = None
    display: Display | None = Field(
        default=None,
        description="How people see the values: a link, an image or the preview of a FITS file where they are files or"
        " addresses, sexagesimal where they are numbers.",
    )


# --- rows --------------------------------------------------------------------------------------------------------------


class Derived(BaseModel):
    """Where a derived row comes from."""

    link: str
    sources: list[DerivedSource]
    corrected: dict[str, Correction] = Field(default={}, description="Derived cells that a person edited.")
    review: bool = Field(default=False, description="Whether upstream changed under a correction since it was judged.")


class DerivedSource(BaseModel):
    """A row of a parent, and the element in it."""

    table: str
    row: int
    element: int | None = None


class Confirmation(BaseModel):
    """Who kept a correction after upstream had changed, when and why."""

    by: str
    position: int
    time: Timestamp
    reason: str | None = None


class Correction(BaseModel):
    """Who corrected a derived cell, when and why, and what upstream says of it."""

    by: str
    position: int = Field(description="Where it stands in the log.")
    time: Timestamp | None = None
    reason: str | None = None
    derived: Any = Field(default=None, description="What the cell would hold without the correction.")
    seen: Any = Field(default=None, description="What that was when a person last judged the correction.")
    review: bool = Field(
        default=False, description="Whether upstream says something else now, and does not agree with the correction."
    )
    confirmed: Confirmation | None = None


class LockView(BaseModel):
    """The lock of a row."""

    by: str
    time: Timestamp
    reason: str | None = None
    withheld: Values = Field(
        default={},
        description="What upstream says of cells that the lock keeps as they are; the row takes it when unlocked.",
    )
    gone: bool = Field(
        default=False, description="Whether nothing upstream gives the row any more; it goes when it is unlocked."
    )


class RowView(BaseModel):
    """A row as it is now."""

    row: int = Field(description="The row's id: it never changes, and is never used again.")
    revision: int = Field(description="Grows with every edit; the row's ETag.")
    status: RowStatus
    reason: str | None = Field(default=None, description="Why it failed, was cancelled, or cannot be run.")
    values: Values
    outdated: bool = Field(
        description="Whether the outputs shown were made from other inputs, files, or another workflow version."
    )
    suspected: bool = Field(
        default=False, description="Whether something that the row depends on is being computed anew, or has to be."
    )
    pinned: str | None = Field(default=None, description="The workflow version with which the row stays.")
    elements: int | None = Field(
        default=None, description="How many elements the outputs are; null where they are none."
    )
    job: str | None = Field(default=None, description="The newest job.")
    derived_from: Derived | None = None
    flags: list[str] = Field(default=[], description="The flags that people put on it.")
    comments: int = Field(default=0, description="How many comments there are on it and its cells.")
    locked: LockView | None = Field(default=None, description="Who locked it, and why; null where it is not locked.")


class RowAnswer(RowView, _Answer):
    """A row, and the position that it shows."""


class RowPage(_Answer):
    """Rows in the order that was asked for."""

    rows: list[RowView]
    next: str | None = Field(description="What to give as `after` for the next page; null on the last one.")
    total: int = Field(description="Rows that the filter lets through.")


class ElementView(BaseModel):
    """One element of a row, or the row as a whole where it has none."""

    row: int
    element: int | None
    status: RowStatus
    outdated: bool
    values: Values


class ElementPage(_Answer):
    """Elements in the order that was asked for."""

    elements: list[ElementView]
    next: str | None = Field(description="What to give as `after` for the next page; null on the last one.")
    total: int


class NewRows(_Request):
    """Rows to add."""

    rows: Annotated[list[Values], Field(min_length=1)]


class Added(_Answer):
    """The ids of the rows, in the order in which they were given."""

    rows: list[int]


class RowEdit(_Request):
    """New values for cells of a row."""

    row: RowId
    values: Values
    revision: int | None = Field(
        default=None, description="The revision that the editor saw: if the row has another one, nothing is changed."
    )


class EditRows(_Request):
    """Edits of several rows: all of them are made, or none."""

    reason: Reason | None = Field(default=None, description="Why; it is shown with corrections of derived cells.")
    edits: Annotated[list[RowEdit], Field(min_length=1)]


class EditedRevision(BaseModel):
    """A row that was edited."""

    row: int
    revision: int


class Edited(_Answer):
    """The revisions of the rows after the edit."""

    rows: list[EditedRevision]


class RemoveRows(_Request):
    """Rows to remove."""

    rows: Annotated[list[RowId], Field(min_length=1)]


class Removed(_Answer):
    """What was removed."""

    rows: list[int]


class RowEvent(BaseModel):
    """Something that happened to a row."""

    position: int
    time: Timestamp
    actor: str
    type: str = Field(description="The event's name.")
    summary: str = Field(description="One sentence for people.")
    details: dict[str, Any] = Field(default={}, description="What the event says of this row.")


class History(_Answer):
    """What happened to a row, the newest last."""

    table: str
    row: int
    events: list[RowEvent]


# --- links -------------------------------------------------------------------------------------------------------------


class NewLink(_Request):
    """Fill a worktable's inputs from a parent."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"parent": "products", "per": "element", "mapping": {"product": "path"}}]},
    )

    parent: str = Field(description="Id or name of the parent.")
    per: Literal["row", "element", "group"] = Field(
        default="element",
        description="One row per row of the parent, per element, or per group of rows or elements that are equal in the columns "
        "of `keys`; the other columns then hold the arrays of the group's values, in the order of the parent's rows.",
    )
    mapping: dict[str, str] = Field(min_length=1, description="Child column to parent column.")
    keys: list[str] | None = Field(
        default=None,
        description="The child columns that make a row's identity within its parent row. Default: all mapped ones per element, "
        "none per row.",
    )
    filter: Words | None = Field(
        default=None,
        description="Only rows or elements for which it holds give rows: conditions `column OP value` on the parent's columns, "
        "joined with `and`, `or`, `not` and parentheses, as in `snr>5 and (band=6 or object~Cen)`.",
    )


class Linked(_Answer):
    """A link that was made."""

    link: LinkSpecification
    table: str


class GraphLink(BaseModel):
    """A link with its child."""

    table: str
    link: str
    kind: LinkKind
    parents: list[str]
    per: Literal["row", "element", "group"]
    mapping: dict[str, str]
    keys: list[str]
    on: list[tuple[str, str]]
    filter: str | None


class Graph(_Answer):
    """The tables and what fills them."""

    tables: list[TableSummary]
    links: list[GraphLink]


# --- changes -----------------------------------------------------------------------------------------------------------


class TableChange(BaseModel):
    """What changed in a table."""

    counts: dict[RowStatus, int]
    rows: dict[int, RowStatus | None] | None = Field(
        description="The rows that changed, with their status; null for a removed one. Null instead of all: too many, load anew."
    )
    structure: bool = Field(
        description="Whether its name, columns, workflow or links changed, or it was created or deleted."
    )


class Change(_Answer):
    """What changed since the last one."""

    tables: dict[str, TableChange]


# --- from the domain ---------------------------------------------------------------------------------------------------


def row_view(table: Table, row: Row, parents: dict[str, list[str]]) -> RowView:
    """Show a row.

    Parameters
    ----------
    table
        The table.
    row
        The row.
    parents
        Parents by link.
    """
    return RowView.model_construct(
        row=row.row,
        revision=row.revision,
        status=row.status,
        reason=row.reason or _what_is_missing(table, row),
        values=shown_values(table, row.inputs, row.outputs),
        outdated=row.outdated(table.workflow_version),
        suspected=row.suspected,
        pinned=row.pinned,
        elements=row.elements,
        job=row.job,
        derived_from=_derived(row, parents),
    )


def shown_values(table: Table, inputs: Values, outputs: Values | None) -> Values:
    """Give a value for every column, in the columns' order."""
    complete = fill_defaults(table.columns, inputs)
    found = outputs or {}
    return {
        column.name: found.get(column.name) if column.role == "output" else complete.get(column.name)
        for column in table.columns
    }


def _what_is_missing(table: Table, row: Row) -> str | None:
    if row.status != "stale" or table.kind != "worktable":
        return None
    missing = missing_inputs(table.columns, row.inputs)
    if not missing:
        return None
    return f"{'A value is' if len(missing) == 1 else 'Values are'} missing: {', '.join(missing)}"


def _derived(row: Row, parents: dict[str, list[str]]) -> Derived | None:
    if row.link is None:
        return None
    sources = [
        DerivedSource(table=parent, row=source.row, element=source.element)
        for parent, source in zip(parents.get(row.link, []), row.sources, strict=False)
        if source is not None
    ]
    corrected = correction_views(row)
    review = any(correction.review for correction in corrected.values())
    return Derived(link=row.link, sources=sources, corrected=corrected, review=review)


def correction_views(row: Row) -> dict[str, Correction]:
    """Show the corrections of a row."""
    review = to_be_reviewed(row.corrected, row.inputs)
    return {
        name: Correction.model_validate({**entry, "review": name in review})
        for name, entry in sorted(row.corrected.items())
    }


Derived.model_rebuild()
