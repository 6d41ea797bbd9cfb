"""What an export says of a table beside what its format has words for, so that an import gives the same table again."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stoa_contracts.types import Display

__all__ = ["CellForm", "FileColumn", "FileMetadata", "escaped", "unescaped"]

CellForm = Literal["plain", "blank", "empty", "escaped", "json"]

_MAX_CHARACTERS = 4 * 1024 * 1024
_EMPTY = r"\-"


class FileColumn(BaseModel):
    """A column of an exported file."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="As the file has it.")
    column: str = Field(description="As the table has it.")
    type: Any = Field(description="The CWL type.")
    cells: CellForm = Field(
        default="plain",
        description="How null and empty differ: what is nothing is null (`blank`) or empty (`empty`), texts are `escaped` with backslashes, or "
        "all is JSON.",
    )
    label: str | None = None
    description: str | None = None
    unit: str | None = None
    ucd: str | None = None
    utype: str | None = None
    display: Display | None = None


class FileMetadata(BaseModel):
    """What an exported file says of itself, under the name ``stoa``."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1] = 1
    table: str = Field(description="The table's name.")
    id: str = Field(description="The table's id.")
    description: str = ""
    position: int = Field(description="The log position that the file shows.")
    view: Literal["rows", "elements"] = "rows"
    filters: list[str] = Field(default_factory=list)
    columns: list[FileColumn]

    @classmethod
    def read(cls, text: str | None) -> FileMetadata | None:
        """Read what an export wrote; None where there is nothing, or nothing that can be understood."""
        if not text or len(text) > _MAX_CHARACTERS:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None

    def write(self) -> str:
        """Write it in ASCII, which every format takes."""
        text = self.model_dump_json(exclude_defaults=True)
        return re.sub(r"[^\x20-\x7e]", lambda found: _utf16(found[0]), text)


def _utf16(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def escaped(text: str) -> str:
    r"""Write a text with the printable characters of ASCII alone, never blank: as Python has it, the empty text as ``\-``."""
    if not text:
        return _EMPTY
    written = text.encode("unicode_escape").decode("ascii")
    # Blanks at its end do not belong to a text in FITS, those at its beginning not in every reader of VOTables.
    return re.sub(r"^ | $", r"\\x20", written)


def unescaped(text: str) -> str:
    """Read what `escaped` wrote.

    Raises
    ------
    ValueError
        If it is something else.
    """
    return "" if text == _EMPTY else text.encode("ascii").decode("unicode_escape")
