"""Rows as columns of typed cells, on the disk, with what a format has to know of a column before its first row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from stoa_tables.file_metadata import escaped
from stoa_tables.values import is_optional

if TYPE_CHECKING:
    import pyarrow as pa

    from stoa_contracts.types import Column

__all__ = ["Cells", "ExportColumn", "MisfitError", "Spooled", "arrow_type", "json_text", "nullable", "spool"]

_SCALARS = {"boolean": "bool_", "int": "int32", "long": "int64", "float": "float64", "double": "float64"}
_FILES = ("File", "Directory")


class MisfitError(Exception):
    """A cell holds what its column does not take: it was written when the column had another type.

    Parameters
    ----------
    column
        The column's name.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(slots=True)
class Cells:
    """What the cells of a column have in common.

    Parameters
    ----------
    nulls, empty
        Whether some cells are null; whether some texts or lists are empty.
    null_items, only_null_items
        Whether some list holds null, or nothing but null.
    controls, foreign, padded
        Whether some texts hold control characters, characters beyond ASCII, or blanks at an end.
    longest, total
        Bytes of the longest text, or items of the longest list; and of all of them.
    longest_escaped
        Characters of the longest text, written with escapes.
    lowest, highest
        Of whole numbers.
    single
        Whether every number is one of 32 bits.
    """

    nulls: bool = False
    empty: bool = False
    null_items: bool = False
    only_null_items: bool = False
    controls: bool = False
    foreign: bool = False
    padded: bool = False
    longest: int = 0
    total: int = 0
    longest_escaped: int = 0
    lowest: int = 0
    highest: int = 0
    single: bool = True

    def look(self, array: Any) -> None:
        """Take account of some more cells."""
        from pyarrow import compute, types  # noqa: PLC0415 - imported when needed

        self.nulls |= array.null_count > 0
        if types.is_list(array.type):
            lengths = compute.list_value_length(array)
            self._measure(lengths)
            items = array.flatten()
            if items.null_count:
                self.null_items = True
                parents = compute.list_parent_indices(array)
                filled = compute.unique(parents.filter(compute.is_valid(items)))
                self.only_null_items |= len(filled) < len(compute.unique(parents))
            self._look_at_leaves(items)
        elif types.is_string(array.type):
            self._measure(compute.binary_length(array))
            self._look_at_texts(array)
        elif not types.is_boolean(array.type):
            self._look_at_leaves(array)

    def _measure(self, lengths: Any) -> None:
        from pyarrow import compute  # noqa: PLC0415 - imported when needed

        found = compute.min_max(lengths).as_py()
        if found["min"] is not None:
            self.empty |= found["min"] == 0
            self.longest = max(self.longest, found["max"])
            self.total += compute.sum(lengths).as_py()

    def _look_at_texts(self, array: Any) -> None:
        from pyarrow import compute  # noqa: PLC0415 - imported when needed

        def some(pattern: str) -> bool:
            return bool(compute.any(compute.match_substring_regex(array, pattern), min_count=0).as_py())

        self.controls = self.controls or some(r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}\x{fffe}\x{ffff}]")
        self.foreign = self.foreign or some(r"[^\x00-\x7f]")
        self.padded = self.padded or some(r"^\s|\s$")
        if some(r"[^\x20-\x7e]|\\|^ | $|^$"):
            lengths = (len(escaped(text)) for text in array.drop_null().to_pylist())
            self.longest_escaped = max(self.longest_escaped, *lengths)
        else:
            self.longest_escaped = max(self.longest_escaped, self.longest)

    def _look_at_leaves(self, array: Any) -> None:
        from pyarrow import compute, types  # noqa: PLC0415 - imported when needed

        if types.is_list(array.type) or types.is_string(array.type) or types.is_boolean(array.type):
            return
        if types.is_floating(array.type):
            if self.single:
                narrow = compute.cast(compute.cast(array, "float32", safe=False), "float64")
                self.single = bool(compute.all(compute.equal(narrow, array), min_count=0).as_py())
            return
        found = compute.min_max(array).as_py()
        if found["min"] is not None:
            self.lowest, self.highest = min(self.lowest, found["min"]), max(self.highest, found["max"])


@dataclass(slots=True)
class ExportColumn:
    """A column of an exported table.

    Parameters
    ----------
    column
        As the table has it; of elements, with the type of an item.
    type
        How its cells lie on the disk; texts where no other type holds them.
    as_json
        Whether the texts are JSON.
    cells
        What they have in common.
    """

    column: Column
    type: pa.DataType
    as_json: bool
    cells: Cells = field(default_factory=Cells)

    def encoder(self) -> Callable[[Any], Any] | None:
        """Give what makes a cell of a value; None where it is the value itself."""
        if self.as_json:
            return _as_json
        return _file_encoder(self.column.type)

    @property
    def single(self) -> bool:
        """Whether 32 bits hold every number, and no more were asked for."""
        return self.cells.single and "float" in json.dumps(self.column.type)


def arrow_type(kind: Any) -> pa.DataType | None:
    """Give the type that holds every value of a CWL type but null; None where JSON is all that does."""
    import pyarrow as pa  # noqa: PLC0415 - imported when needed

    members = [member for member in (kind if isinstance(kind, list) else [kind]) if member != "null"]
    if len(members) != 1:
        return None
    member = members[0]
    if isinstance(member, str):
        if member in _SCALARS:
            return getattr(pa, _SCALARS[member])()
        return pa.string() if member == "string" or member in _FILES else None
    if member["type"] == "enum":
        return pa.string()
    if member["type"] == "array":
        inner = arrow_type(member["items"])
        return None if inner is None else pa.list_(inner)
    return None


def json_text(value: Any) -> str:
    """Write JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _as_json(value: Any) -> str | None:
    return None if value is None else json_text(value)


def _file_encoder(kind: Any) -> Callable[[Any], Any] | None:
    members = [member for member in (kind if isinstance(kind, list) else [kind]) if member != "null"]
    member = members[0]
    if isinstance(member, str):
        return _file_text if member in _FILES else None
    if member["type"] != "array":
        return None
    inner = _file_encoder(member["items"])
    if inner is None:
        return None
    return lambda value: None if value is None else [inner(item) for item in value]


def _file_text(value: Any) -> str | None:
    """Write a file as its URL, or as JSON where it has none."""
    if isinstance(value, Mapping):
        location = value.get("location")
        return location if isinstance(location, str) else json_text(value)
    if value is not None and not isinstance(value, str):
        msg = "no file"
        raise TypeError(msg)
    return value


@dataclass(slots=True)
class Spooled:
    """An exported table on the disk.

    Parameters
    ----------
    columns
        Its columns.
    n_rows
        How many rows it has.
    """

    columns: list[ExportColumn]
    n_rows: int
    _file: IO[bytes]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the rows, some thousand at a time."""
        import pyarrow as pa  # noqa: PLC0415 - imported when needed

        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as reader:
            yield from reader


def spool(columns: Sequence[Column], chunks: Iterator[list[list[Any]]], file: IO[bytes], misfits: set[str]) -> Spooled:
    """Put rows on the disk.

    Parameters
    ----------
    columns
        The columns.
    chunks
        Their values, some thousand rows at a time.
    file
        An empty file.
    misfits
        Columns whose values do not all have the column's type.

    Raises
    ------
    MisfitError
        If a column is one of those and it was not known.
    """
    import pyarrow as pa  # noqa: PLC0415 - imported when needed

    made = []
    for column in columns:
        kind = None if column.name in misfits else arrow_type(column.type)
        if column.name in misfits:
            column = column.model_copy(update={"type": "Any"})  # noqa: PLW2901 - the column as it is exported
        made.append(ExportColumn(column, kind if kind is not None else pa.string(), as_json=kind is None))
    encoders = [column.encoder() for column in made]
    schema = pa.schema([pa.field(str(index), column.type) for index, column in enumerate(made)])
    n_rows = 0
    with pa.ipc.new_stream(file, schema) as writer:
        for chunk in chunks:
            arrays = []
            for item, encode, values in zip(made, encoders, chunk, strict=True):
                arrays.append(_array(item, values if encode is None else map(encode, values)))
                item.cells.look(arrays[-1])
            n_rows += len(arrays[0])
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return Spooled(made, n_rows, file)


def _array(column: ExportColumn, values: Any) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed

    try:
        return pa.array(list(values), type=column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError):
        raise MisfitError(column.column.name) from None


def nullable(kind: Any) -> Any:
    """Add null to a type."""
    if is_optional(kind):
        return kind
    return ["null", *kind] if isinstance(kind, list) else ["null", kind]
