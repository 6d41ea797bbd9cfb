"""Looks at a file before a reader does: what it claims has to be there, and what it unfolds to has to be bounded."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.parsers import expat

from stoa_chassis.problems import Problem
from stoa_tables.importing import UnreadableFileError
from stoa_tables.problems import TooLargeError

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from stoa_tables.importing import FileFormat

__all__ = ["ImportLimits", "check_file", "unpacked"]

_GZIP = b"\x1f\x8b"
_PIECE = 1024 * 1024
_BLOCK = 2880
_MAX_HEADER_BLOCKS = 4000
_MAX_UNITS = 1000
_MAX_DEPTH = 40
_MAX_ELEMENTS_OF_A_TABLE = 20_000
_DESCRIPTOR = re.compile(r"^\s*[01]?([PQ])([LXBIJKAED])")
_ITEM_BYTES = {"L": 1, "X": 1 / 8, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8}
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """How large a file may be, unfolded.

    Parameters
    ----------
    rows
        At most so many rows.
    columns
        At most so many columns.
    items
        At most so many items in one cell.
    bytes
        At most so many bytes, once it is no longer compressed.
    """

    rows: int = 1_000_000
    columns: int = 2000
    items: int = 262_144
    bytes: int = 4 * 1024**3

    def check_rows(self, rows: int, *, more: bool = False) -> None:
        """Refuse too many rows; ``more`` where they were not counted to the end."""
        if rows > self.rows:
            told = f"more than {self.rows:,}" if more else f"{rows:,}"
            raise TooLargeError(f"The file has {told} rows; {self.rows:,} can be imported", limit=self.rows)

    def check_columns(self, columns: int) -> None:
        """Refuse too many columns."""
        if columns > self.columns:
            raise TooLargeError(
                f"The file has {columns:,} columns; {self.columns:,} can be imported", limit=self.columns
            )

    def check_items(self, items: int, column: str) -> None:
        """Refuse a cell that holds too much."""
        if items > self.items:
            raise TooLargeError(
                f"A cell of the column {column} has {items:,} items; a cell may have {self.items:,}. Large data belongs into files",
                limit=self.items,
            )


def unpacked(path: Path, limits: ImportLimits) -> Path:
    """Unpack a file that is compressed with gzip, beside itself, and give the unpacked one.

    Raises
    ------
    UnreadableFileError
        If it is damaged.
    TooLargeError
        If it unfolds to more than the limit.
    """
    with path.open("rb") as stream:
        if stream.read(2) != _GZIP:
            return path
    plain = path.with_name(path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"plain-{path.name}")
    size = 0
    try:
        with gzip.open(path) as packed, plain.open("wb") as file:
            while piece := packed.read(_PIECE):
                size += len(piece)
                if size > limits.bytes:
                    raise TooLargeError(
                        f"The compressed file {path.name} unfolds to more than {limits.bytes:,} bytes",
                        limit=limits.bytes,
                    )
                file.write(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(f"The compressed file {path.name} is damaged: {error}.") from error
    return plain


def check_file(path: Path, kind: FileFormat, limits: ImportLimits) -> None:
    """Refuse a file that is not all there, or that would unfold to more than the limits.

    Raises
    ------
    UnreadableFileError
        If it is damaged, or made to harm.
    TooLargeError
        If it has more than is taken.
    """
    try:
        _CHECKS[kind](path, limits)
    except UnreadableFileError as error:
        raise UnreadableFileError(f"The file {path.name} cannot be read: {error}") from error.__cause__
    except Problem:
        raise
    except Exception as error:  # what a library raises on purposely damaged bytes is never all known
        said = (" ".join(str(error).split()) or type(error).__name__).replace(str(path), path.name).rstrip(".")
        raise UnreadableFileError(f"The file {path.name} cannot be read: {said[:300]}.") from error


# --- FITS --------------------------------------------------------------------------------------------------------------


def _check_fits(path: Path, limits: ImportLimits) -> None:
    from astropy.io import fits  # noqa: PLC0415 - imported when needed

    size = path.stat().st_size
    with path.open("rb") as stream:
        for header, start in _fits_units(stream, size):
            length = _data_size(header)
            if start + length > size:
                raise UnreadableFileError(
                    f"its header says that there are {length:,} bytes of data, and {max(0, size - start):,} are there."
                )
            if header.get("XTENSION", "").strip() in {"BINTABLE", "TABLE"} and header.get("EXTNAME") != "LDAC_IMHEAD":
                limits.check_rows(header["NAXIS2"])
                limits.check_columns(header["TFIELDS"])
                if header["XTENSION"].strip() == "BINTABLE":
                    _check_cells(path, fits.Header(header), start, limits)
                return
            stream.seek(start + math.ceil(length / _BLOCK) * _BLOCK)


def _fits_units(stream: BinaryIO, size: int) -> Iterator[tuple[Header, int]]:
    """Yield the header of each unit and where its data begins."""
    from astropy.io import fits  # noqa: PLC0415 - imported when needed

    for _ in range(_MAX_UNITS):
        if stream.tell() >= size:
            return
        blocks = bytearray()
        while True:
            block = stream.read(_BLOCK)
            if len(block) < _BLOCK:
                if not blocks:
                    return  # what is left behind the last unit means nothing
                raise UnreadableFileError("it ends within a header.")
            blocks += block
            if any(block[at : at + 8] == b"END     " for at in range(0, _BLOCK, 80)):
                break
            if len(blocks) > _MAX_HEADER_BLOCKS * _BLOCK:
                raise UnreadableFileError("one of its headers has no end.")
        yield fits.Header.fromstring(bytes(blocks).decode("latin-1")), stream.tell()
    raise UnreadableFileError(f"it has more than {_MAX_UNITS} units before its first table.")


def _data_size(header: Header) -> int:
    axes = [_whole(header, f"NAXIS{axis}") for axis in range(1, _whole(header, "NAXIS") + 1)]
    if not axes:
        return 0
    if header.get("GROUPS") is True and axes[0] == 0:
        axes[0] = 1
    groups = max(1, _whole(header, "GCOUNT", 1))
    bits = header.get("BITPIX", 8)
    if not isinstance(bits, int):
        raise UnreadableFileError("its header has no valid BITPIX.")
    return abs(bits) // 8 * groups * (_whole(header, "PCOUNT", 0) + math.prod(axes))


def _whole(header: Header, key: str, default: int | None = None) -> int:
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UnreadableFileError(f"its header has no valid {key}.")
    return value


def _check_cells(path: Path, header: Header, start: int, limits: ImportLimits) -> None:
    """Refuse cells that are too large, and arrays of variable length that lie outside of their heap."""
    import numpy as np  # noqa: PLC0415 - imported when needed
    from astropy.io.fits.column import _ColumnFormat  # noqa: PLC0415 - likewise

    width, rows, at = _whole(header, "NAXIS1"), _whole(header, "NAXIS2"), 0
    heap_bytes = _whole(header, "PCOUNT", 0)
    gap = _whole(header, "THEAP", width * rows) - width * rows
    if gap < 0 or gap > heap_bytes:
        raise UnreadableFileError("its heap does not lie behind its rows.")
    heap_bytes -= gap
    if not rows:
        return
    table = np.memmap(path, np.uint8, "r", offset=start, shape=(rows, width)) if width else None
    total = 0
    for number in range(1, _whole(header, "TFIELDS") + 1):
        name = str(header.get(f"TTYPE{number}", f"number {number}"))
        written = str(header.get(f"TFORM{number}", ""))
        form = _ColumnFormat(written)
        length = math.ceil(form.repeat * _width_of(form.format))
        if table is None or at + length > width:
            raise UnreadableFileError(f"the column {name} is wider than the rows.")
        found = _DESCRIPTOR.match(written)
        if found is None:
            limits.check_items(1 if form.format == "A" else form.repeat, name)
        elif form.repeat:
            kind = ">i4" if found[1] == "P" else ">i8"
            for first in range(0, rows, _ROWS_AT_ONCE):
                raw = np.ascontiguousarray(table[first : first + _ROWS_AT_ONCE, at : at + length])
                counts, offsets = raw.view(kind).astype(np.int64).T
                ends = offsets + np.ceil(counts * _ITEM_BYTES[found[2]]).astype(np.int64)
                # A sum of 64 bits may wrap around: each part is looked at, too.
                wrong = (counts < 0) | (offsets < 0) | (counts > heap_bytes * 8) | (offsets > heap_bytes)
                wrong = (wrong | (ends > heap_bytes)) & (counts != 0)
                if wrong.any():
                    raise UnreadableFileError(
                        f"row {first + int(wrong.argmax()) + 1} of the column {name} points outside of the heap."
                    )
                limits.check_items(int(counts.max()), name)
                total += int(counts.sum()) * max(1, int(_ITEM_BYTES[found[2]]))
        at += length
    if total > limits.bytes:
        raise TooLargeError(f"Its arrays unfold to {total:,} bytes; {limits.bytes:,} are taken", limit=limits.bytes)


def _width_of(letter: str) -> float:
    widths = {"P": 8, "Q": 16, "C": 8, "M": 16, **_ITEM_BYTES}
    if letter not in widths:
        raise UnreadableFileError(f"it has a column of the format {letter!r}, which is none.")
    return widths[letter]


# --- VOTable -----------------------------------------------------------------------------------------------------------


class _Scan:
    """Walks through a VOTable document and keeps nothing of it."""

    def __init__(self, limits: ImportLimits) -> None:
        self._limits = limits
        self._depth = 0
        self._fields = 0
        self._elements = 0
        self._tables = 0
        self._rows = 0

    def walk(self, stream: BinaryIO) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse_declarations
        parser.EntityDeclHandler = self._refuse_declarations
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        try:
            parser.ParseFile(stream)
        except expat.ExpatError as error:
            raise UnreadableFileError(f"it is no complete XML document ({error}).") from error

    def _refuse_declarations(self, *_: Any) -> None:
        raise UnreadableFileError("it declares a document type or entities, which no VOTable needs.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableFileError(f"its elements are nested more than {_MAX_DEPTH} deep.")
        name = name.rpartition(":")[2]
        if name == "TABLE":
            self._tables += 1
        if self._tables > 1:
            return  # only the first table is read
        if name == "TR":
            self._rows += 1
            self._limits.check_rows(self._rows, more=True)
        elif name == "STREAM" and attributes.get("href"):
            raise UnreadableFileError("its data lies elsewhere (STREAM with href), and is not fetched.")
        elif name == "FIELD":
            self._fields += 1
            self._limits.check_columns(self._fields)
            self._check_size(attributes)
        elif name not in {"TD", "STREAM", "BINARY", "BINARY2", "DATA", "TABLEDATA"}:
            self._elements += 1
            if self._elements > _MAX_ELEMENTS_OF_A_TABLE:
                raise UnreadableFileError(f"it has more than {_MAX_ELEMENTS_OF_A_TABLE:,} elements beside its rows.")

    def _check_size(self, attributes: dict[str, str]) -> None:
        sizes = [part.removesuffix("*") for part in attributes.get("arraysize", "").split("x")]
        items = math.prod(int(size) for size in sizes if size.isdecimal() and len(size) < 20)  # noqa: PLR2004 - 64 bits
        if any(len(size) >= 20 for size in sizes):  # noqa: PLR2004 - likewise
            items = self._limits.items + 1
        self._limits.check_items(items, attributes.get("name", "") or attributes.get("ID", ""))

    def _end(self, _: str) -> None:
        self._depth -= 1


def _check_votable(path: Path, limits: ImportLimits) -> None:
    with path.open("rb") as stream:
        _Scan(limits).walk(stream)


# --- Parquet -----------------------------------------------------------------------------------------------------------


def _check_parquet(path: Path, limits: ImportLimits) -> None:
    from pyarrow import parquet  # noqa: PLC0415 - imported when needed

    metadata = parquet.read_metadata(path)
    limits.check_columns(metadata.num_columns)
    limits.check_rows(metadata.num_rows)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    counted = sum(group.num_rows for group in groups)
    if counted != metadata.num_rows:
        raise UnreadableFileError(
            f"its footer says that there are {metadata.num_rows:,} rows, and its row groups have {counted:,}."
        )
    unfolded = 0
    for group in groups:
        for index in range(group.num_columns):
            chunk = group.column(index)
            if min(chunk.total_compressed_size, chunk.total_uncompressed_size) < 0 or (
                chunk.total_compressed_size > path.stat().st_size
            ):
                raise UnreadableFileError("its footer names more data than the file has.")
            unfolded += chunk.total_uncompressed_size
    if unfolded > limits.bytes:
        raise TooLargeError(f"The file unfolds to {unfolded:,} bytes; {limits.bytes:,} are taken", limit=limits.bytes)


def _check_text(path: Path, limits: ImportLimits) -> None:
    """Leave it to the reader, which reads a piece at a time and counts as it does."""


_CHECKS: dict[FileFormat, Callable[[Path, ImportLimits], None]] = {
    "fits": _check_fits,
    "votable": _check_votable,
    "parquet": _check_parquet,
    "csv": _check_text,
    "ecsv": _check_text,
}
