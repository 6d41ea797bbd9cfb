"""The value types that events, commands and job messages share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "Cause",
    "CauseKind",
    "ChangedFile",
    "Column",
    "ColumnRole",
    "Derivation",
    "Digest",
    "Display",
    "FileReference",
    "Frozen",
    "InputFile",
    "JobKey",
    "JobReference",
    "LinkKind",
    "LinkSpecification",
    "Mode",
    "Outcome",
    "RowInputs",
    "RowStatus",
    "Scope",
    "SourceElement",
    "TableKind",
    "Timestamp",
    "Trigger",
    "TriggerKind",
    "Usage",
    "Values",
    "table_name_pattern",
]


class Frozen(BaseModel):
    """A value that never changes and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


#: Lower-case hexadecimal SHA-256.
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

#: An instant with its zone, in RFC 3339 form on the wire.
Timestamp = AwareDatetime

#: Column name to value. Files and directories are CWL objects (CWL v1.2, section 4.3), missing values are null.
Values = dict[str, Any]

#: What a person may call a table: it stands in addresses, TAP names and on the command line.
table_name_pattern = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")

TableKind = Literal["worktable", "plain", "join"]
ColumnRole = Literal["key", "input", "output"]
LinkKind = Literal["keyed", "inner", "left"]
Display = Literal["link", "image", "fits", "sexagesimal"]
Scope = Literal["stale", "failed", "rows", "all"]
TriggerKind = Literal["cron", "interval", "upstream", "file"]
Mode = Literal["manual", "automatic", "scheduled"]
RowStatus = Literal["stale", "queued", "running", "current", "failed", "cancelled"]
CauseKind = Literal["edit", "upstream", "workflow", "link", "trigger", "file"]

#: How an attempt ended. ``permanentFail`` and ``temporaryFail`` are CWL's process statuses.
Outcome = Literal["success", "permanentFail", "temporaryFail", "cancelled"]


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
    display: Display | None = Field(
        default=None,
        description="How people see it: as a link, an image, the preview of a FITS file, or in sexagesimal form.",
    )


class FileReference(Frozen):
    """A file by its content."""

    name: str
    sha256: Digest
    size: int = Field(ge=0, description="Bytes.")


class Cause(Frozen):
    """Why rows were invalidated."""

    kind: CauseKind
    table: str | None = Field(default=None, description="The table where the change happened.")
    rows: list[int] | None = Field(default=None, description="The rows that changed there; null for all.")
    workflow_version: Digest | None = None


class InputFile(Frozen):
    """A file or a directory that a job read, and what it held then."""

    location: str = Field(description="The URI in the row.")
    sha256: Digest = Field(
        description="Of a file's bytes, or of the canonical JSON of a directory's names and their digests."
    )
    size: int | None = Field(default=None, ge=0, description="Bytes; null for a directory.")


class ChangedFile(Frozen):
    """A file or a directory that jobs have read, as it is now."""

    location: str = Field(description="The URI in the row.")
    sha256: Digest | None = Field(description="What it holds now; null where it is gone or cannot be read.")
    size: int | None = Field(default=None, ge=0, description="Bytes; null for a directory.")


class JobKey(Frozen):
    """What decides the outputs of a job, as digests: equal keys, equal outputs.

    `digest` names the whole by content, wherever files lie. The other fields are its components as the row says them, so
    that a difference can be named.
    """

    digest: Digest
    workflow: Digest = Field(description="The workflow version.")
    inputs: Digest = Field(description="The input object, files by their locations.")
    files: Digest = Field(description="What the files at those locations held.")
    software: Digest = Field(description="The container images or the programs that ran.")


class Trigger(Frozen):
    """What starts a table's runs without a person."""

    trigger: str
    kind: TriggerKind
    schedule: str | None = Field(
        default=None, description="A cron expression of five fields, or the ISO 8601 duration of an interval."
    )
    timezone: str = Field(default="UTC", description="The IANA name of the zone in which a cron expression is read.")
    files: list[str] = Field(default_factory=list, description="The locations that are watched; none for all inputs.")
    missed: Literal["once", "skip"] = Field(
        default="once", description="Whether firings that were missed are caught up by one, or left out."
    )
    scope: Literal["stale", "failed", "all"] = "stale"
    paused: bool = False


class SourceElement(Frozen):
    """A row of a parent table, and the element in it where a row yields several."""

    table: str
    row: int
    element: int | None = None


class Derivation(Frozen):
    """Where a derived row comes from.

    The identity of a derived row is its link, its source rows and its key: elements that move
    upstream keep their rows here.
    """

    link: str
    key: Digest = Field(
        description="Digest of the values the row is keyed on, with the occurrence number among equals."
    )
    sources: list[SourceElement]


class RowInputs(Frozen):
    """A row as it is added."""

    row: int = Field(ge=1)
    inputs: Values
    derived_from: Derivation | None = None


class JobReference(Frozen):
    """A job and the row revision it computes."""

    job: str
    row: int
    revision: int


class LinkSpecification(Frozen):
    """How a table is filled from one or two parents.

    A ``keyed`` link has one parent. An ``inner`` or ``left`` join has two parents, of which the first is the left one.
    """

    link: str
    kind: LinkKind
    parents: list[str] = Field(min_length=1, max_length=2)
    per: Literal["row", "element", "group"] = Field(
        default="element",
        description=(
            "One child row per parent row, per element, or per group: per distinct values of the key columns, where every"
            " other column holds the array of the group's values."
        ),
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
    filter: str | None = Field(
        default=None, description="Only what this expression over the parent's columns holds for gives rows (keyed)."
    )


class Usage(Frozen):
    """What an attempt cost."""

    wall_s: float = Field(ge=0, description="Seconds from start to end.")
    cpu_s: float = Field(ge=0, description="Seconds of processor time, user and system, of all processes.")
    max_rss_bytes: int = Field(ge=0, description="Peak memory of the largest process.")
