"""What goes over HTTP of accepted and pinned rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stoa_contracts.types import Digest
from stoa_tables.wire import Reason, RowId

__all__ = ["AcceptRows", "Accepted", "ElementKey", "PinRows", "Pinned"]


class AcceptRows(BaseModel):
    """Rows whose outputs are good as they are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"rows": [12], "reason": "The new version only writes another log."}]},
    )

    rows: Annotated[list[RowId], Field(min_length=1)] | None = Field(
        default=None, description="Null for all rows that are stale and have outputs."
    )
    reason: Annotated[Reason, Field(min_length=1)] = Field(description="Why, for those who ask later.")


class Accepted(BaseModel):
    """Rows that were accepted."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    rows: list[int]
    suspected: list[int] = Field(
        description="Those of them that stay stale until what they depend on is settled, and are current then."
    )


class ElementKey(BaseModel):
    """By what elements are known."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"column": "source_id"}]})

    column: Annotated[str, Field(max_length=200)] | None = Field(
        description="An output column that holds an array; null where what a link is keyed on counts again."
    )


class PinRows(BaseModel):
    """Rows that stay with a workflow version."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"rows": [12], "version": "2"}, {"rows": [12], "version": None}]},
    )

    rows: Annotated[list[RowId], Field(min_length=1)]
    version: Annotated[str, Field(max_length=64)] | None = Field(
        description="A version that the table has or had: its number, or its SHA-256. Null where rows follow the table again."
    )


class Pinned(BaseModel):
    """Rows that were pinned, or no longer are."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    rows: list[int] = Field(description="Those for which it is something else than before.")
    workflow_version: Digest | None
