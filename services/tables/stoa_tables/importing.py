"""Tables from files: FITS, VOTable, CSV, ECSV and Parquet become columns with CWL types and rows of plain values."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from stoa_chassis.problems import Problem
from stoa_contracts.types import Column
from stoa_tables.problems import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from stoa_contracts.types import Values

__all__ = [
    "CHUNK_ROWS",
    "FORMATS",
    "MEDIA_TYPES",
    "FileFormat",
    "ImportedTable",
    "Source",
    "SourceField",
    "Summary",
    "UnreadableFileError",
    "guess_format",
    "new_columns",
    "open_source",
    "read_table",
    "readable",
    "summarise",
    "table_name",
    "unique_names",
    "vounit",
]

FileFormat = Literal["fits", "votable", "csv", "ecsv", "parquet"]

#: The formats that can be read.
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

#: What they are called on the web.
MEDIA_TYPES: dict[FileFormat, str] = {
    "fits": "application/fits",
    "votable": "application/x-votable+xml",
    "csv": "text/csv",
    "ecsv": "text/x-ecsv",
    "parquet": "application/vnd.apache.parquet",
}

#: How many rows a chunk has at the most.
CHUNK_ROWS = 10_000

# How many items the cells of a chunk hold about at the most.
_CHUNK_ITEMS = 2_000_000

_SUFFIXES: dict[str, FileFormat] = {
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".csv": "csv",
    ".tsv": "csv",
    ".ecsv": "ecsv",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}
_NAMES: dict[FileFormat, str] = {
    "fits": "FITS",
    "votable": "VOTable",
    "csv": "CSV",
    "ecsv": "ECSV",
    "parquet": "Parquet",
}
_PEEK = 4096
_MAX_NAME = 200
_MAX_CELL = 16 * 1024 * 1024
_MAX_INT64 = 2**63 - 1
# What catalogues write where they have no number.
_NO_NUMBER = ("nan", "null", "na", "n/a", "none", "--", "-nan")
_LEADING_ZERO = r"^[+-]?0[0-9]"
_WHOLE_NUMBER = r"^[+-]?[0-9]{1,19}$"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eEdD][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity)$"
_BOOLEAN = r"^(?i:true|false)$"


class UnreadableFileError(Problem, ValueError):
    """A file is no table that can be read; the text is one sentence."""

    status: ClassVar[int] = 422
    code: ClassVar[str] = "unreadable-file"
    title: ClassVar[str] = "The file cannot be read as a table"


@dataclass(frozen=True, slots=True)
class ImportedTable:
    """A table in a file.

    Parameters
    ----------
    columns
        Columns of the role ``key``, with units, UCDs, utypes and descriptions as far as the file has them. A type takes
        null if, and only if, some cell is empty.
    rows
        Chunks of at most `CHUNK_ROWS` rows. It can be read once.
    n_rows
        How many rows there are.
    name
        What the table may be called, after the file's own name for it or else the file.
    description
        The file's description of the table; empty if it has none.
    notes
        What was changed on the way, one sentence each.
    """

    columns: list[Column]
    rows: Iterator[list[Values]]
    n_rows: int
    name: str
    description: str
    notes: list[str] = field(default_factory=list)


def read_table(path: Path | str, *, format: FileFormat | None = None) -> ImportedTable:  # noqa: A002 - astropy's word
    """Read a table from a file.

    Parameters
    ----------
    path
        The file. FITS and VOTable may be compressed with gzip.
    format
        Its format; guessed from the content, then from the name, if it is not given.

    Returns
    -------
    ImportedTable
        The columns, and the rows in chunks.

    Raises
    ------
    UnreadableFileError
        If the file is not what it claims to be, is damaged, or has a column of a type that a table cannot hold.

    Notes
    -----
    The file is read twice, to know which cells are empty and how many rows there are before the first row is given. FITS,
    CSV and Parquet files are read in pieces; VOTable and ECSV files stand in memory as a whole.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableFileError(f"There is no file {path.name}.")
    chosen = format or guess_format(path)
    source = open_source(path, chosen)
    with readable(path, chosen):
        summary = summarise(source)
    columns = new_columns(source, summary)
    return ImportedTable(
        columns=columns,
        rows=_rows(path, chosen, source, [column.name for column in columns]),
        n_rows=summary.n_rows,
        name=table_name(source.name, path),
        description=source.description,
        notes=summary.notes(columns),
    )


def new_columns(source: Source, summary: Summary) -> list[Column]:
    """Make columns of what a file says; a type takes null if, and only if, some cell is empty."""
    return [
        Column(
            name=name,
            role="key",
            type=_nullable(found.type, cells, items),
            description=found.description or None,
            unit=vounit(found.unit),
            ucd=found.ucd or None,
            utype=found.utype or None,
        )
        for name, found, cells, items in zip(
            unique_names([found.name for found in source.fields]),
            source.fields,
            summary.empty_cells,
            summary.empty_items,
            strict=True,
        )
    ]


def open_source(
    path: Path,
    chosen: FileFormat,
    *,
    as_text: bool = False,
    lenient: bool = False,
    max_rows: int | None = None,
) -> Source:
    """Open a file of which the format is known, and find its columns.

    Parameters
    ----------
    path
        The file, not compressed but for FITS and VOTable.
    chosen
        Its format.
    as_text
        Leave the cells of CSV as they are written, where somebody else knows their types.
    lenient
        Leave out lines of CSV that do not have a cell for each column, and count them.
    max_rows
        A CSV file with more rows is not read to its end.

    Raises
    ------
    UnreadableFileError
        If it is damaged or has columns that a table cannot hold.
    """
    with readable(path, chosen):
        if chosen == "csv":
            return _CsvSource(path, as_text=as_text, lenient=lenient, max_rows=max_rows)
        return _SOURCES[chosen](path)


def guess_format(path: Path) -> FileFormat:
    """Tell the format of a file by its first bytes, else by its name.

    Raises
    ------
    UnreadableFileError
        If it is none of the known ones.
    """
    with path.open("rb") as stream:
        head = stream.read(_PEEK)
    name = path.name.lower()
    if head.startswith(b"\x1f\x8b"):
        name = name.removesuffix(".gz")
        try:
            with gzip.open(path) as stream:
                head = stream.read(_PEEK)
        except (OSError, EOFError) as error:
            raise UnreadableFileError(f"The compressed file {path.name} is damaged: {error}.") from error
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"# %ECSV"):
        return "ecsv"
    if re.search(rb"<(\w+:)?VOTABLE\b", head):
        return "votable"
    guessed = next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)
    if not head:
        raise UnreadableFileError(f"The file {path.name} is empty.")
    if guessed is None:
        raise UnreadableFileError(
            f"The file {path.name} is none of {', '.join(_NAMES[known] for known in FORMATS)}, as far as its content and name tell."
        )
    return guessed


# --- what all formats have in common -----------------------------------------------------------------------------------


@dataclass(slots=True)
class SourceField:
    """A column as the file has it.

    Parameters
    ----------
    name, unit, ucd, utype, description
        What the file says of it.
    type
        What the file stores, in CWL's words.
    """

    name: str
    type: Any
    unit: Any = None
    ucd: str | None = None
    utype: str | None = None
    description: str | None = None


@dataclass(slots=True)
class _Cells:
    """Some cells of one column, in plain values; and how many of them are null, hold null, or were infinite."""

    values: list[Any]
    empty: bool = False
    empty_items: bool = False
    infinite: int = 0


class Source:
    """A file whose columns are known and whose cells can be read as often as wanted, chunk by chunk."""

    fields: list[SourceField]
    name: str = ""
    description: str = ""
    stoa: str | None = None
    """What an export of ours says of the columns, beside what the format has words for."""
    broken: int = 0
    """How many lines were left out so far, because they do not have a cell for each column."""

    def chunks(self) -> Iterator[list[_Cells]]:
        """Yield the columns of one chunk after the other."""
        raise NotImplementedError

    def lines(self, wanted: Collection[int], broken: int) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Find the lines of rows, and those lines that are no rows; only a text has any.

        Parameters
        ----------
        wanted
            Rows, counted from 1.
        broken
            So many lines that are no rows at the most.

        Returns
        -------
        tuple
            Row to the line on which it begins; lines that are no rows, with the number of their cells.
        """
        del self, wanted, broken
        return {}, []


@dataclass(slots=True)
class Summary:
    """What is known of a file once it was read."""

    n_rows: int
    empty_cells: list[bool]
    empty_items: list[bool]
    infinite: list[int]

    def notes(self, columns: Sequence[Column]) -> list[str]:
        """Say what was changed on the way."""
        return [
            f"In the column {column.name}, {count} infinite {'value is' if count == 1 else 'values are'} null now: "
            "JSON has no infinity."
            for column, count in zip(columns, self.infinite, strict=True)
            if count
        ]


def summarise(source: Source) -> Summary:
    """Count the rows of a file, and tell which columns hold null."""
    width = len(source.fields)
    if not width:
        raise UnreadableFileError("It has no columns.")
    summary = Summary(0, [False] * width, [False] * width, [0] * width)
    for chunk in source.chunks():
        summary.n_rows += len(chunk[0].values)
        for index, cells in enumerate(chunk):
            summary.empty_cells[index] |= cells.empty
            summary.empty_items[index] |= cells.empty_items
            summary.infinite[index] += cells.infinite
    return summary


def _rows(path: Path, chosen: FileFormat, source: Source, names: list[str]) -> Iterator[list[Values]]:
    with readable(path, chosen):
        for chunk in source.chunks():
            yield [dict(zip(names, row, strict=True)) for row in zip(*(cells.values for cells in chunk), strict=True)]


@contextmanager
def readable(path: Path, chosen: FileFormat) -> Iterator[None]:
    """Tell whatever a reader trips over as one sentence."""
    try:
        yield
    except UnreadableFileError as error:
        raise UnreadableFileError(
            f"The file {path.name} cannot be read as {_NAMES[chosen]}: {error}"
        ) from error.__cause__
    except Problem:
        raise
    except MemoryError as error:
        raise UnreadableFileError(f"The file {path.name} is too large to be read as {_NAMES[chosen]}.") from error
    except Exception as error:  # the readers raise whatever comes, up to IndexError and struct.error
        said = " ".join(str(error).split()) or type(error).__name__
        said = said.replace(str(path), path.name).rstrip(".")
        raise UnreadableFileError(f"The file {path.name} cannot be read as {_NAMES[chosen]}: {said[:300]}.") from error


def _nullable(kind: Any, cells: bool, items: bool) -> Any:  # noqa: FBT001 - two flags of one summary
    if items and isinstance(kind, dict) and kind["type"] == "array":
        inner = kind["items"]
        nested = isinstance(inner, dict) and inner["type"] == "array"
        kind = {"type": "array", "items": _nullable(inner, cells=False, items=True) if nested else ["null", inner]}
    return ["null", kind] if cells else kind


def unique_names(given: Sequence[str]) -> list[str]:
    """Make names that a table can have: not empty, printable, and different even where case does not count."""
    taken: set[str] = set()
    names: list[str] = []
    for number, text in enumerate(given, 1):
        name = (
            "".join(character if character.isprintable() else "_" for character in text.strip())[:_MAX_NAME]
            or f"col{number}"
        )
        candidate = name
        for count in itertools.count(2):
            if candidate.lower() not in taken:
                break
            candidate = f"{name[: _MAX_NAME - 10]}_{count}"
        taken.add(candidate.lower())
        names.append(candidate)
    return names


def table_name(given: str, path: Path) -> str:
    """Make a name that a table can have, of what a file calls its table, else of the file's own."""
    stem = path.name.removesuffix(".gz")
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    for text in (given, stem):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")
        if name:
            return (name if name[0].isalpha() else f"t_{name}")[:63]
    return "table"


def vounit(given: Any) -> str | None:
    """Write a unit as VOUnits has it; an unknown one stays as it is."""
    text = "" if given is None else str(given).strip()
    return _vounit(text) if text else None


@cache
def _vounit(text: str) -> str:
    """Write a unit as VOUnits has it; an unknown one stays as it is."""
    from astropy import units  # noqa: PLC0415 - imported when needed

    for known in ("vounit", "fits", "cds", "ogip"):
        try:
            unit = units.Unit(text, format=known, parse_strict="silent")
            if not isinstance(unit, units.UnrecognizedUnit):
                return str(unit.to_string("vounit", deprecations="silent"))
        except (ValueError, TypeError):
            continue
    return text


# --- numpy to plain values ---------------------------------------------------------------------------------------------

_KINDS = {"b": "boolean", "U": "string", "S": "string"}


def _type_of(dtype: np.dtype[Any], name: str, dimensions: int) -> Any:
    """Give the CWL type for an array of numpy, of so many dimensions per row."""
    if dtype.kind in _KINDS:
        kind: Any = _KINDS[dtype.kind]
    elif dtype.kind in "iu":
        # 32 bits without a sign do not fit into 32 bits with one.
        kind = "int" if dtype.itemsize < 4 or (dtype.kind == "i" and dtype.itemsize == 4) else "long"  # noqa: PLR2004 - bytes
    elif dtype.kind == "f":
        kind = "float" if dtype.itemsize <= 4 else "double"  # noqa: PLR2004 - bytes
    elif dtype.kind == "c":
        raise UnreadableFileError(f"The column {name} holds complex numbers, which a table cannot hold.")
    else:
        raise UnreadableFileError(f"The column {name} is of the type {dtype}, which a table cannot hold.")
    for _ in range(dimensions):
        kind = {"type": "array", "items": kind}
    return kind


def _cells(values: NDArray[Any], mask: NDArray[np.bool_] | None, name: str) -> _Cells:
    """Turn an array, whose first axis is the rows, into plain values. NaN, infinity and what is masked become null."""
    import numpy as np  # noqa: PLC0415 - imported when needed

    infinite = 0
    nulls = mask
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            infinite = int(np.isinf(values).sum()) if mask is None else int((np.isinf(values) & ~mask).sum())
            nulls = ~finite if nulls is None else nulls | ~finite
    elif values.dtype.kind in "SU":
        return _text_cells(values, mask)
    elif values.dtype.kind == "u" and values.dtype.itemsize == 8 and values.size and values.max() > _MAX_INT64:  # noqa: PLR2004
        raise UnreadableFileError(f"The column {name} holds numbers beyond {_MAX_INT64}, which a table cannot hold.")
    if nulls is None or not nulls.any():
        return _Cells(values.tolist(), infinite=infinite)
    made = values.astype(object)
    made[nulls] = None
    return _with_empty_rows(made.tolist(), nulls, infinite)


def _with_empty_rows(values: list[Any], nulls: NDArray[np.bool_], infinite: int = 0) -> _Cells:
    """Make a cell null all of whose items are."""
    import numpy as np  # noqa: PLC0415 - imported when needed

    if nulls.ndim == 1:
        return _Cells(values, empty=True, infinite=infinite)
    flat = nulls.reshape(len(nulls), -1)
    whole = flat.all(axis=1) if flat.shape[1] else flat.any(axis=1)
    for index in np.flatnonzero(whole).tolist():
        values[index] = None
    return _Cells(values, empty=bool(whole.any()), empty_items=bool(flat[~whole].any()), infinite=infinite)


def _text_cells(values: NDArray[Any], mask: NDArray[np.bool_] | None) -> _Cells:
    import numpy as np  # noqa: PLC0415 - imported when needed

    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            values = np.char.decode(values, "latin-1")
    plain = np.asarray(values)
    # A NUL ends a text of fixed length; no table can hold it.
    listed = _map_texts(plain.tolist())
    if mask is None or not mask.any():
        return _Cells(listed)
    made = np.array(listed, dtype=object)
    made[mask] = None
    return _with_empty_rows(made.tolist(), mask)


def _map_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_map_texts(item) for item in value]
    return value.partition("\0")[0] if "\0" in value else value


def _ragged_cells(values: Sequence[Any], name: str) -> _Cells:
    """Turn arrays of different lengths, texts or null, one per row, into plain values."""
    import numpy as np  # noqa: PLC0415 - imported when needed

    made = _Cells([])
    for value in values:
        if value is None or value is np.ma.masked:
            made.values.append(None)
            made.empty = True
        elif isinstance(value, str | bytes):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            made.values.append(_map_texts(text))
        else:
            mask = np.ma.getmaskarray(value)[np.newaxis] if np.ma.isMaskedArray(value) else None
            items = np.asarray(np.ma.getdata(value))
            one = _cells(items[np.newaxis], mask, name)
            empty = one.values[0] is None
            # An array of nothing but nulls is no longer told apart from none at all.
            made.values.append(one.values[0])
            made.empty |= empty
            made.empty_items |= one.empty_items
            made.infinite += one.infinite
    return made


# --- FITS --------------------------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"^\d*[PQ]([A-Z])")
_FITS_DTYPES = {"L": "bool", "X": "bool", "B": "u1", "I": "i2", "J": "i4", "K": "i8", "A": "U1", "E": "f4", "D": "f8"}


class _FitsSource(Source):
    """The first table of a FITS file; image headers that some source extractors put before it do not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as (table, header):
            if table is None:
                raise UnreadableFileError("it holds no table, only images.")
            self.name = table.name if table.name not in ("", "LDAC_OBJECTS") else ""
            self.stoa = _header_text(table.header, "STOA") or None
            self.description = _fits_description(header)
            self.fields = [self._field(table, index) for index in range(len(table.columns))]

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        from astropy.io import fits  # noqa: PLC0415 - imported when needed

        with fits.open(self._path, memmap=True) as hdus:
            tables = [
                hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.name != "LDAC_IMHEAD"
            ]
            yield (tables[0] if tables else None), hdus[0].header

    def _field(self, table: Any, index: int) -> SourceField:
        import numpy as np  # noqa: PLC0415 - imported when needed

        column = table.columns[index]
        header = table.header
        number = index + 1
        if variable := _VARIABLE.match(str(column.format)):
            letter = variable[1]
            if letter not in _FITS_DTYPES:
                raise UnreadableFileError(f"the column {column.name} holds complex numbers, which a table cannot hold.")
            scaled = column.bscale not in ("", None, 1) or column.bzero not in ("", None, 0)
            dtype = np.dtype("f8" if scaled and letter not in "EDA" else _FITS_DTYPES[letter])
            kind = _type_of(dtype, column.name, 0 if letter == "A" else 1)
        else:
            # An ASCII table cannot be looked at without rows.
            sample = table.data[:1].field(index)
            kind = _type_of(sample.dtype, column.name, sample.ndim - 1)
        comment = header.comments[f"TTYPE{number}"] if f"TTYPE{number}" in header else ""
        if re.match(r"(?i)^label for (field|column)", comment):
            comment = ""
        return SourceField(
            name=str(column.name or ""),
            type=kind,
            unit=column.unit,
            ucd=_header_text(header, f"TUCD{number}"),
            utype=_header_text(header, f"TUTYP{number}"),
            description=_header_text(header, f"TCOMM{number}") or _header_text(header, f"TDESC{number}") or comment,
        )

    def chunks(self) -> Iterator[list[_Cells]]:
        with self._open() as (table, _):
            data = table.data
            start = 0
            while start < len(data):
                stop = start + self._rows_at_once(table, start)
                part, start = data[start:stop], stop
                yield [self._column(table, part, index) for index in range(len(table.columns))]

    def _rows_at_once(self, table: Any, start: int) -> int:
        """Give how many rows make a chunk, where their arrays may be large."""
        import numpy as np  # noqa: PLC0415 - imported when needed

        items = np.zeros(min(CHUNK_ROWS, len(table.data) - start), np.int64)
        raw = table.data.view(np.ndarray)[start : start + len(items)]
        for index, column in enumerate(table.columns):
            if _VARIABLE.match(str(column.format)):
                items += raw[raw.dtype.names[index]].reshape(len(items), -1)[:, 0]
            else:
                items += 1 if raw.dtype[index].kind in "SU" else int(np.prod(raw.dtype[index].shape, dtype=np.int64))
        return max(1, int(np.searchsorted(np.cumsum(items), _CHUNK_ITEMS, side="right")))

    def _column(self, table: Any, part: Any, index: int) -> _Cells:
        import numpy as np  # noqa: PLC0415 - imported when needed

        column = table.columns[index]
        values = part.field(index)
        if variable := _VARIABLE.match(str(column.format)):
            # A text of variable length comes as an array of characters.
            if variable[1] == "A":
                # Read one by one, astropy's characters have no blanks.
                listed: list[Any] = ["".join(value.view(np.ndarray).tolist()) for value in values]
            else:
                listed = list(values)
            if variable[1] in "BIJK" and column.null not in ("", None):
                listed = [np.ma.masked_equal(value, _scaled_null(column)) for value in listed]
            return _ragged_cells(listed, column.name)
        mask = None
        values = np.asarray(values)
        if values.dtype.kind in "SU":
            # Blanks at its end do not belong to a text.
            return _cells(np.char.rstrip(values), None, column.name)
        if values.dtype.kind == "b" and str(column.format).endswith("L"):
            # A logical is T, F, or 0 for null.
            mask = np.asarray(part.view(np.ndarray)[part.dtype.names[index]] == 0).reshape(values.shape)
        elif column.null not in ("", None) and values.dtype.kind in "iuf":
            mask = values == _scaled_null(column)
        return _cells(values, mask, column.name)


def _scaled_null(column: Any) -> Any:
    null = column.null
    if column.bscale not in ("", None):
        null = null * column.bscale
    return null + column.bzero if column.bzero not in ("", None) else null


def _header_text(header: Any, key: str) -> str:
    value = header.get(key)
    return value.strip() if isinstance(value, str) else ""


def _fits_description(header: Any) -> str:
    for key in ("DESCRIP", "TITLE", "OBJECT"):
        if text := _header_text(header, key):
            return text
    return ""


# --- VOTable and ECSV --------------------------------------------------------------------------------------------------


class _ArraySource(Source):
    """Columns that stand in memory as arrays of numpy."""

    def __init__(self) -> None:
        self.fields = []
        self._arrays: list[Any] = []

    def add(self, found: SourceField, array: Any) -> None:
        """Take up a column, whose type follows from the array."""
        found.type = _array_type(array, found.name)
        self.fields.append(found)
        self._arrays.append(array)

    def chunks(self) -> Iterator[list[_Cells]]:
        length = len(self._arrays[0]) if self._arrays else 0
        items = sum(math.prod(array.shape[1:]) for array in self._arrays)
        size = max(1, min(CHUNK_ROWS, _CHUNK_ITEMS // max(1, items)))
        for start in range(0, length, size):
            yield [
                self._column(array[start : start + size], found.name)
                for array, found in zip(self._arrays, self.fields, strict=True)
            ]

    def _column(self, array: Any, name: str) -> _Cells:
        import numpy as np  # noqa: PLC0415 - imported when needed

        data = np.asarray(np.ma.getdata(array))
        mask = np.ma.getmaskarray(array) if np.ma.isMaskedArray(array) else None
        if data.dtype.kind == "O":
            absent = [False] * len(data) if mask is None else [bool(np.all(flag)) for flag in mask]
            return _ragged_cells([None if gone else item for item, gone in zip(data, absent, strict=True)], name)
        return _cells(data, mask, name)


def _array_type(array: Any, name: str) -> Any:
    import numpy as np  # noqa: PLC0415 - imported when needed

    data = np.ma.getdata(array)
    if data.dtype.kind != "O":
        return _type_of(data.dtype, name, data.ndim - 1)
    found: Any = None
    for item in data:
        if item is None or item is np.ma.masked or (isinstance(item, np.ndarray) and not item.size):
            continue
        one = "string" if isinstance(item, str | bytes) else _item_type(item, name)
        if found is not None and one != found:
            raise UnreadableFileError(f"The column {name} mixes types, which a table cannot hold.")
        found = one
    return found if found is not None else "string"


def _item_type(item: Any, name: str) -> Any:
    import numpy as np  # noqa: PLC0415 - imported when needed

    items = np.asarray(np.ma.getdata(item))
    if items.dtype.kind == "O":
        raise UnreadableFileError(f"The column {name} holds arrays of mixed content, which a table cannot hold.")
    return _type_of(items.dtype, name, items.ndim)


_VOTABLE_LISTS = {
    "boolean": "boolean",
    "unsignedByte": "int",
    "short": "int",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
}


class _VotableSource(_ArraySource):
    def __init__(self, path: Path) -> None:
        from astropy.io import votable  # noqa: PLC0415 - imported when needed

        super().__init__()
        document = votable.parse(str(path), verify="ignore")
        failed = [
            info
            for element in [document, *document.resources]
            for info in element.infos
            if info.name == "QUERY_STATUS" and info.value == "ERROR"
        ]
        if failed:
            raise UnreadableFileError(f"it is the answer to a query that failed: {_squeezed(failed[0].content)}.")
        table = next(iter(document.iter_tables()), None)
        if table is None:
            raise UnreadableFileError("it holds no table.")
        self.name = table.name or ""
        self.stoa = next((info.value for info in table.infos if info.name == "stoa"), None)
        self.description = _squeezed(table.description or document.description)
        for column, key in zip(table.fields, table.array.dtype.names or (), strict=True):
            found = SourceField(
                name=column.name or column.ID or "",
                type=None,
                unit=column.unit,
                ucd=column.ucd,
                utype=column.utype,
                description=_squeezed(column.description),
            )
            self.add(found, table.array[key])
            if found.type == "string" and column.datatype in _VOTABLE_LISTS:
                # Where every array is empty, only the field tells what would be in it.
                found.type = {"type": "array", "items": _VOTABLE_LISTS[column.datatype]}


def _squeezed(text: Any) -> str:
    return " ".join(str(text).split()) if text else ""


class _EcsvSource(_ArraySource):
    def __init__(self, path: Path) -> None:
        from astropy.table import Table  # noqa: PLC0415 - imported when needed
        from astropy.table.serialize import represent_mixins_as_columns  # noqa: PLC0415 - likewise

        super().__init__()
        try:
            table = Table.read(path, format="ecsv", engine="pyarrow")
        except Exception:  # noqa: BLE001 - the quick engine does not know all of ECSV, and says so in many ways
            table = Table.read(path, format="ascii.ecsv")
        self.name = str(table.meta.get("name") or "")
        self.stoa = table.meta.get("stoa") if isinstance(table.meta.get("stoa"), str) else None
        self.description = _squeezed(table.meta.get("description"))
        # Coordinates and times become the columns they are made of.
        plain = represent_mixins_as_columns(table)
        for column in plain.columns.values():
            self.add(_with_metadata(column.name, column.info.meta or {}, column.unit, column.description), column)


def _with_metadata(name: str, meta: Any, unit: Any, description: Any) -> SourceField:
    return SourceField(
        name=name,
        type=None,
        unit=unit,
        ucd=_squeezed(meta.get("ucd")),
        utype=_squeezed(meta.get("utype")),
        description=_squeezed(description or meta.get("description")),
    )


# --- CSV ---------------------------------------------------------------------------------------------------------------


class _CsvSource(Source):
    """A file with a header line. A column is as narrow as all its cells allow: boolean, long, double, else string."""

    def __init__(
        self, path: Path, *, as_text: bool = False, lenient: bool = False, max_rows: int | None = None
    ) -> None:
        self._path = path
        self._lenient = lenient
        self._max_rows = max_rows
        self._skipped, header, self._delimiter, self._encoding = _csv_header(path)
        # The reader's own names, for the file's may be empty or equal.
        self._keys = [f"f{index}" for index in range(len(header))]
        self.fields = [SourceField(name=name, type="string") for name in header]
        if as_text:
            return
        kinds = [set(_CSV_KINDS) for _ in header]
        for batch in self._batches():
            for index, candidates in enumerate(kinds):
                _narrow(batch.column(index), candidates)
        for found, candidates in zip(self.fields, kinds, strict=True):
            # Where no cell says anything, every type is still possible.
            narrowest = next((kind for kind in _CSV_KINDS if kind in candidates), "string")
            found.type = "string" if candidates == set(_CSV_KINDS) else narrowest

    def _batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa  # noqa: PLC0415 - imported when needed
        from pyarrow import csv as arrow_csv  # noqa: PLC0415 - likewise

        self.broken = 0
        reader = arrow_csv.open_csv(
            self._path,
            read_options=arrow_csv.ReadOptions(
                column_names=self._keys, skip_rows=self._skipped, encoding=self._encoding, block_size=4 * 2**20
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._leave_out if self._lenient else None,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={key: pa.string() for key in self._keys},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        rows = 0
        with reader:
            for batch in reader:
                rows += batch.num_rows
                if self._max_rows is not None and rows > self._max_rows:
                    raise TooLargeError(
                        f"The file has more than {self._max_rows:,} rows, which is as many as can be imported",
                        limit=self._max_rows,
                    )
                yield batch

    def _leave_out(self, _row: Any) -> str:
        self.broken += 1
        return "skip"

    def lines(self, wanted: Collection[int], broken: int) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Find the lines of rows, and those lines that are no rows."""
        found: dict[int, int] = {}
        wrong: list[tuple[int, int]] = []
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
        encoding = "utf-8-sig" if self._encoding == "utf8" else self._encoding
        with self._path.open(encoding=encoding, newline="") as stream:
            for _ in range(self._skipped):
                stream.readline()
            reader = csv.reader(stream, delimiter=self._delimiter)
            line, row = self._skipped + 1, 0
            for cells in reader:
                if len(cells) == len(self.fields):
                    row += 1
                    if row in wanted:
                        found[row] = line
                elif cells and len(wrong) < broken:
                    wrong.append((line, len(cells)))
                line = self._skipped + reader.line_num + 1
        return found, wrong

    def chunks(self) -> Iterator[list[_Cells]]:
        for batch in self._batches():
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                part = batch.slice(start, CHUNK_ROWS)
                yield [_convert(part.column(index), found.type, found.name) for index, found in enumerate(self.fields)]


_CSV_KINDS = ("boolean", "long", "double")


def _is_empty(texts: Any) -> bool:
    return bool(len(texts) == texts.null_count)


def _csv_header(path: Path) -> tuple[int, list[str], str, str]:
    """Find the header: how many lines to skip, the names, the delimiter and the encoding."""
    for encoding in ("utf-8-sig", "latin-1"):
        try:
            with path.open(encoding=encoding, newline="") as stream:
                for skipped, line in enumerate(iter(partial(stream.readline, _MAX_CELL), ""), 1):
                    if len(line) == _MAX_CELL:
                        raise UnreadableFileError(f"its line {skipped} is longer than {_MAX_CELL:,} characters.")
                    if line.strip() and not line.startswith("#"):
                        delimiter = max(",;\t|", key=lambda mark: (line.count(mark), mark == ","))
                        names = next(csv.reader(io.StringIO(line.lstrip("\ufeff")), delimiter=delimiter))
                        # The whole file has to be in the encoding, not only its first line.
                        while stream.read(2**20):
                            pass
                        return skipped, names, delimiter, "utf8" if encoding == "utf-8-sig" else "latin-1"
        except UnicodeDecodeError:
            continue
        break
    raise UnreadableFileError("it has no line that names the columns.")


def _narrow(texts: Any, candidates: set[str]) -> None:
    """Keep the types that all cells of a piece of a column allow."""
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    if not candidates or _is_empty(texts):
        return
    known = _known_numbers(texts)
    if "boolean" in candidates and not _all(compute.match_substring_regex(texts.drop_null(), _BOOLEAN)):
        candidates.discard("boolean")
    if not {"long", "double"} & candidates:
        return
    if _any(compute.match_substring_regex(known, _LEADING_ZERO)) and _any_padded(known):
        # Numbers are not written like this, identifiers are.
        candidates -= {"long", "double"}
    if "long" in candidates and not (_all(compute.match_substring_regex(known, _WHOLE_NUMBER)) and _fits_int64(known)):
        candidates.discard("long")
    if "double" in candidates and not _all(compute.match_substring_regex(known, _NUMBER)):
        candidates.discard("double")


def _known_numbers(texts: Any) -> Any:
    """Leave out the cells that say that there is no number."""
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute  # noqa: PLC0415 - likewise

    trimmed = compute.utf8_trim_whitespace(texts.drop_null())
    absent = compute.is_in(compute.utf8_lower(trimmed), value_set=pa.array([*_NO_NUMBER, ""]))
    return trimmed.filter(compute.invert(absent))


def _any_padded(known: Any) -> bool:
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    # "00.5" is a number nobody writes as an identifier; "007" is not.
    return _any(compute.match_substring_regex(known, r"^[+-]?0[0-9]+$"))


def _fits_int64(known: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute  # noqa: PLC0415 - likewise

    try:
        compute.cast(compute.replace_substring_regex(known, r"^\+", ""), pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _all(flags: Any) -> bool:
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    return bool(compute.all(flags, min_count=0).as_py())


def _any(flags: Any) -> bool:
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    return bool(compute.any(flags, min_count=0).as_py())


def _convert(texts: Any, kind: str, name: str) -> _Cells:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute  # noqa: PLC0415 - likewise

    if kind == "string":
        return _Cells(_map_nullable_texts(texts.to_pylist()), empty=texts.null_count > 0)
    trimmed = compute.utf8_lower(compute.utf8_trim_whitespace(texts))
    if kind == "boolean":
        return _arrow_numbers(compute.equal(trimmed, "true"), name)
    absent = compute.is_in(trimmed, value_set=pa.array([*_NO_NUMBER, ""]))
    numbers = compute.if_else(absent, pa.scalar(None, pa.string()), trimmed)
    numbers = compute.replace_substring_regex(numbers, r"^\+", "")
    if kind == "long":
        return _arrow_numbers(compute.cast(numbers, pa.int64()), name)
    # Fortran writes D for the exponent of a double.
    numbers = compute.replace_substring(numbers, "d", "e")
    return _arrow_numbers(compute.cast(numbers, pa.float64()), name)


def _map_nullable_texts(texts: list[str | None]) -> list[str | None]:
    return [text.partition("\0")[0] if text is not None and "\0" in text else text for text in texts]


def _arrow_numbers(array: Any, name: str) -> _Cells:
    """Turn numbers or booleans of Arrow into plain values."""
    import numpy as np  # noqa: PLC0415 - imported when needed
    import pyarrow as pa  # noqa: PLC0415 - likewise
    from pyarrow import compute  # noqa: PLC0415 - likewise

    mask = None
    if array.null_count:
        mask = np.asarray(compute.is_null(array).to_numpy(zero_copy_only=False))
        array = compute.fill_null(array, pa.scalar(0, pa.int8()).cast(array.type))
    return _cells(np.asarray(array.to_numpy(zero_copy_only=False)), mask, name)


# --- Parquet -----------------------------------------------------------------------------------------------------------


class _ParquetSource(Source):
    """A Parquet file; units and the rest come from the columns' metadata, VOParquet's header or astropy's."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet  # noqa: PLC0415 - imported when needed

        self._path = path
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
        known = _parquet_metadata(schema.metadata or {})
        self.name = known.name
        self.description = known.description
        stoa = (schema.metadata or {}).get(b"stoa")
        self.stoa = stoa.decode("utf-8", "replace") if stoa else None
        self.fields = []
        for entry in schema:
            own = {key.decode(): value.decode("utf-8", "replace") for key, value in (entry.metadata or {}).items()}
            found = known.fields.get(entry.name) or SourceField(name=entry.name, type=None)
            found.type = _arrow_type(entry.type, entry.name)
            found.unit = own.get("unit") or found.unit
            found.ucd = own.get("ucd") or found.ucd
            found.utype = own.get("utype") or found.utype
            found.description = own.get("description") or found.description
            self.fields.append(found)

    def chunks(self) -> Iterator[list[_Cells]]:
        from pyarrow import parquet  # noqa: PLC0415 - imported when needed

        with parquet.ParquetFile(self._path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                yield [
                    _arrow_cells(batch.column(index), found.type, found.name) for index, found in enumerate(self.fields)
                ]


@dataclass(slots=True)
class _Known:
    fields: dict[str, SourceField] = field(default_factory=dict)
    name: str = ""
    description: str = ""


def _parquet_metadata(metadata: dict[bytes, bytes]) -> _Known:
    known = _Known()
    if header := metadata.get(b"IVOA.VOTable-Parquet.content"):
        from astropy.io import votable  # noqa: PLC0415 - imported when needed

        table = next(iter(votable.parse(io.BytesIO(header), verify="ignore").iter_tables()), None)
        if table is not None:
            known.name = table.name or ""
            known.description = _squeezed(table.description)
            for column in table.fields:
                known.fields[column.name] = SourceField(
                    name=column.name,
                    type=None,
                    unit=column.unit,
                    ucd=column.ucd,
                    utype=column.utype,
                    description=_squeezed(column.description),
                )
    elif header := metadata.get(b"table_meta_yaml"):
        from astropy.table.meta import get_header_from_yaml  # noqa: PLC0415 - imported when needed

        parsed = get_header_from_yaml(header.decode("utf-8", "replace").split("\n"))
        for column in parsed["datatype"]:
            known.fields[column["name"]] = _with_metadata(
                column["name"], column.get("meta") or {}, column.get("unit"), column.get("description")
            )
        meta = parsed.get("meta") or {}
        known.name = str(meta.get("name") or "")
        known.description = _squeezed(meta.get("description"))
    return known


def _arrow_type(kind: pa.DataType, name: str) -> Any:
    import numpy as np  # noqa: PLC0415 - imported when needed
    from pyarrow import types  # noqa: PLC0415 - imported when needed

    if types.is_dictionary(kind):
        return _arrow_type(kind.value_type, name)
    if _is_list(kind):
        return {"type": "array", "items": _arrow_type(kind.value_type, name)}
    if types.is_decimal(kind):
        return "double"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind):
        return _type_of(np.dtype(kind.to_pandas_dtype()), name, 0)
    textual = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    temporal = (types.is_timestamp, types.is_date, types.is_time)
    if any(check(kind) for check in (*textual, *temporal)):
        return "string"
    raise UnreadableFileError(f"the column {name} is of the type {kind}, which a table cannot hold.")


def _arrow_cells(array: Any, kind: Any, name: str) -> _Cells:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute, types  # noqa: PLC0415 - likewise

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(kind, dict):
        return _nested_cells(array, name)
    if kind == "string":
        if types.is_null(array.type):
            return _Cells([None] * len(array), empty=len(array) > 0)
        if not (types.is_string(array.type) or types.is_large_string(array.type)):
            array = compute.cast(array, pa.string()) if types.is_string_view(array.type) else _iso(array)
        return _Cells(_map_nullable_texts(array.to_pylist()), empty=array.null_count > 0)
    if types.is_decimal(array.type):
        array = compute.cast(array, pa.float64())
    return _arrow_numbers(array, name)


def _iso(array: Any) -> Any:
    """Write times as ISO 8601 has them."""
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute  # noqa: PLC0415 - likewise

    texts = compute.cast(array, pa.string())
    return compute.replace_substring(texts, " ", "T", max_replacements=1)


def _nested_cells(array: Any, name: str) -> _Cells:
    """Turn lists into plain values."""
    leaves = array
    depth = 0
    while _is_list(leaves.type):
        leaves = leaves.flatten()
        depth += 1
    items = _arrow_cells(leaves, _arrow_type(leaves.type, name), name)
    plain = iter(items.values)
    values = [_rebuilt(value, depth, plain) for value in array.to_pylist()]
    return _Cells(values, empty=array.null_count > 0, empty_items=items.empty, infinite=items.infinite)


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types  # noqa: PLC0415 - imported when needed

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _rebuilt(value: Any, depth: int, leaves: Iterator[Any]) -> Any:
    """Put the plain values of the innermost items into their lists."""
    if not depth:
        return next(leaves)
    return None if value is None else [_rebuilt(item, depth - 1, leaves) for item in value]


_SOURCES: dict[FileFormat, Callable[[Path], Source]] = {
    "fits": _FitsSource,
    "votable": _VotableSource,
    "csv": _CsvSource,
    "ecsv": _EcsvSource,
    "parquet": _ParquetSource,
}
