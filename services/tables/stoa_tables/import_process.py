"""Reads a file in a process of its own, whose memory and time are bounded, and leaves rows behind that need no more checks.

The readers are libraries that were written for files of friends. Whatever a file does to them happens here.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from stoa_chassis.problems import Problem
from stoa_contracts.types import Column
from stoa_tables.packing import MAX_ROW, size_of_values

if TYPE_CHECKING:
    from stoa_tables.import_matching import Convert, FileField, Match, Matched
    from stoa_tables.import_safety import ImportLimits
    from stoa_tables.importing import FileFormat, Source

__all__ = ["ReadColumn", "ReadFile", "ReadRequest", "RejectedRow", "read_in_process", "rows_of"]

#: How many rejected rows are listed.
MAX_REJECTED = 100

#: How many rows a preview shows.
MAX_SHOWN = 20

_MAX_PROBLEMS_PER_ROW = 10
_MAX_NOTES = 50
_GRACE_S = 30
_MAX_TOLD = 400

# Libraries that make room for many threads and large pools would be refused it.
_SMALL = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")


class ReadRequest(BaseModel):
    """What is to be read, and how."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    folder: Path = Field(description="Where the rows are put.")
    format: str | None = None
    columns: list[Column] | None = Field(default=None, description="Of the table; null where the file makes them.")
    mapping: dict[str, str] = Field(default_factory=dict)
    max_rows: int
    max_bytes: int
    memory_bytes: int
    seconds: int


class RejectedRow(BaseModel):
    """A row of a file that cannot be taken."""

    row: int | None = Field(description="The row, counted from 1; null for a line that is no row.")
    line: int | None = Field(description="The line of a text on which it begins, counted from 1.")
    problems: list[str] = Field(description="What is wrong, a sentence for each column.")


class ReadColumn(BaseModel):
    """A column of a file, and the column of the table that it fills."""

    file_column: str
    column: str
    matched_by: str = Field(description="mapping, name, similar name, ucd; or new, where the table is new.")
    file_type: Any = Field(description="What the file holds, as a CWL type.")
    type: Any = Field(description="What the table takes.")
    file_unit: str | None
    unit: str | None
    note: str = Field(description="What is done with the unit; empty where nothing is to be said.")
    problem: str = Field(description="Why the column cannot be taken; empty where it can.")


class ReadFile(BaseModel):
    """What was found in a file."""

    format: str
    name: str = Field(description="What the table may be called.")
    description: str
    rows: int
    accepted: int
    rejected_total: int
    rejected: list[RejectedRow] = Field(description=f"The first {MAX_REJECTED}.")
    columns: list[ReadColumn]
    unmatched_file_columns: dict[str, str] = Field(description="Columns of the file that are not read, and why.")
    unmatched_columns: list[str] = Field(description="Columns that take their default, or null, in every row.")
    table_columns: list[Column]
    first: list[dict[str, Any]] = Field(description="The first rows as they would be.")
    notes: list[str]


# --- the process that asks ---------------------------------------------------------------------------------------------


def read_in_process(request: ReadRequest) -> ReadFile:
    """Read a file in another process; the rows lie in the folder then, and `rows_of` reads them.

    Raises
    ------
    Problem
        If the file cannot be read, or is larger than the limits.
    """
    asked, answered = request.folder / "request.json", request.folder / "answer.json"
    asked.write_text(request.model_dump_json())
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _SMALL
    try:
        ended = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-m", "stoa_tables.import_process", str(asked), str(answered)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=2 * request.seconds + _GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refusal(request, f"it takes longer than {request.seconds} s") from None
    if ended.returncode == 0 and answered.is_file():
        answer = json.loads(answered.read_bytes())
        if "problem" in answer:
            raise _told(answer["problem"])
        return ReadFile.model_validate(answer)
    if ended.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise _refusal(request, f"it takes longer than {request.seconds} s, or more memory than there is")
    if b"MemoryError" in ended.stderr or b"bad_alloc" in ended.stderr:
        raise _refusal(request, _needs_memory(request))
    raise _refusal(request, "its reader broke down over it, so it is damaged")


def rows_of(folder: Path, columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """Yield the rows that a process left behind, a line at a time."""
    names = [column.name for column in columns if column.role != "output"]
    with (folder / "rows.jsonl").open("rb") as file:
        for line in file:
            yield dict(zip(names, json.loads(line), strict=True))


def _refusal(request: ReadRequest, why: str) -> Problem:
    from stoa_tables.importing import UnreadableFileError  # noqa: PLC0415 - imported when needed

    return UnreadableFileError(f"The file {request.path.name} cannot be read: {why}.")


def _needs_memory(request: ReadRequest) -> str:
    return f"reading it takes more than {request.memory_bytes / 1024**2:,.0f} MiB of memory"


def _told(problem: dict[str, Any]) -> Problem:
    """Raise here what was raised there."""
    from stoa_tables.importing import UnreadableFileError  # noqa: PLC0415 - imported when needed
    from stoa_tables.problems import InvalidRequestError, TooLargeError  # noqa: PLC0415 - likewise

    kinds: dict[str, type[Problem]] = {kind.code: kind for kind in (InvalidRequestError, TooLargeError)}
    kind = kinds.get(problem["code"], UnreadableFileError)
    return kind(problem["detail"], **problem["members"])


# --- the process that reads --------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Read what is asked for and answer, within the limits."""
    asked, answered = map(Path, arguments)
    request = ReadRequest.model_validate_json(asked.read_bytes())
    _bound(request)
    warnings.simplefilter("ignore")
    try:
        answer = _read(request).model_dump(mode="json")
    except Problem as problem:
        answer = {"problem": {"code": problem.code, "detail": problem.detail, "members": problem.members}}
    except MemoryError:
        answer = {"problem": {"code": "", "detail": str(_refusal(request, _needs_memory(request))), "members": {}}}
    answered.write_text(json.dumps(answer))
    return 0


def _bound(request: ReadRequest) -> None:
    _allow_memory(request, request.path)
    resource.setrlimit(resource.RLIMIT_CPU, (request.seconds, request.seconds + _GRACE_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.max_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _read(request: ReadRequest) -> ReadFile:
    from stoa_tables.import_safety import ImportLimits, check_file, unpacked  # noqa: PLC0415 - once the limits hold
    from stoa_tables.importing import FORMATS, guess_format, open_source, readable  # noqa: PLC0415 - likewise
    from stoa_tables.problems import InvalidRequestError  # noqa: PLC0415 - likewise

    limits = ImportLimits(rows=request.max_rows, bytes=request.max_bytes)
    if request.format is not None and request.format not in FORMATS:
        raise InvalidRequestError(f"{request.format!r} is no format that can be read; there are {', '.join(FORMATS)}")
    path = unpacked(request.path, limits)
    _allow_memory(request, path)
    given = next((known for known in FORMATS if known == request.format), None)
    chosen = given if given is not None else guess_format(path)
    check_file(path, chosen, limits)
    source = open_source(path, chosen, as_text=request.columns is not None, lenient=True, max_rows=limits.rows)
    limits.check_columns(len(source.fields))
    with readable(path, chosen):
        reading = _Reading(request, source, chosen, limits)
        return reading.into(request.columns) if request.columns is not None else reading.as_new()


def _allow_memory(request: ReadRequest, mapped: Path) -> None:
    # A file that is mapped takes addresses, not memory.
    soft = request.memory_bytes + mapped.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (soft, request.memory_bytes + max(soft, request.max_bytes)))


class _Reading:
    """Brings the rows of one file into the columns of one table."""

    def __init__(self, request: ReadRequest, source: Source, chosen: FileFormat, limits: ImportLimits) -> None:
        from stoa_tables.file_metadata import FileMetadata  # noqa: PLC0415 - once the limits hold

        self._request = request
        self._source = source
        self._format = chosen
        self._limits = limits
        self._metadata = FileMetadata.read(source.stoa)
        self._rejected: list[RejectedRow] = []
        self._rejected_total = 0
        self._rows = 0
        self._accepted = 0
        self._first: list[dict[str, Any]] = []
        self._notes: list[str] = []

    def into(self, columns: list[Column]) -> ReadFile:
        """Read rows for a table that exists."""
        from stoa_tables.import_matching import match_columns  # noqa: PLC0415 - once the limits hold
        from stoa_tables.problems import InvalidRequestError  # noqa: PLC0415 - likewise

        matched = match_columns(self._fields(), columns, self._request.mapping)
        if not matched.matches:
            there = ", ".join(column.name for column in columns if column.role == "input")
            raise InvalidRequestError(
                f"No column of the file fits one of the table, which takes {there}; a mapping says which does"
            )
        self._write(columns, {match.column.name: match for match in matched.matches})
        return self._found(columns, matched, name="")

    def as_new(self) -> ReadFile:
        """Read rows for a table that the file makes."""
        from stoa_tables.import_matching import Match, Matched  # noqa: PLC0415 - once the limits hold
        from stoa_tables.importing import table_name  # noqa: PLC0415 - likewise

        columns, described = self._new_columns()
        matches = [
            Match(index, item, column, "new")
            for index, (item, column) in enumerate(zip(self._fields(), columns, strict=True))
        ]
        self._write(columns, {match.column.name: match for match in matches}, as_they_are=not described)
        name = self._metadata.table if self._metadata else self._source.name
        return self._found(columns, Matched(matches), name=table_name(name, self._request.path))

    def _fields(self) -> list[FileField]:
        from stoa_tables.import_matching import FileField  # noqa: PLC0415 - once the limits hold
        from stoa_tables.importing import vounit  # noqa: PLC0415 - likewise

        said = {column.name: column for column in self._metadata.columns} if self._metadata else {}
        fields = []
        for item in self._source.fields:
            ours = said.get(item.name)
            fields.append(
                FileField(
                    name=ours.column if ours else item.name,
                    type=item.type,
                    unit=vounit(item.unit) or (ours.unit if ours else None),
                    ucd=item.ucd or (ours.ucd if ours else None),
                    cells=ours.cells if ours else "plain",
                )
            )
        return fields

    def _new_columns(self) -> tuple[list[Column], bool]:
        """Make columns of what the file says, and tell whether an export of ours said it."""
        from stoa_tables.import_matching import described_type  # noqa: PLC0415 - once the limits hold
        from stoa_tables.importing import new_columns, summarise  # noqa: PLC0415 - likewise
        from stoa_tables.problems import InvalidRequestError  # noqa: PLC0415 - likewise

        summary = summarise(self._source)
        self._limits.check_rows(summary.n_rows)
        columns = new_columns(self._source, summary)
        self._notes += summary.notes(columns)
        said = {column.name: column for column in self._metadata.columns} if self._metadata else {}
        mapping = dict(self._request.mapping)
        described = False
        for index, (item, column) in enumerate(zip(self._source.fields, columns, strict=True)):
            changes: dict[str, Any] = {"role": "input"}
            if (ours := said.get(item.name)) is not None:
                described = True
                changes |= {"name": ours.column, "label": ours.label, "display": ours.display}
                changes |= {
                    key: getattr(ours, key) for key in ("description", "unit", "ucd", "utype") if getattr(ours, key)
                }
                kind = described_type(item.type, ours.type, ours.cells)
                changes |= {} if kind is None else {"type": kind}
            if column.name in mapping:
                changes["name"] = mapping.pop(column.name)
            columns[index] = Column.model_validate(column.model_dump() | changes)
        if mapping:
            raise InvalidRequestError(f"The file has no column {next(iter(mapping))!r}", column=next(iter(mapping)))
        return columns, described

    def _write(self, columns: list[Column], matches: dict[str, Match], *, as_they_are: bool = False) -> None:
        from stoa_tables.values import fill_defaults  # noqa: PLC0415 - once the limits hold

        defaults = fill_defaults(columns, {})
        converters = {name: match.converter() for name, match in matches.items() if not match.problem}
        # Every name stands in every row.
        names = sum(4 * len(name) + 26 for name in defaults)
        with (self._request.folder / "rows.jsonl").open("w", encoding="utf-8") as file:
            for chunk in self._source.chunks():
                size = len(chunk[0].values)
                wrong: dict[int, list[str]] = {}
                made: list[Sequence[Any]] = []
                for name, default in defaults.items():
                    match = matches.get(name)
                    if match is None:
                        made.append([default] * size)
                        continue
                    values: Sequence[Any] = chunk[match.index].values
                    if name not in converters:
                        values = [None] * size
                    elif not as_they_are:
                        values = _converted(values, converters[name], name, wrong)
                    made.append(values if default is None else [default if item is None else item for item in values])
                for at, row in enumerate(zip(*made, strict=True)):
                    self._rows += 1
                    problems = wrong.get(at)
                    line = "" if problems else json.dumps(row, ensure_ascii=False, allow_nan=False)
                    if 4 * len(line) + names > MAX_ROW:
                        problems = _too_large(dict(zip(defaults, row, strict=True)))
                    if problems:
                        self._reject(problems)
                        continue
                    file.write(line + "\n")
                    self._accepted += 1
                    if len(self._first) < MAX_SHOWN:
                        self._first.append(dict(zip(defaults, row, strict=True)))
                self._limits.check_rows(self._rows, more=True)

    def _reject(self, problems: list[str]) -> None:
        self._rejected_total += 1
        if len(self._rejected) < MAX_REJECTED:
            more = len(problems) - _MAX_PROBLEMS_PER_ROW
            shown = problems[:_MAX_PROBLEMS_PER_ROW] + ([f"And {more} more."] if more > 0 else [])
            self._rejected.append(RejectedRow(row=self._rows, line=None, problems=shown))

    def _found(self, columns: list[Column], matched: Matched, *, name: str) -> ReadFile:
        self._find_lines()
        return ReadFile(
            format=self._format,
            name=name,
            description=(self._metadata.description if self._metadata else "") or self._source.description,
            rows=self._rows,
            accepted=self._accepted,
            rejected_total=self._rejected_total,
            rejected=self._rejected,
            columns=[
                ReadColumn(
                    file_column=match.field.name,
                    column=match.column.name,
                    matched_by=match.by,
                    file_type=match.field.type,
                    type=match.column.type,
                    file_unit=match.field.unit,
                    unit=match.column.unit,
                    note=match.note,
                    problem=match.problem,
                )
                for match in matched.matches
            ],
            unmatched_file_columns=matched.unmatched_fields,
            unmatched_columns=[column.name for column in matched.unmatched_columns],
            table_columns=columns,
            first=self._first,
            notes=self._notes[:_MAX_NOTES],
        )

    def _find_lines(self) -> None:
        broken = self._source.broken
        if not broken and not self._rejected:
            return
        wanted = {row.row for row in self._rejected if row.row is not None}
        lines, wrong = self._source.lines(wanted, min(broken, MAX_REJECTED))
        listed = [row.model_copy(update={"line": lines.get(row.row or 0)}) for row in self._rejected]
        width = len(self._source.fields)
        told = f"there {'is 1 column' if width == 1 else f'are {width} columns'}."
        listed += [
            RejectedRow(row=None, line=line, problems=[f"The line has {cells} cells, but {told}"])
            for line, cells in wrong
        ]
        listed.sort(key=lambda row: (row.line or 0, row.row or 0))
        self._rejected = listed[:MAX_REJECTED]
        self._rows += broken
        self._rejected_total += broken


def _too_large(row: dict[str, Any]) -> list[str]:
    size = size_of_values(row) + 50
    return [f"The row has {size:,} characters; a row may have {MAX_ROW:,}."] if size > MAX_ROW else []


def _converted(values: Sequence[Any], convert: Convert, name: str, wrong: dict[int, list[str]]) -> Sequence[Any]:
    try:
        return [convert(value) for value in values]
    except (ValueError, Problem, RecursionError):
        pass
    made = []
    for at, value in enumerate(values):
        try:
            made.append(convert(value))
        except (ValueError, Problem, RecursionError) as error:
            made.append(None)
            said = str(error) if isinstance(error, Problem) else f"{name}: The cell cannot be read."
            wrong.setdefault(at, []).append(said if len(said) <= _MAX_TOLD else said[:_MAX_TOLD] + "…")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
