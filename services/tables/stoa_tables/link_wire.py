"""What goes over HTTP of links that change, and of tables that depend on others."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stoa_contracts.types import LinkSpecification, TableKind
from stoa_tables.wire import Words

__all__ = [
    "ChangeLink",
    "Consequences",
    "Dependent",
    "Dependents",
    "KeptTable",
    "LostTable",
    "SourceRow",
    "SourcesPage",
    "Unlinked",
]


class ChangeLink(BaseModel):
    """What is to be otherwise; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"mapping": {"product": "path"}, "filter": "snr>5"}]}
    )

    mapping: Annotated[dict[Words, Words], Field(min_length=1)] = Field(
        default_factory=dict, description="Child column to parent column (keyed)."
    )
    keys: list[Words] | None = Field(default=None, description="As in a new link; null for its default (keyed).")
    per: Literal["row", "element", "group"] = Field(default="element", description="As in a new link (keyed).")
    filter: Words | None = Field(default=None, description="As in a new link; null for none (keyed).")
    kind: Literal["inner", "left"] = Field(
        default="inner", description="Whether left rows without a right one stand there, too (joins)."
    )
    on: Annotated[list[tuple[Words, Words]], Field(min_length=1)] = Field(
        default_factory=list, description="Pairs of left and right column that have to be equal (joins)."
    )
    columns: dict[Words, Words] | None = Field(
        default=None, description="Name to `0.column` or `1.column`; null for the default choice (joins)."
    )


class Unlinked(BaseModel):
    """A link that was given up."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    table: str
    link: LinkSpecification
    rows: Literal["stay", "go"]
    affected: int = Field(description="How many rows had come through it.")


class Dependent(BaseModel):
    """A table that is filled from another one, or from one that is."""

    table: str
    name: str
    kind: TableKind
    rows: int
    direct: bool = Field(description="Whether it is filled from the table itself.")
    links: list[LinkSpecification] = Field(description="The links through which it depends on the table.")


class LostTable(BaseModel):
    """A table that would be deleted."""

    table: str
    name: str
    rows: int


class KeptTable(BaseModel):
    """A table that would stay, but lose a link."""

    table: str
    name: str
    link: str
    rows: int = Field(description="How many rows came through the link.")
    becomes: Literal["stay", "go"] = Field(description="Whether these rows would stay as ordinary rows, or be removed.")


class Consequences(BaseModel):
    """What would happen."""

    deleted: list[LostTable]
    unlinked: list[KeptTable]
    rows_removed: int = Field(description="Rows that would be gone, in all tables.")


class Dependents(BaseModel):
    """What depends on a table, and what deleting it would do with `children=unlink` and with `children=delete`."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    table: str
    name: str
    dependents: list[Dependent] = Field(description="Each after those from which it is filled.")
    unlink: Consequences
    delete: Consequences


class SourceRow(BaseModel):
    """A row of a parent, and the element in it."""

    table: str
    row: int
    element: int | None = None


class SourcesPage(BaseModel):
    """From what a row is derived."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    sources: list[SourceRow] = Field(description="In the order of the parent's rows.")
    next: int | None = Field(description="What to give as `offset` for the next page; null on the last one.")
    total: int
