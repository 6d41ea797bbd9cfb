"""What goes over HTTP when files are imported."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from stoa_contracts.types import Column, FileReference
from stoa_tables.import_process import ReadColumn, RejectedRow
from stoa_tables.wire import TableDetail

__all__ = ["ImportPreview", "ImportReport", "ImportedRows", "NewTableImported"]


class ImportReport(BaseModel):
    """What was found in a file."""

    format: str = Field(description="fits, votable, csv, ecsv or parquet.")
    rows: int = Field(description="Rows in the file.")
    accepted: int = Field(description="Rows that can be taken.")
    rejected_total: int = Field(description="Rows that cannot.")
    rejected: list[RejectedRow] = Field(description="The first hundred of them, in the order of the file.")
    columns: list[ReadColumn] = Field(description="Columns of the file, and what they fill.")
    unmatched_file_columns: dict[str, str] = Field(description="Columns of the file that are not read, and why.")
    unmatched_columns: list[str] = Field(
        description="Columns of the table that the file does not fill; they take their default, or null."
    )
    notes: list[str] = Field(description="What was changed on the way, a sentence each.")


class ImportPreview(ImportReport):
    """What an import would do."""

    position: int
    name: str | None = Field(description="What a new table may be called; null for a table that exists.")
    description: str | None = Field(description="Of a new table.")
    table_columns: list[Column]
    first: list[dict[str, Any]] = Field(description="The first twenty rows as they would be.")


class ImportedRows(ImportReport):
    """What an import did."""

    position: int
    first_row: int | None = Field(description="The id of the first row; null where there was none.")
    last_row: int | None = Field(description="The id of the last row; those between are the others, in their order.")
    imported_from: FileReference


class NewTableImported(TableDetail):
    """A table that was made of a file."""

    imported_from: FileReference
    report: ImportReport
