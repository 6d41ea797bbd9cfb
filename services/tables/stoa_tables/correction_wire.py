"""What goes over HTTP of corrections."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stoa_contracts.types import Values
from stoa_tables.wire import Correction, Reason, RowId, Words

__all__ = ["ChosenCorrections", "ConfirmCorrections", "Confirmed", "CorrectedRow", "CorrectionPage"]


class ChosenCorrections(BaseModel):
    """Some corrections of a table."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"rows": [12], "columns": ["threshold"]}]}
    )

    rows: Annotated[list[RowId], Field(min_length=1)]
    columns: Annotated[list[Words], Field(min_length=1)] | None = Field(
        default=None, description="Null for all corrections of the rows."
    )


class ConfirmCorrections(ChosenCorrections):
    """Corrections that stay, whatever upstream says now."""

    reason: Reason | None = None


class Confirmed(BaseModel):
    """The rows of which corrections were confirmed."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    rows: list[int]


class CorrectedRow(BaseModel):
    """A row with corrections."""

    row: int
    revision: int
    values: Values = Field(description="What the corrected cells hold.")
    corrected: dict[str, Correction]
    review: bool


class CorrectionPage(BaseModel):
    """Rows with corrections, in the order of their ids."""

    position: int = Field(description="The head of the log of the tables service that this answer shows.")
    rows: list[CorrectedRow]
    next: int | None = Field(description="What to give as `after` for the next page; null on the last one.")
    total: int = Field(description="How many rows there are in all, of those that were asked for.")
    review: int = Field(description="How many rows of the table are to be reviewed.")
