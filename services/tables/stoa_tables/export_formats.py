"""Writes tables as CSV, ECSV, FITS, VOTable and Parquet, a piece at a time."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from stoa_tables.export_cells import ExportColumn, Spooled, json_text
from stoa_tables.file_metadata import CellForm, FileColumn, FileMetadata, escaped

if TYPE_CHECKING:
    import numpy as np
    from astropy.io.fits import Header

    from stoa_tables.importing import FileFormat

__all__ = ["SUFFIXES", "write_table"]

#: What the names of files end in.
SUFFIXES: dict[FileFormat, str] = {
    "csv": ".csv",
    "ecsv": ".ecsv",
    "fits": ".fits",
    "votable": ".vot",
    "parquet": ".parquet",
}

_BLOCK = 2880
_WIDEST_TEXT = 128
_LONGEST_NAME = 60
_GROUP_ROWS = 100_000
_GROUP_BYTES = 64 * 1024 * 1024
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_LINES_AT_ONCE = 10_000


def write_table(chosen: FileFormat, table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    """Write a table.

    Parameters
    ----------
    chosen
        The format.
    table
        The rows.
    said
        What the file says of itself; its columns are filled in here.
    file
        Where it is written; can be sought.
    """
    _WRITERS[chosen](table, said, file)


def _described(
    said: FileMetadata, columns: Sequence[ExportColumn], forms: Sequence[CellForm], names: Sequence[str]
) -> FileMetadata:
    listed = [
        FileColumn(
            name=name,
            column=item.column.name,
            type=item.column.type,
            cells=form,
            label=item.column.label,
            description=item.column.description,
            unit=item.column.unit,
            ucd=item.column.ucd,
            utype=item.column.utype,
            display=item.column.display,
        )
        for item, form, name in zip(columns, forms, names, strict=True)
    ]
    return said.model_copy(update={"columns": listed})


def _names(columns: Sequence[ExportColumn]) -> list[str]:
    return [item.column.name for item in columns]


# --- texts -------------------------------------------------------------------------------------------------------------


def _as_texts(array: Any, *, yes: str = "true", no: str = "false") -> Any:
    """Write numbers and booleans so that they are read as the same ones."""
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute, types  # noqa: PLC0415 - likewise

    if types.is_string(array.type):
        return array
    if types.is_boolean(array.type):
        return compute.if_else(array, yes, no)
    texts = compute.cast(array, pa.string())
    if types.is_floating(array.type):
        # A number without a point would be taken for a whole one.
        whole = compute.match_substring_regex(texts, "^-?[0-9]+$")
        texts = compute.if_else(whole, compute.binary_join_element_wise(texts, ".0", ""), texts)
    return texts


def _as_json(array: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed

    return pa.array([None if value is None else json_text(value) for value in array.to_pylist()], pa.string())


def _as_escaped(array: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed

    return pa.array([None if text is None else escaped(text) for text in array.to_pylist()], pa.string())


def _quoted(texts: Any) -> Any:
    """Write cells of CSV: what is null is nothing, and what is empty a pair of quotes."""
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    inner = compute.replace_substring(texts, '"', '""')
    needs = compute.match_substring_regex(texts, r'[",\r\n]|^$|^\s|\s$|^#')
    quoted = compute.binary_join_element_wise('"', inner, '"', "")
    return compute.fill_null(compute.if_else(needs, quoted, texts), "")


def _write_lines(file: IO[bytes], cells: list[Any], separator: str, *, before: str = "", after: str = "") -> None:
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    lines = compute.binary_join_element_wise(*cells, separator) if len(cells) > 1 else cells[0]
    for start in range(0, len(lines), _LINES_AT_ONCE):
        part = lines.slice(start, _LINES_AT_ONCE).to_pylist()
        file.write("".join(f"{before}{line}{after}" for line in part).encode())


def _list_depth(kind: Any) -> int:
    from pyarrow import types  # noqa: PLC0415 - imported when needed

    return 1 + _list_depth(kind.value_type) if types.is_list(kind) else 0


def _is_numeric_list(item: ExportColumn) -> bool:
    from pyarrow import types  # noqa: PLC0415 - imported when needed

    return _list_depth(item.type) == 1 and not types.is_string(item.type.value_type)


def _text_form(item: ExportColumn, *, ascii_only: bool, blanks_vanish: bool = True) -> CellForm:
    """Tell how texts are written where a format does not tell null from nothing."""
    cells = item.cells
    if item.as_json:
        return "json"
    if (
        cells.controls
        or (ascii_only and cells.foreign)
        or (blanks_vanish and cells.padded)
        or (cells.nulls and cells.empty)
    ):
        return "escaped"
    return _nothing(item)


def _list_form(item: ExportColumn) -> CellForm:
    """Tell how lists of numbers are written; null among them is NaN where there is one."""
    cells, floating = item.cells, str(item.type.value_type) == "double"
    unclear = cells.only_null_items or (cells.nulls and cells.empty) or (cells.null_items and not floating)
    return "json" if unclear else _nothing(item)


def _nothing(item: ExportColumn) -> CellForm:
    """Tell what it means where a cell has nothing; not where it may mean both."""
    return "blank" if item.cells.nulls else "empty" if item.cells.empty else "plain"


# --- CSV ---------------------------------------------------------------------------------------------------------------


def _write_csv(table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    from pyarrow import types  # noqa: PLC0415 - imported when needed

    del said
    header = io.StringIO()
    csv.writer(header, lineterminator="\r\n").writerow(_names(table.columns))
    file.write(header.getvalue().encode())
    for batch in table.batches():
        cells = [_quoted(_as_json(array) if types.is_list(array.type) else _as_texts(array)) for array in batch.columns]
        _write_lines(file, _visible(cells), ",", after="\r\n")


def _visible(cells: list[Any]) -> list[Any]:
    """Write a pair of quotes where a line would be empty, for an empty line is none."""
    from pyarrow import compute  # noqa: PLC0415 - imported when needed

    return cells if len(cells) > 1 else [compute.if_else(compute.equal(cells[0], ""), '""', cells[0])]


# --- ECSV --------------------------------------------------------------------------------------------------------------

_ECSV_TYPES = {
    "bool": "bool",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}


def _ecsv_type(kind: Any, item: ExportColumn) -> str:
    name = str(kind)
    return "float32" if name == "double" and item.single else _ECSV_TYPES[name]


def _write_ecsv(table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    forms: list[CellForm] = []
    for item in table.columns:
        if _is_numeric_list(item):
            forms.append(_list_form(item))
        elif _list_depth(item.type):
            forms.append("json")
        else:
            forms.append(_text_form(item, ascii_only=False) if str(item.type) == "string" else "plain")
    said = _described(said, table.columns, forms, _names(table.columns))
    lines = ["%ECSV 1.0", "---", "datatype:"]
    for item, form in zip(table.columns, forms, strict=True):
        entry: dict[str, Any] = {"name": item.column.name, "datatype": "string"}
        if form != "json" and _list_depth(item.type):
            entry["subtype"] = f"{_ecsv_type(item.type.value_type, item)}[null]"
        elif form != "json":
            entry["datatype"] = _ecsv_type(item.type, item)
        entry |= {key: value for key, value in _said_of(item).items() if value}
        lines.append(f"- {_yaml(entry)}")
    meta = {"name": said.table, "description": said.description, "position": said.position, "stoa": said.write()}
    lines += [f"meta: {_yaml(meta)}", "delimiter: ','", "schema: astropy-2.0"]
    file.write("".join(f"# {line}\n" for line in lines).encode())
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(_names(table.columns))
    file.write(header.getvalue().encode())
    for batch in table.batches():
        cells = []
        for array, form in zip(batch.columns, forms, strict=True):
            texts = _as_json(array) if _list_depth(array.type) else _as_texts(array, yes="True", no="False")
            cells.append(_quoted(_as_escaped(texts) if form == "escaped" else texts))
        _write_lines(file, _visible(cells), ",", after="\n")


def _said_of(item: ExportColumn) -> dict[str, Any]:
    column = item.column
    meta = {key: value for key, value in (("ucd", column.ucd), ("utype", column.utype)) if value}
    return {"unit": column.unit, "description": column.description, "meta": meta}


def _yaml(value: Any) -> str:
    """Write JSON, which is YAML, without the characters that YAML does not take."""
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", json_text(value)
    )


# --- VOTable -----------------------------------------------------------------------------------------------------------

_VOTABLE_TYPES = {"bool": "boolean", "int32": "int", "int64": "long", "double": "double"}


def _votable_forms(table: Spooled) -> list[CellForm]:
    forms: list[CellForm] = []
    for item in table.columns:
        if _is_numeric_list(item):
            forms.append(_list_form(item))
        elif _list_depth(item.type):
            forms.append("json")
        else:
            forms.append(_text_form(item, ascii_only=False) if str(item.type) == "string" else "plain")
    return forms


def _votable_field(item: ExportColumn, form: CellForm) -> str:
    column = item.column
    sized = ""
    kind = item.type.value_type if form != "json" and _list_depth(item.type) else item.type
    if form == "json" or str(kind) == "string":
        known = form != "json" and (form == "escaped" or not item.cells.foreign)
        datatype, sized = "char" if known else "unicodeChar", ' arraysize="*"'
    else:
        datatype = "float" if str(kind) == "double" and item.single else _VOTABLE_TYPES[str(kind)]
        sized = ' arraysize="*"' if _list_depth(item.type) else ""
    more = "".join(
        f" {key}={_attribute(value)}" for key in ("unit", "ucd", "utype") if (value := getattr(column, key)) is not None
    )
    start = f'<FIELD name={_attribute(column.name)} datatype="{datatype}"{sized}{more}'
    if not column.description:
        return f"{start}/>\n"
    return f"{start}>\n<DESCRIPTION>{_xml(column.description)}</DESCRIPTION>\n</FIELD>\n"


def _xml(text: str) -> str:
    """Escape a text, without the characters that XML cannot hold at all."""
    return escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text))


def _votable_head(table: Spooled, said: FileMetadata, forms: Sequence[CellForm]) -> str:
    described = f"<DESCRIPTION>{_xml(said.description)}</DESCRIPTION>\n" if said.description else ""
    fields = "".join(_votable_field(item, form) for item, form in zip(table.columns, forms, strict=True))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE type="results">\n'
        f'<TABLE name={_attribute(said.table)} nrows="{table.n_rows}">\n{described}'
        f'<INFO name="stoa_position" value="{said.position}"/>\n'
        f'<INFO name="stoa" value={_attribute(said.write())}/>\n{fields}'
    )


def _write_votable(table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    forms = _votable_forms(table)
    said = _described(said, table.columns, forms, _names(table.columns))
    file.write((_votable_head(table, said, forms) + "<DATA><TABLEDATA>\n").encode())
    for batch in table.batches():
        cells = [_votable_cells(array, form) for array, form in zip(batch.columns, forms, strict=True)]
        _write_lines(file, cells, "</TD><TD>", before="<TR><TD>", after="</TD></TR>\n")
    file.write(b"</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n")


def _votable_cells(array: Any, form: CellForm) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import compute  # noqa: PLC0415 - likewise

    if _list_depth(array.type) and form == "json":
        texts = _as_json(array)
    elif _list_depth(array.type):
        items = compute.fill_null(_as_texts(array.flatten(), yes="T", no="F"), "NaN")
        rebuilt = pa.ListArray.from_arrays(array.offsets, items, mask=compute.is_null(array))
        texts = compute.binary_join(rebuilt, " ")
    else:
        texts = _as_texts(array, yes="T", no="F")
        texts = _as_escaped(texts) if form == "escaped" else texts
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        texts = compute.replace_substring(texts, mark, entity)
    return compute.fill_null(texts, "")


# --- Parquet -----------------------------------------------------------------------------------------------------------


def _write_parquet(table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - imported when needed
    from pyarrow import parquet  # noqa: PLC0415 - likewise

    forms: list[CellForm] = ["json" if item.as_json else "plain" for item in table.columns]
    said = _described(said, table.columns, forms, _names(table.columns))
    head = _votable_head(table, said, _votable_forms(table)) + "</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    schema = pa.schema(
        [
            pa.field(
                item.column.name,
                pa.float32() if str(item.type) == "double" and item.single else item.type,
                metadata={
                    key: value
                    for key in ("unit", "ucd", "utype", "description")
                    if (value := getattr(item.column, key))
                },
            )
            for item in table.columns
        ],
        metadata={
            "IVOA.VOTable-Parquet.version": "1.0",
            "IVOA.VOTable-Parquet.content": head,
            "stoa": said.write(),
            "stoa_position": str(said.position),
        },
    )
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for batch in table.batches():
            waiting.append(batch.rename_columns(schema.names).cast(schema))
            if (
                sum(part.num_rows for part in waiting) >= _GROUP_ROWS
                or sum(part.nbytes for part in waiting) >= _GROUP_BYTES
            ):
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))


# --- FITS --------------------------------------------------------------------------------------------------------------

_FITS_LETTERS = {"bool": "L", "int32": "J", "int64": "K", "double": "D", "string": "A"}
_FITS_BYTES = {"L": "S1", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


class _FitsColumn:
    """How one column lies in a FITS table."""

    def __init__(self, item: ExportColumn, *, long_heap: bool) -> None:
        self.item = item
        cells, kind = item.cells, item.type
        self.form: CellForm = "plain"
        listed = _is_numeric_list(item)
        if listed:
            null_flags = cells.null_items and str(kind.value_type) == "bool"
            if cells.only_null_items or null_flags or (cells.nulls and cells.empty):
                listed, self.form = False, "json"
            else:
                self.form = _nothing(item)
        elif _list_depth(kind):
            self.form = "json"
        elif str(kind) == "string":
            self.form = _text_form(item, ascii_only=True)
        inner = str(kind.value_type) if listed else str(kind)
        self.letter = "A" if self.form == "json" else _FITS_LETTERS[inner]
        if self.letter == "D" and item.single:
            self.letter = "E"
        self.text = self.letter == "A"
        self.width = max(1, cells.longest_escaped if self.form == "escaped" else cells.longest)
        self.variable = listed or (self.text and (self.form == "json" or self.width > _WIDEST_TEXT))
        self.longest = 0
        self.needs_null = self.letter in "JK" and (cells.null_items if listed else cells.nulls)
        self.null = self._free() if self.needs_null else None
        self.descriptor = ">i8" if long_heap else ">i4"
        self.pointer = "Q" if long_heap else "P"

    def _free(self) -> int | None:
        """Find a number that stands for none, because no cell has it."""
        most = _MAX_INT32 if self.letter == "J" else _MAX_INT64
        for candidate, free in (
            (-most - 1, self.item.cells.lowest > -most - 1),
            (most, self.item.cells.highest < most),
        ):
            if free:
                return candidate
        return None

    def settle_null(self) -> None:
        """Write whole numbers as JSON, where every one of them is a value and none is left to stand for null."""
        if self.needs_null and self.null is None:
            self.form, self.letter, self.text, self.variable = "json", "A", True, True

    @property
    def form_text(self) -> str:
        if self.variable:
            return f"1{self.pointer}{self.letter}({self.longest})"
        return f"{self.width}A" if self.text else f"1{self.letter}"

    @property
    def dtype(self) -> Any:
        if self.variable:
            return (self.descriptor, (2,))
        return f"S{self.width}" if self.text else _FITS_BYTES[self.letter]

    def fill(self, target: np.ndarray[Any, Any], array: Any, heap: IO[bytes]) -> None:
        """Write the cells of some rows."""
        if self.variable:
            self._fill_variable(target, array, heap)
        elif self.text:
            import numpy as np  # noqa: PLC0415 - imported when needed

            texts = [self._encoded(value) for value in array.to_pylist()]
            target[:] = np.array(texts, dtype=f"S{self.width}")
        else:
            target[:] = self._numbers(array)

    def _fill_variable(self, target: np.ndarray[Any, Any], array: Any, heap: IO[bytes]) -> None:
        import numpy as np  # noqa: PLC0415 - imported when needed
        from pyarrow import compute  # noqa: PLC0415 - likewise

        start = heap.tell()
        if self.text:
            parts = [self._encoded(value) for value in array.to_pylist()]
            counts = np.array([len(part) for part in parts], np.int64)
            heap.write(b"".join(parts))
            size = 1
        else:
            counts = np.asarray(compute.fill_null(compute.list_value_length(array), 0), np.int64)
            values = self._numbers(array.flatten())
            heap.write(values.tobytes())
            size = values.dtype.itemsize
        target[:, 0] = counts
        target[:, 1] = start + (np.cumsum(counts) - counts) * size
        self.longest = max(self.longest, int(counts.max(initial=0)))

    def _encoded(self, value: Any) -> bytes:
        if value is None:
            return b""
        if self.form == "escaped":
            return escaped(value).encode("ascii")
        if self.form != "json":
            return str(value).encode("ascii")
        # JSON has escapes of its own.
        return json.dumps(json.loads(value) if self.item.as_json else value, allow_nan=False).encode("ascii")

    def _numbers(self, array: Any) -> np.ndarray[Any, Any]:
        import numpy as np  # noqa: PLC0415 - imported when needed
        import pyarrow as pa  # noqa: PLC0415 - likewise
        from pyarrow import compute  # noqa: PLC0415 - likewise

        if self.letter == "L":
            flags = np.asarray(compute.fill_null(compute.cast(array, pa.int8()), 2))
            letters: np.ndarray[Any, Any] = np.frombuffer(b"FT\0", "S1")[flags]
            return letters
        if array.null_count:
            null = float("nan") if self.letter in "ED" else self.null
            array = compute.fill_null(array, pa.scalar(null, array.type))
        return np.asarray(array).astype(_FITS_BYTES[self.letter])


def _write_fits(table: Spooled, said: FileMetadata, file: IO[bytes]) -> None:
    # Escapes take up to ten characters for one.
    bound = sum(10 * item.cells.total + 16 * table.n_rows for item in table.columns)
    columns = [_FitsColumn(item, long_heap=bound > _MAX_INT32) for item in table.columns]
    for column in columns:
        column.settle_null()
    names = _fits_names([column.item.column.name for column in columns])
    said = _described(said, table.columns, [column.form for column in columns], names)
    import numpy as np  # noqa: PLC0415 - imported when needed

    dtype = np.dtype([(f"f{index}", column.dtype) for index, column in enumerate(columns)])
    empty = len(_fits_head(columns, names, said, table.n_rows, dtype.itemsize, 0))
    file.write(b"\0" * empty)
    with tempfile.TemporaryFile(prefix="stoa-heap-") as heap:
        for batch in table.batches():
            rows = np.zeros(batch.num_rows, dtype)
            for index, column in enumerate(columns):
                column.fill(rows[f"f{index}"], batch.column(index), heap)
            file.write(rows.tobytes())
        heap_bytes = heap.tell()
        heap.seek(0)
        shutil.copyfileobj(heap, file, 1024 * 1024)
    file.write(b"\0" * (-(table.n_rows * dtype.itemsize + heap_bytes) % _BLOCK))
    head = _fits_head(columns, names, said, table.n_rows, dtype.itemsize, heap_bytes)
    file.seek(0)
    file.write(head)


def _fits_names(names: Sequence[str]) -> list[str]:
    """Give names that fit on a card each; what the table calls the columns stands in what the file says of itself."""
    taken: set[str] = set()
    made = []
    for number, name in enumerate(names, 1):
        plain = escaped(name).replace("'", "_")
        fitting = plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 8]}_{number}"
        if fitting.lower() in taken:
            fitting = f"{plain[: _LONGEST_NAME - 8]}_{number}"
        taken.add(fitting.lower())
        made.append(fitting)
    return made


def _fits_head(
    columns: Sequence[_FitsColumn], names: Sequence[str], said: FileMetadata, n_rows: int, width: int, heap_bytes: int
) -> bytes:
    from astropy.io import fits  # noqa: PLC0415 - imported when needed

    primary = fits.Header()
    primary["SIMPLE"], primary["BITPIX"], primary["NAXIS"], primary["EXTEND"] = True, 8, 0, True
    header = fits.Header()
    header["XTENSION"] = "BINTABLE"
    header["BITPIX"], header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 8, 2, width, n_rows
    header["PCOUNT"], header["GCOUNT"], header["TFIELDS"] = heap_bytes, 1, len(columns)
    for number, (column, name) in enumerate(zip(columns, names, strict=True), 1):
        item = column.item.column
        header[f"TTYPE{number}"] = name
        header[f"TFORM{number}"] = column.form_text
        if column.null is not None:
            header[f"TNULL{number}"] = column.null
        for key, value in (
            ("TUNIT", item.unit),
            ("TUCD", item.ucd),
            ("TUTYP", item.utype),
            ("TCOMM", item.description),
        ):
            if value:
                header[f"{key}{number}"] = _fits_text(value)
    header["EXTNAME"] = _fits_text(said.table)
    _fits_comments(header, said)
    return b"".join(part.tostring(sep="", endcard=True, padding=True).encode("ascii") for part in (primary, header))


def _fits_comments(header: Header, said: FileMetadata) -> None:
    if said.description:
        header["DESCRIP"] = _fits_text(said.description)
    header["STOAPOS"] = (said.position, "position of the log that this shows")
    header["STOA"] = said.write()


def _fits_text(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")


_WRITERS: dict[FileFormat, Callable[[Spooled, FileMetadata, IO[bytes]], None]] = {
    "csv": _write_csv,
    "ecsv": _write_ecsv,
    "fits": _write_fits,
    "votable": _write_votable,
    "parquet": _write_parquet,
}
