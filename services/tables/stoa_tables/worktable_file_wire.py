"""What is said of worktable files over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, Field

from stoa_contracts.types import RowStatus

__all__ = ["ImportedFile", "ImportedFiles"]


class ImportedFile(BaseModel):
    """What became of a worktable file."""

    file: str
    table: str = Field(description="Id of the table.")
    name: str
    rows: int
    counts: dict[RowStatus, int]
    notes: list[str] = Field(description="What is otherwise than in the file, for people.")


class ImportedFiles(BaseModel):
    """The tables that were created, parents before their children."""

    tables: list[ImportedFile]
    position: int = Field(description="Position in this service's log that shows it.")
