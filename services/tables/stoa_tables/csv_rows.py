"""Rows from a CSV file: all of them, or a list of what is wrong with it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from stoa_chassis.problems import Problem
from stoa_tables.values import INPUTS, InvalidRowError, InvalidValueError, check_row, fill_defaults, from_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from stoa_contracts.types import Column, ColumnRole, Values

__all__ = ["MAX_PROBLEMS", "CsvProblem", "InvalidCsvError", "parse_csv"]

#: How many problems are reported.
MAX_PROBLEMS = 20

_MAX_CELL = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CsvProblem:
    """One thing that is wrong with a CSV file.

    Parameters
    ----------
    line
        Counted from 1, with the header; the one on which the row begins.
    column
        The name in the header; None if it concerns the whole line.
    message
        A sentence.
    """

    line: int
    column: str | None
    message: str

    def __str__(self) -> str:
        """Write the place and the message as one sentence."""
        place = f"line {self.line}" if self.column is None else f"line {self.line}, column {self.column}"
        return f"{place}: {self.message}"


class InvalidCsvError(Problem, ValueError):
    """A CSV file cannot be taken; no row of it was.

    Parameters
    ----------
    problems
        At least one, and at most `MAX_PROBLEMS`.
    """

    status: ClassVar[int] = 422
    code: ClassVar[str] = "invalid-csv"
    title: ClassVar[str] = "The CSV file cannot be taken"

    def __init__(self, problems: Sequence[CsvProblem]) -> None:
        super().__init__(
            "\n".join(str(problem) for problem in problems),
            problems=[
                {"line": problem.line, "column": problem.column, "message": problem.message} for problem in problems
            ],
        )
        self.problems = list(problems)


def parse_csv(
    source: str | bytes | BinaryIO, columns: Sequence[Column], *, writable: Collection[ColumnRole] = INPUTS
) -> list[Values]:
    """Read rows from CSV.

    Parameters
    ----------
    source
        Text, or bytes in UTF-8, with or without a byte order mark. The first line names the columns, exactly; between
        cells stand commas, or semicolons or tabs if the first line has no comma.
    columns
        The columns of the table.
    writable
        The roles of the columns that may be written.

    Returns
    -------
    list of Values
        Complete rows: an empty cell, like a column that is left out, takes the default, else null.

    Raises
    ------
    InvalidCsvError
        If anything is wrong, with the line and column of each of the first `MAX_PROBLEMS` problems.
    """
    # Arrays of spectra make long cells; the csv module refuses them by default.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    return _Reader(columns, writable).read(_lines(source))


def _lines(source: str | bytes | BinaryIO) -> Iterable[str]:
    if isinstance(source, str):
        return io.StringIO(source.removeprefix("\ufeff"), newline="")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


class _Reader:
    def __init__(self, columns: Sequence[Column], writable: Collection[ColumnRole]) -> None:
        self._columns = columns
        self._writable = writable
        self._known = {column.name: column for column in columns}
        self._problems: list[CsvProblem] = []

    def read(self, lines: Iterable[str]) -> list[Values]:
        rows: list[Values] = []
        start = 1
        lines = iter(lines)
        try:
            first = next(lines, "")
            reader = csv.reader(_chain(first, lines), delimiter=_delimiter(first), strict=True)
            header = next(reader, [])
            names = self._header(header)
            start = reader.line_num + 1
            for cells in reader:
                # A blank line is no row.
                if cells:
                    rows.append(self._row(start, names, cells))
                start = reader.line_num + 1
                if len(self._problems) >= MAX_PROBLEMS:
                    break
        except csv.Error as error:
            self._report(start, None, f"The line cannot be read as CSV: {error}.")
        except UnicodeDecodeError as error:
            self._report(
                start, None, f"The text is not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8."
            )
        if self._problems:
            raise InvalidCsvError(self._problems[:MAX_PROBLEMS])
        return rows

    def _report(self, line: int, column: str | None, message: str) -> None:
        self._problems.append(CsvProblem(line, column, message))

    def _header(self, header: list[str]) -> list[str]:
        names = [name.strip() for name in header]
        if not any(names):
            raise InvalidCsvError([CsvProblem(1, None, "The first line has to name the columns; it is empty.")])
        for index, name in enumerate(names, 1):
            if not name:
                self._report(1, None, f"The column number {index} has no name.")
            elif name in names[: index - 1]:
                self._report(1, name, "The column stands twice in the first line.")
            else:
                try:
                    check_row(self._columns, {name: None}, writable=self._writable)
                except InvalidRowError as error:
                    self._report(1, name, error.message)
        if self._problems:
            # Without knowing the columns, nothing sensible can be said of the cells.
            raise InvalidCsvError(self._problems[:MAX_PROBLEMS])
        return names

    def _row(self, line: int, names: list[str], cells: list[str]) -> Values:
        if len(cells) != len(names):
            self._report(line, None, f"The line has {len(cells)} cells, but there are {len(names)} columns.")
            return {}
        values: Values = {}
        for name, cell in zip(names, cells, strict=True):
            if not cell:
                continue
            try:
                values[name] = from_text(cell, self._known[name].type, name=name)
            except InvalidValueError as error:
                # The place within an array is worth saying, the column's name is said already.
                inner = error.name.removeprefix(name)
                self._report(line, name, f"At {inner}: {error.message}" if inner else error.message)
        return fill_defaults(self._columns, values)


def _chain(first: str, rest: Iterable[str]) -> Iterable[str]:
    yield first
    yield from rest


def _delimiter(first: str) -> str:
    if "," in first:
        return ","
    return next((character for character in ";\t" if character in first), ",")
