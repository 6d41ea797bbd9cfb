"""Catalogues in files become columns and rows."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from stoa_contracts.types import Column
from stoa_tables.importing import CHUNK_ROWS, ImportedTable, UnreadableFileError, guess_format, read_table
from stoa_tables.values import check_row


def read(path: Path) -> tuple[ImportedTable, list[dict[str, Any]]]:
    """Read a table, and check what has to hold for every table."""
    table = read_table(path)
    chunks = list(table.rows)
    rows = [row for chunk in chunks for row in chunk]
    assert len(rows) == table.n_rows
    assert all(0 < len(chunk) <= CHUNK_ROWS for chunk in chunks)
    for row in rows:
        json.dumps(row, allow_nan=False)
        # The types of the columns are true.
        assert check_row(table.columns, row, writable=["key"]) == row
    for column in table.columns:
        empty = any(row[column.name] is None for row in rows)
        assert empty == (isinstance(column.type, list) and column.type[0] == "null")
        assert column.role == "key"
    return table, rows


def types(table: ImportedTable) -> dict[str, Any]:
    return {column.name: column.type for column in table.columns}


def column(table: ImportedTable, name: str) -> Column:
    return next(found for found in table.columns if found.name == name)


def array_of(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        list(read_table(path).rows)
    said = str(caught.value)
    assert path.name in said
    assert str(path.parent) not in said
    assert "\n" not in said
    assert said.endswith(".")
    return said


CATALOGUE = {
    "ra": np.array([10.5, np.nan, 359.9]),
    "mag": np.array([18.5, 19.25, np.nan], dtype="f4"),
    "n": np.array([1, 2, 3], dtype="i2"),
    "count": np.array([1, -2, 2**31 - 1], dtype="i4"),
    "source_id": np.array([2**62 + 1, 0, -1]),
    "good": np.array([True, False, True]),
    "name": np.array(["M 31", "", "β Cen"]),
    "box": np.array([[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]]),
}
CATALOGUE_TYPES = {
    "ra": ["null", "double"],
    "mag": ["null", "float"],
    "n": "int",
    "count": "int",
    "source_id": "long",
    "good": "boolean",
    "name": "string",
    "box": ["null", array_of(["null", "double"])],
}
CATALOGUE_ROWS: list[dict[str, Any]] = [
    {
        "ra": 10.5,
        "mag": 18.5,
        "n": 1,
        "count": 1,
        "source_id": 2**62 + 1,
        "good": True,
        "name": "M 31",
        "box": [1.0, 2.0],
    },
    {"ra": None, "mag": 19.25, "n": 2, "count": -2, "source_id": 0, "good": False, "name": "", "box": [3.0, None]},
    {"ra": 359.9, "mag": None, "n": 3, "count": 2**31 - 1, "source_id": -1, "good": True, "name": "β Cen", "box": None},
]


def catalogue() -> Table:
    table = Table(CATALOGUE)
    table["ra"].unit = "deg"
    table["ra"].description = "Right ascension"
    table["ra"].info.meta = {"ucd": "pos.eq.ra;meta.main", "utype": "src:ra"}
    table["mag"].unit = "mag"
    table.meta["description"] = "Some sources"
    table.meta["name"] = "sources"
    return table


# --- the same table in every format ------------------------------------------------------------------------------------


def test_a_fits_table_is_read(tmp_path: Path) -> None:
    table = catalogue()
    table["name"] = ["M 31", "", "b Cen"]
    hdu = fits.table_to_hdu(table)
    hdu.header["TUCD1"] = "pos.eq.ra;meta.main"
    hdu.header["TUTYP1"] = "src:ra"
    hdu.header["TCOMM1"] = "Right ascension"
    hdu.header["EXTNAME"] = "my sources"
    hdu.writeto(tmp_path / "x.fits")
    made, rows = read(tmp_path / "x.fits")
    assert types(made) == CATALOGUE_TYPES
    assert rows == [*CATALOGUE_ROWS[:2], {**CATALOGUE_ROWS[2], "name": "b Cen"}]
    ra = column(made, "ra")
    assert (ra.unit, ra.ucd, ra.utype, ra.description) == ("deg", "pos.eq.ra;meta.main", "src:ra", "Right ascension")
    assert made.name == "my_sources"


@pytest.mark.parametrize("serialization", ["tabledata", "binary", "binary2"])
def test_a_votable_is_read(tmp_path: Path, serialization: str) -> None:
    document = votable.from_table(catalogue())
    table = document.get_first_table()
    field = table.fields[0]
    field.ucd, field.utype, field.description = "pos.eq.ra;meta.main", "src:ra", "Right\n  ascension"
    table.name, table.description = "sources", "Some\n sources"
    document.to_xml(str(tmp_path / "x.xml"), tabledata_format=serialization)
    made, rows = read(tmp_path / "x.xml")
    assert types(made) == CATALOGUE_TYPES
    assert rows == CATALOGUE_ROWS
    ra = column(made, "ra")
    assert (ra.unit, ra.ucd, ra.utype, ra.description) == ("deg", "pos.eq.ra;meta.main", "src:ra", "Right ascension")
    assert (made.name, made.description) == ("sources", "Some sources")


def test_an_ecsv_table_is_read(tmp_path: Path) -> None:
    catalogue().write(tmp_path / "x.ecsv")
    made, rows = read(tmp_path / "x.ecsv")
    # ECSV has no empty text beside the masked one.
    assert types(made) == {**CATALOGUE_TYPES, "name": ["null", "string"]}
    assert rows == [CATALOGUE_ROWS[0], {**CATALOGUE_ROWS[1], "name": None}, CATALOGUE_ROWS[2]]
    ra = column(made, "ra")
    assert (ra.unit, ra.ucd, ra.utype, ra.description) == ("deg", "pos.eq.ra;meta.main", "src:ra", "Right ascension")
    assert (made.name, made.description) == ("sources", "Some sources")


def arrow_catalogue() -> pa.Table:
    arrays = {name: pa.array(values.tolist() if values.ndim > 1 else values) for name, values in CATALOGUE.items()}
    return pa.table(arrays)


def test_a_parquet_table_is_read(tmp_path: Path) -> None:
    table = arrow_catalogue()
    metadata = {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "utype": "src:ra", "description": "Right ascension"}
    table = table.cast(table.schema.set(0, table.schema.field(0).with_metadata(metadata)))
    parquet.write_table(table, tmp_path / "x.parquet")
    made, rows = read(tmp_path / "x.parquet")
    # A list all of whose numbers are NaN is still a list here: Parquet has nulls of its own.
    assert types(made) == {**CATALOGUE_TYPES, "box": array_of(["null", "double"])}
    assert rows == [*CATALOGUE_ROWS[:2], {**CATALOGUE_ROWS[2], "box": [None, None]}]
    ra = column(made, "ra")
    assert (ra.unit, ra.ucd, ra.utype, ra.description) == ("deg", "pos.eq.ra;meta.main", "src:ra", "Right ascension")


def test_a_csv_table_is_read(tmp_path: Path) -> None:
    table = catalogue()
    del table["box"]
    table.write(tmp_path / "my sources.csv", format="ascii.csv")
    made, rows = read(tmp_path / "my sources.csv")
    assert types(made) == {
        "ra": ["null", "double"],
        "mag": ["null", "double"],
        "n": "long",
        "count": "long",
        "source_id": "long",
        "good": "boolean",
        "name": ["null", "string"],
    }
    assert rows == [
        {key: row[key] or None if key == "name" else row[key] for key in row if key != "box"} for row in CATALOGUE_ROWS
    ]
    assert made.name == "my_sources"


# --- FITS --------------------------------------------------------------------------------------------------------------


def test_the_peculiar_columns_of_fits_are_read(tmp_path: Path) -> None:
    columns = [
        fits.Column("tnull", "J", null=-99, array=np.array([1, -99])),
        fits.Column("scaled", "I", null=-1, array=np.array([2, -1], dtype="i2")),
        fits.Column("unsigned", "J", bzero=2**31, array=np.array([0, 2**32 - 1], dtype="u4")),
        fits.Column("short", "I", bzero=2**15, array=np.array([0, 2**16 - 1], dtype="u2")),
        fits.Column("byte", "B", array=np.array([0, 255], dtype="u1")),
        fits.Column("bits", "3X", array=np.array([[True, False, True], [False, False, False]])),
        fits.Column(
            "spectrum", "PE()", array=np.array([np.array([1.0, np.nan], "f4"), np.array([], "f4")], dtype=object)
        ),
        fits.Column("bins", "QJ()", array=np.array([np.array([1, 2]), np.array([3])], dtype=object)),
        fits.Column("note", "PA()", array=np.array(["abc", "de"], dtype=object)),
        fits.Column("words", "6A", dim="(3,2)", array=np.array([["abc", "d"], ["e", ""]])),
        fits.Column("image", "4D", dim="(2,2)", array=np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "x.fits")
    fits.setval(tmp_path / "x.fits", "TSCAL2", value=0.5, ext=1)
    fits.setval(tmp_path / "x.fits", "TZERO2", value=10.0, ext=1)
    made, rows = read(tmp_path / "x.fits")
    assert types(made) == {
        "tnull": ["null", "int"],
        "scaled": ["null", "double"],
        "unsigned": "long",
        "short": "int",
        "byte": "int",
        "bits": array_of("boolean"),
        "spectrum": array_of(["null", "float"]),
        "bins": array_of("int"),
        "note": "string",
        "words": array_of("string"),
        "image": array_of(array_of("double")),
    }
    assert rows[0] == {
        "tnull": 1,
        "scaled": 11.0,
        "unsigned": 0,
        "short": 0,
        "byte": 0,
        "bits": [True, False, True],
        "spectrum": [1.0, None],
        "bins": [1, 2],
        "note": "abc",
        "words": ["abc", "d"],
        "image": [[1.0, 2.0], [3.0, 4.0]],
    }
    assert (rows[1]["tnull"], rows[1]["unsigned"], rows[1]["short"], rows[1]["byte"]) == (
        None,
        2**32 - 1,
        2**16 - 1,
        255,
    )
    assert (rows[1]["scaled"], rows[1]["spectrum"], rows[1]["note"], rows[1]["words"]) == (None, [], "de", ["e", ""])


def test_an_undefined_logical_is_null(tmp_path: Path) -> None:
    hdu = fits.BinTableHDU.from_columns([fits.Column("good", "L", array=np.array([True, False, True]))])
    hdu.writeto(tmp_path / "x.fits")
    content = (tmp_path / "x.fits").read_bytes()
    (tmp_path / "x.fits").write_bytes(content.replace(b"TFT\0", b"T\0T\0"))
    made, rows = read(tmp_path / "x.fits")
    assert types(made) == {"good": ["null", "boolean"]}
    assert [row["good"] for row in rows] == [True, None, True]


def test_the_table_of_a_source_extractor_is_found_behind_its_header(tmp_path: Path) -> None:
    header = fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", "80A", array=["SIMPLE"])], name="LDAC_IMHEAD"
    )
    objects = fits.BinTableHDU.from_columns([fits.Column("NUMBER", "J", array=[1, 2])], name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), header, objects]).writeto(tmp_path / "night 1.cat.fits")
    made, rows = read(tmp_path / "night 1.cat.fits")
    assert [row["NUMBER"] for row in rows] == [1, 2]
    assert made.name == "night_1_cat"


def test_an_ascii_table_of_fits_and_a_compressed_one_are_read(tmp_path: Path) -> None:
    columns = [fits.Column("name", "A5", array=["abc", "d"]), fits.Column("flux", "E15.7", array=[1.5, 2.5])]
    fits.TableHDU.from_columns(columns).writeto(tmp_path / "x.fits")
    (tmp_path / "y").write_bytes(gzip.compress((tmp_path / "x.fits").read_bytes()))
    for name in ("x.fits", "y"):
        assert read(tmp_path / name)[1] == [{"name": "abc", "flux": 1.5}, {"name": "d", "flux": 2.5}]


def test_complex_numbers_are_refused_by_column(tmp_path: Path) -> None:
    Table({"a": [1], "vis": [1 + 2j]}).write(tmp_path / "x.fits")
    assert "column vis holds complex numbers" in refusal(tmp_path / "x.fits")


def test_an_image_is_no_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "x.fits")
    assert refusal(tmp_path / "x.fits") == "The file x.fits cannot be read as FITS: it holds no table, only images."


# --- VOTable and ECSV --------------------------------------------------------------------------------------------------

VOTABLE = """<?xml version="1.0"?>
<v:VOTABLE version="1.4" xmlns:v="http://www.ivoa.net/xml/VOTable/v1.3"><v:RESOURCE type="results">
<v:INFO name="QUERY_STATUS" value="{status}">{message}</v:INFO><v:TABLE>
<v:FIELD name="n" datatype="short"><v:VALUES null="-1"/></v:FIELD>
<v:FIELD name="spectrum" datatype="double" arraysize="*"/>
<v:FIELD name="word" datatype="unicodeChar" arraysize="*"/>
<v:FIELD name="flag" datatype="boolean"/>
<v:FIELD name="unit" datatype="float" unit="10-20W/m2/Hz"/>
<v:DATA><v:TABLEDATA>
<v:TR><v:TD>1</v:TD><v:TD>1 NaN 3</v:TD><v:TD>ä &lt; b</v:TD><v:TD>T</v:TD><v:TD>+Inf</v:TD></v:TR>
<v:TR><v:TD>-1</v:TD><v:TD></v:TD><v:TD></v:TD><v:TD>?</v:TD><v:TD></v:TD></v:TR>
</v:TABLEDATA></v:DATA></v:TABLE></v:RESOURCE></v:VOTABLE>"""


def test_nulls_arrays_and_infinities_of_a_votable_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_text(
        VOTABLE.format(status="OK", message="").replace("v:", "").replace("xmlns:v=", "xmlns="), encoding="utf-8"
    )
    made, rows = read(path)
    assert types(made)["n"] == ["null", "int"]
    assert types(made)["flag"] == ["null", "boolean"]
    assert rows[0] == {"n": 1, "spectrum": [1.0, None, 3.0], "word": "ä < b", "flag": True, "unit": None}
    assert rows[1]["n"] is None
    assert rows[1]["flag"] is None
    assert column(made, "unit").unit
    assert made.notes == ["In the column unit, 1 infinite value is null now: JSON has no infinity."]


def test_the_answer_to_a_query_that_failed_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "answer.vot"
    content = (
        VOTABLE.format(status="ERROR", message="No such table: gaia").replace("v:", "").replace("xmlns:v=", "xmlns=")
    )
    path.write_text(content, encoding="utf-8")
    assert "it is the answer to a query that failed: No such table: gaia." in refusal(path)


def test_masks_coordinates_and_times_of_an_ecsv_table_are_read(tmp_path: Path) -> None:
    table = Table(
        {
            "flux": MaskedColumn([1.0, 2.0], mask=[False, True], unit=u.Jy),
            "n": MaskedColumn([1, 2], mask=[True, False]),
            "name": MaskedColumn(["a", "b"], mask=[False, True]),
        }
    )
    table["position"] = SkyCoord([1, 2], [3, 4], unit="deg")
    table.write(tmp_path / "x.ecsv")
    made, rows = read(tmp_path / "x.ecsv")
    assert {name: kind for name, kind in types(made).items() if not name.startswith("position")} == {
        "flux": ["null", "double"],
        "n": ["null", "long"],
        "name": ["null", "string"],
    }
    assert rows[1] == {"flux": None, "n": 2, "name": None, "position.ra": 2.0, "position.dec": 4.0}
    assert column(made, "position.ra").unit == "deg"


# --- CSV ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "+2", " 3 "], "long", [1, 2, 3]),
        (["1", "2.5", "1e3"], "double", [1.0, 2.5, 1000.0]),
        (["1.5D+2", ".5", "-1."], "double", [150.0, 0.5, -1.0]),
        (["1", "nan", "--"], ["null", "long"], [1, None, None]),
        (["NULL", "N/A", "2.5"], ["null", "double"], [None, None, 2.5]),
        (["1", "inf", "2"], ["null", "double"], [1.0, None, 2.0]),
        (["true", "FALSE", "True"], "boolean", [True, False, True]),
        (["true", "", "1"], ["null", "string"], ["true", None, "1"]),
        (["007", "008", "12"], "string", ["007", "008", "12"]),
        (["0", "0.5", "-0"], "double", [0.0, 0.5, -0.0]),
        (["9223372036854775807", "1", "1"], "long", [2**63 - 1, 1, 1]),
        (["9223372036854775808", "1", "1"], "double", [2.0**63, 1.0, 1.0]),
        (["", "", ""], ["null", "string"], [None, None, None]),
        (["nan", "NaN", ""], ["null", "long"], [None, None, None]),
        (['"a, ""b"""', '""', '"two\nlines"'], "string", ['a, "b"', "", "two\nlines"]),
        (["2024-01-02", "2024-01-02T03:04:05", "x"], "string", ["2024-01-02", "2024-01-02T03:04:05", "x"]),
    ],
)
def test_a_csv_column_is_as_narrow_as_all_its_cells_allow(
    tmp_path: Path, cells: list[str], kind: Any, values: list[Any]
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,x\n" + "".join(f"a{index},{cell}\n" for index, cell in enumerate(cells)), encoding="utf-8")
    made, rows = read(path)
    assert types(made)["x"] == kind
    assert [row["x"] for row in rows] == values


@pytest.mark.parametrize(
    ("content", "names", "first"),
    [
        ("\ufeffname,x\nä,1\n".encode(), ["name", "x"], ["ä", 1]),
        ("name;x\nä;1\n".encode("latin-1"), ["name", "x"], ["ä", 1]),
        (b"# made by hand\n\na\tb\r\n1\t2\r\n", ["a", "b"], [1, 2]),
        (b"a|b\n1|2", ["a", "b"], [1, 2]),
        (b"ra,RA,,x y\n1,2,3,4\n", ["ra", "RA_2", "col3", "x y"], [1, 2, 3, 4]),
    ],
    ids=["byte order mark", "latin-1", "comments and tabs", "bars", "odd names"],
)
def test_the_header_of_a_csv_file_is_understood(
    tmp_path: Path, content: bytes, names: list[str], first: list[Any]
) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    made, rows = read(tmp_path / "x.csv")
    assert [found.name for found in made.columns] == names
    assert list(rows[0].values()) == first


def test_a_header_without_rows_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    made, rows = read(tmp_path / "x.csv")
    assert (types(made), rows) == ({"a": "string", "b": "string"}, [])


def test_a_line_with_too_few_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3\n")
    assert "Expected 2 columns, got 1" in refusal(tmp_path / "x.csv")


def test_types_hold_for_later_pieces_of_a_large_file(tmp_path: Path) -> None:
    count = 3 * CHUNK_ROWS
    lines = [f"{number},{number / 8},row {number}" for number in range(count)]
    lines[-1] = f"x{count},nan,"
    (tmp_path / "x.csv").write_text("id,flux,name\n" + "\n".join(lines))
    made, rows = read(tmp_path / "x.csv")
    assert types(made) == {"id": "string", "flux": ["null", "double"], "name": ["null", "string"]}
    assert rows[0] == {"id": "0", "flux": 0.0, "name": "row 0"}
    assert rows[-1] == {"id": f"x{count}", "flux": None, "name": None}


# --- Parquet -----------------------------------------------------------------------------------------------------------


def test_the_types_of_parquet_have_their_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "u1": pa.array([1, None], pa.uint8()),
            "u4": pa.array([2**32 - 1, 0], pa.uint32()),
            "u8": pa.array([2**63 - 1, None], pa.uint64()),
            "half": pa.array(np.array([1.5, np.nan], dtype="f2")),
            "decimal": pa.array([decimal.Decimal("1.25"), None]),
            "flag": pa.array([None, True]),
            "band": pa.array(["g", None]).dictionary_encode(),
            "large": pa.array(["a", None], pa.large_string()),
            "when": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5), None]),  # noqa: DTZ001 - as in the file
            "night": pa.array([dt.date(2024, 1, 2), None]),
            "nothing": pa.nulls(2),
            "fixed": pa.array([[1, 2], None], pa.list_(pa.int16(), 2)),
            "nested": pa.array([[[1.0], [], [float("nan"), None]], []]),
            "words": pa.array([["a", None], None]),
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    made, rows = read(tmp_path / "x.parquet")
    assert types(made) == {
        "u1": ["null", "int"],
        "u4": "long",
        "u8": ["null", "long"],
        "half": ["null", "float"],
        "decimal": ["null", "double"],
        "flag": ["null", "boolean"],
        "band": ["null", "string"],
        "large": ["null", "string"],
        "when": ["null", "string"],
        "night": ["null", "string"],
        "nothing": ["null", "string"],
        "fixed": ["null", array_of("int")],
        "nested": array_of(array_of(["null", "double"])),
        "words": ["null", array_of(["null", "string"])],
    }
    assert rows[0]["when"].startswith("2024-01-02T03:04:05")
    assert {**rows[0], "when": None} == {
        "u1": 1,
        "u4": 2**32 - 1,
        "u8": 2**63 - 1,
        "half": 1.5,
        "decimal": 1.25,
        "flag": None,
        "band": "g",
        "large": "a",
        "when": None,
        "night": "2024-01-02",
        "nothing": None,
        "fixed": [1, 2],
        "nested": [[1.0], [], [None, None]],
        "words": ["a", None],
    }


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pa.array([{"a": 1}]), "column x is of the type struct<a: int64>"),
        (pa.array([b"x"]), "column x is of the type binary"),
        (pa.array([2**63], pa.uint64()), "column x holds numbers beyond 9223372036854775807"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_by_column(tmp_path: Path, array: pa.Array, said: str) -> None:
    parquet.write_table(pa.table({"x": array}), tmp_path / "x.parquet")
    assert said in refusal(tmp_path / "x.parquet")


def test_the_headers_of_astropy_and_of_voparquet_are_read(tmp_path: Path) -> None:
    table = catalogue()
    del table["box"]
    table.write(tmp_path / "a.parquet")
    document = votable.from_table(table)
    document.get_first_table().fields[0].ucd = "pos.eq.ra;meta.main"
    document.get_first_table().description = "Some sources"
    document.to_xml(str(tmp_path / "x.xml"))
    header = (tmp_path / "x.xml").read_bytes()
    start, end = header.index(b"<DATA>"), header.index(b"</DATA>") + len(b"</DATA>")
    metadata = {b"IVOA.VOTable-Parquet.content": header[:start] + header[end:]}
    parquet.write_table(arrow_catalogue().drop_columns("box").replace_schema_metadata(metadata), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        made, _ = read(tmp_path / name)
        ra = column(made, "ra")
        assert (ra.unit, ra.ucd, ra.description) == ("deg", "pos.eq.ra;meta.main", "Right ascension")
        assert made.description == "Some sources"


# --- what all have in common -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("deg", "deg"), ("km/s", "km.s**-1"), ("erg cm-2 s-1", "erg.s**-1.cm**-2"), ("furlongs", "furlongs"), ("", None)],
)
def test_units_are_written_as_vounits_and_unknown_ones_are_kept(
    tmp_path: Path, unit: str, expected: str | None
) -> None:
    hdu = fits.BinTableHDU.from_columns([fits.Column("x", "D", unit=unit, array=[1.0])])
    hdu.writeto(tmp_path / "x.fits")
    assert read(tmp_path / "x.fits")[0].columns[0].unit == expected


def test_the_content_decides_before_the_name(tmp_path: Path) -> None:
    Table({"a": [1]}).write(tmp_path / "x.fits")
    (tmp_path / "x.fits").rename(tmp_path / "x.csv")
    assert guess_format(tmp_path / "x.csv") == "fits"
    assert read(tmp_path / "x.csv")[1] == [{"a": 1}]


def test_the_format_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_text("a\n1\n")
    assert "none of FITS, VOTable, CSV, ECSV, Parquet" in refusal(tmp_path / "x.dat")
    assert list(read_table(tmp_path / "x.dat", format="csv").rows) == [[{"a": 1}]]


@pytest.mark.parametrize("name", ["x.fits", "x.xml", "x.csv", "x.ecsv", "x.parquet"])
def test_an_empty_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFileError, match=f"There is no file {name}"):
        read_table(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert refusal(tmp_path / name) == f"The file {name} is empty."


@pytest.mark.parametrize("name", ["x.fits", "x.xml", "x.ecsv", "x.parquet", "x.fits.gz"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.parquet":
        parquet.write_table(arrow_catalogue(), path)
    else:
        Table({"a": np.arange(5000), "b": np.arange(5000.0)}).write(
            path, **({"format": "votable"} if name == "x.xml" else {})
        )
    content = path.read_bytes()
    path.write_bytes(content[: -len(content) // 3] if name != "x.ecsv" else content[:60])
    assert "cannot be read as" in refusal(path)


@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / data.draw(st.sampled_from(["d.fits", "d.xml", "d.ecsv", "d.parquet", "d.csv"]))
    original = path.with_name("o" + path.name)
    if not original.exists():
        table = Table({"a": [1, 2], "b": [0.5, 1.5], "c": ["x", "y"]})
        table.write(original, **({"format": "votable"} if path.suffix == ".xml" else {}))
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        table = read_table(path)
        rows = [row for chunk in table.rows for row in chunk]
    except UnreadableFileError as error:
        said = str(error)
        assert "cannot be read" in said or "none of" in said or "damaged" in said
    else:
        assert len(rows) == table.n_rows


def test_a_hundred_thousand_rows_take_less_than_two_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = 100_000
    table = Table(
        {f"x{index}": rng.random(count) for index in range(8)} | {"id": np.arange(count), "n": ["abc"] * count}
    )
    table.write(tmp_path / "x.fits")
    read_table(tmp_path / "x.fits", format="fits")
    start = time.process_time()
    assert sum(len(chunk) for chunk in read_table(tmp_path / "x.fits").rows) == count
    assert time.process_time() - start < 2


def test_the_libraries_are_loaded_only_when_a_file_is_read() -> None:
    code = "import sys, stoa_tables.importing, stoa_tables.cwl; print({'astropy', 'pyarrow', 'cwl_utils', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
