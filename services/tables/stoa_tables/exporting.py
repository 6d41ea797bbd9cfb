"""Exports a table as a file: selects rows, puts them on the disk, and writes them in a format."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import anyio.to_thread
import sqlalchemy as sa

from stoa_contracts.types import Column
from stoa_tables.domain import Table
from stoa_tables.problems import InvalidRequestError
from stoa_tables.values import element_type, fill_defaults

if TYPE_CHECKING:
    from stoa_tables.importing import FileFormat
    from stoa_tables.queries import Page, Queries

__all__ = ["ExportRequest", "Exported", "export"]

_ROWS_AT_ONCE = 10_000
_CHARACTERS_AT_ONCE = 16 * 1024 * 1024
_FETCHED_AT_ONCE = 1000
_PIECE = 1024 * 1024

#: What can be exported beside the columns, where no column has the name.
_SPECIAL = {
    "row": Column(name="row", role="key", type="long", description="The row's id."),
    "element": Column(name="element", role="key", type=["null", "long"], description="The element within its row."),
    "status": Column(name="status", role="key", type="string", description="Whether the outputs belong to the inputs."),
    "revision": Column(name="revision", role="key", type="long", description="Grows with every edit of the row."),
}


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported, and how.

    Parameters
    ----------
    table
        Id or name.
    format
        Of the file.
    elements
        Whether each element is a row of the file.
    page
        Filters, status and order.
    columns
        Names of columns, in the order of the file; None for all.
    """

    table: str
    format: FileFormat
    elements: bool
    page: Page
    columns: Sequence[str] | None

    def tag(self, position: int) -> str:
        """Give the ETag of the file that shows a position of the log."""
        page = self.page
        asked = [self.table, self.format, self.elements, list(self.columns or [])]
        asked += [page.sort, list(page.filters), page.status, page.view, page.person]
        return f'"{position}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"'


@dataclass(frozen=True)
class Exported:
    """A file on the disk that has no name there: it is gone once it is closed.

    Parameters
    ----------
    file
        Its content.
    size
        In bytes.
    name
        What it may be called.
    position
        The position of the log that it shows.
    """

    file: IO[bytes]
    size: int
    name: str
    position: int

    async def pieces(self) -> AsyncIterator[bytes]:
        """Read the content, and close the file."""
        try:
            while piece := await anyio.to_thread.run_sync(self.file.read, _PIECE):
                yield piece
        finally:
            self.file.close()


def export(queries: Queries, position: int, request: ExportRequest) -> Exported:
    """Write a table into a file, in one consistent view of the read model.

    Parameters
    ----------
    queries
        Questions to that view.
    position
        The position of the log that it shows.
    request
        What is to be exported.

    Raises
    ------
    InvalidRequestError
        If a column is named that does not exist.
    """
    from stoa_tables.export_cells import MisfitError, spool  # noqa: PLC0415 - loading libraries for files takes a second
    from stoa_tables.export_formats import SUFFIXES, write_table  # noqa: PLC0415 - likewise
    from stoa_tables.file_metadata import FileMetadata  # noqa: PLC0415 - likewise

    table = queries.table(request.table)
    selection = _Selection(table, request)
    statement = queries.unpaged(table, request.page, selection.special, elements=request.elements)
    selection.choose(request.columns if request.columns is not None else request.page.columns)
    said = FileMetadata(
        table=table.name,
        id=table.id,
        description=table.description,
        position=position,
        view="elements" if request.elements else "rows",
        filters=list(request.page.filters),
        columns=[],
    )
    misfits: set[str] = set()
    file = tempfile.TemporaryFile(prefix="stoa-export-")  # noqa: SIM115 - whoever reads it closes it
    try:
        while True:
            with tempfile.TemporaryFile(prefix="stoa-rows-") as rows:
                try:
                    found = queries.store.connection.execute(
                        statement, execution_options={"yield_per": _FETCHED_AT_ONCE}
                    )
                    spooled = spool(selection.columns, selection.chunks(found), rows, misfits)
                except MisfitError as error:
                    # Seldom, and each time one column more is known.
                    misfits.add(error.column)
                    continue
                write_table(request.format, spooled, said, file)
            break
        file.seek(0, 2)
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Exported(file, size, f"{table.name}{SUFFIXES[request.format]}", position)


class _Selection:
    """The columns of a file, and where their values stand in a row of the database."""

    def __init__(self, table: Table, request: ExportRequest) -> None:
        self._table = table
        self._elements = request.elements
        self.special = [name for name in _SPECIAL if name != "element" or request.elements]
        self.columns: list[Column] = []
        self._getters: list[tuple[int, str, Any]] = []

    def choose(self, names: Sequence[str] | None) -> None:
        """Take columns by name, or all of the table."""
        defaults = fill_defaults(self._table.columns, {})
        for name in [column.name for column in self._table.columns] if names is None else self._split(names):
            column = self._table.column(name)
            if column is not None:
                source = 1 if column.role == "output" else 0
                self.columns.append(self._as_exported(column))
                self._getters.append((source, name, defaults.get(name)))
            elif name in self.special:
                self.columns.append(_SPECIAL[name])
                self._getters.append((2 + self.special.index(name), name, None))
            else:
                known = ", ".join([*(item.name for item in self._table.columns[:20]), *self.special])
                raise InvalidRequestError(
                    f"The table {self._table.name} has no column {name!r}; there are {known}", column=name
                )
        if not self.columns:
            raise InvalidRequestError(f"The table {self._table.name} has no columns, so there is nothing to export")

    def _split(self, names: Sequence[str]) -> list[str]:
        """Take lists apart, but not names that have a comma in them."""
        split: list[str] = []
        for name in names:
            whole = self._table.column(name) is not None
            split += [name] if whole else [part.strip() for part in name.split(",") if part.strip()]
        return list(dict.fromkeys(split))

    def _as_exported(self, column: Column) -> Column:
        item = element_type(column.type) if self._elements and column.role == "output" else None
        if item is None:
            return column
        kinds = item if isinstance(item, list) else [item]
        return column.model_copy(update={"type": kinds if "null" in kinds else ["null", *kinds]})

    def chunks(self, found: sa.CursorResult[Any]) -> Iterator[list[list[Any]]]:
        """Yield the values, a list for each column, some thousand rows at a time."""
        chunk: list[list[Any]] = [[] for _ in self._getters]
        characters = 0
        for entry in found:
            inputs, outputs, *special = tuple[Any, ...](entry)
            characters += len(inputs) + len(outputs or "")
            documents = (json.loads(inputs), json.loads(outputs) if outputs else {})
            for values, (source, name, default) in zip(chunk, self._getters, strict=True):
                values.append(special[source - 2] if source > 1 else documents[source].get(name, default))
            if len(chunk[0]) >= _ROWS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
                yield chunk
                chunk, characters = [[] for _ in self._getters], 0
        if chunk[0]:
            yield chunk
