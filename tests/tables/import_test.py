"""Rows of files go into tables: matched, converted, previewed, and refused where they cannot be taken."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from stoa_contracts.types import Column
from stoa_tables.file_metadata import escaped, unescaped
from stoa_tables.import_matching import FileField, conversion, match_columns
from stoa_tables.import_process import ReadRequest, read_in_process, rows_of
from stoa_tables.import_safety import ImportLimits, check_file, unpacked
from stoa_tables.importing import UnreadableFileError, guess_format
from stoa_tables.problems import InvalidRequestError, TooLargeError
from tests.tables.harness import Harness, running

# --- matching ----------------------------------------------------------------------------------------------------------


def columns(**types: Any) -> list[Column]:
    return [Column(name=name, role="input", type=kind) for name, kind in types.items()]


def fields(*names: str) -> list[FileField]:
    return [FileField(name, "double") for name in names]


def pairs(file: list[FileField], table: list[Column], mapping: Mapping[str, str] | None = None) -> dict[str, str]:
    return {match.field.name: match.column.name for match in match_columns(file, table, mapping or {}).matches}


def test_columns_are_matched_by_mapping_then_name_then_similar_name_then_ucd() -> None:
    table = [
        Column(name="ra", role="input", type="double", ucd="pos.eq.ra;meta.main"),
        Column(name="Object_Name", role="input", type="string"),
        Column(name="mag", role="input", type="double"),
        Column(name="seeing", role="input", type="double"),
    ]
    file = [
        FileField("RAJ2000", "double", ucd="POS.EQ.RA;meta.main"),
        FileField("object name", "string"),
        FileField("mag", "double"),
        FileField("fwhm", "double"),
        FileField("extra", "double"),
    ]
    matched = match_columns(file, table, {"fwhm": "seeing"})
    assert [(match.field.name, match.column.name, match.by) for match in matched.matches] == [
        ("RAJ2000", "ra", "ucd"),
        ("object name", "Object_Name", "similar name"),
        ("mag", "mag", "name"),
        ("fwhm", "seeing", "mapping"),
    ]
    assert matched.unmatched_fields == {"extra": "The table has no such column."}
    assert matched.unmatched_columns == []


def test_the_mapping_wins_over_the_name() -> None:
    assert pairs(fields("a", "b"), columns(a="double", b="double"), {"b": "a"}) == {"b": "a"}


def test_what_is_ambiguous_is_not_matched() -> None:
    assert pairs(fields("A_B", "a b"), columns(ab="double")) == {}
    assert pairs(fields("ab"), columns(**{"a_b": "double", "A B": "double"})) == {}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"zz": "a"}, "The file has no column 'zz'; it has a, b"),
        ({"a": "zz"}, "The table has no column 'zz'"),
        ({"a": "y"}, "The column 'y' is computed by the workflow"),
        ({"a": "a", "b": "a"}, "Two columns of the file are to fill the column 'a'"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(mapping: dict[str, str], said: str) -> None:
    table = [*columns(a="double"), Column(name="y", role="output", type="double")]
    with pytest.raises(InvalidRequestError, match=said):
        match_columns(fields("a", "b"), table, mapping)


@pytest.mark.parametrize(
    ("theirs", "ours", "factor"),
    [
        ("deg", "arcsec", pytest.approx(3600, rel=1e-15)),
        ("mJy", "Jy", 0.001),
        ("Angstrom", "nm", pytest.approx(0.1)),
        ("km/s", "km.s**-1", 1.0),
        ("deg", "Jy", None),
        ("furlongs of my own", "m", None),
        ("mag", "Jy", None),
    ],
)
def test_units_have_a_factor_or_none(theirs: str, ours: str, factor: Any) -> None:
    assert conversion(theirs, ours) == factor


@given(st.text())
def test_an_escaped_text_is_ascii_without_blanks_at_its_ends_and_is_read_again(text: str) -> None:
    written = escaped(text)
    assert written
    assert written.isascii()
    assert written.isprintable()
    assert written == written.strip()
    assert unescaped(written) == text


# --- over HTTP ---------------------------------------------------------------------------------------------------------


async def send(
    stoa: Harness, path: str, file: str, content: bytes, *, expect: int = 201, **data: Any
) -> dict[str, Any]:
    if "mapping" in data:
        data["mapping"] = json.dumps(data["mapping"])
    answer = await stoa.request("POST", path, expect=expect, files=[("file", (file, content))], data=data)
    told: dict[str, Any] = answer.json()
    return told


def fits_bytes(table: Table) -> bytes:
    buffer = io.BytesIO()
    table.write(buffer, format="fits")
    return buffer.getvalue()


async def test_rows_are_imported_into_a_worktable_with_units_and_defaults(stoa: Harness) -> None:
    await stoa.worktable(
        "sources", {"ra": "double", "sigma": {"type": "double", "default": 5.0}, "name": "string?"}, {"n": "int"}
    )
    await stoa.patch("/tables/sources/columns/ra", {"unit": "arcsec"})
    table = Table({"RA": [1.5, 2.0], "Name": ["a", "b"], "n": [7, 8], "zz": [0, 0]})
    table["RA"].unit = "deg"
    content = fits_bytes(table)
    before = await stoa.head()
    preview = await send(stoa, "/tables/sources/import/preview", "x.fits", content, expect=200)
    assert await stoa.head() == before
    done = await send(stoa, "/tables/sources/import", "x.fits", content)
    assert await stoa.values("sources", "ra", "sigma", "name") == [(5400.0, 5.0, "a"), (7200.0, 5.0, "b")]
    assert preview["first"] == [
        {"ra": 5400.0, "sigma": 5.0, "name": "a"},
        {"ra": 7200.0, "sigma": 5.0, "name": "b"},
    ]
    assert {key: preview[key] for key in preview if key in done and key != "position"} == {
        key: done[key] for key in done if key in preview and key != "position"
    }
    assert done["unmatched_file_columns"] == {
        "n": "The column is computed by the workflow.",
        "zz": "The table has no such column.",
    }
    assert done["unmatched_columns"] == ["sigma"]
    assert done["columns"][0]["note"] == "The values are converted from deg to arcsec: multiplied by 3600.0."
    assert (done["first_row"], done["last_row"], done["accepted"]) == (1, 2, 2)
    [added] = await stoa.log(0, "rows-added")
    assert added.schema_version == 2
    assert added.data["imported_from"] == done["imported_from"]
    assert done["imported_from"]["size"] == len(content)
    assert stoa.rebuilt()[1] == []


async def test_children_follow_an_import(quick: Harness) -> None:
    await quick.plain("parent", {"x": "int"})
    await quick.worktable("child", {"x": "int"}, {"y": "int"})
    await quick.post("/tables/child/links", {"parent": "parent", "per": "row", "mapping": {"x": "x"}})
    await send(quick, "/tables/parent/import", "x.csv", b"x\n1\n2\n")
    assert await quick.values("child", "x") == [(1,), (2,)]


async def test_rejected_rows_are_told_by_line_and_nothing_is_imported_unless_asked(stoa: Harness) -> None:
    await stoa.plain("t", {"k": "int", "name": "string", "z": "double?"})
    content = b'k,name,z\n1,"two\nlines",0.5\nx,b,\n3,c\n\n4,d,NaN\n5,e,1e999\n6,f,0.25\n'
    before = await stoa.head()
    refused = await send(stoa, "/tables/t/import", "x.csv", content, expect=422)
    assert refused["type"].endswith("rejected-rows")
    assert refused["detail"].startswith("3 of 6 rows cannot be taken, so nothing was imported: line 4: k: ")
    assert [(row["row"], row["line"]) for row in refused["rejected"]] == [(2, 4), (None, 5), (4, 8)]
    assert refused["rejected"][1]["problems"] == ["The line has 2 cells, but there are 3 columns."]
    assert await stoa.head() == before
    preview = await send(stoa, "/tables/t/import/preview", "x.csv", content, expect=200)
    assert (preview["rows"], preview["accepted"], preview["rejected_total"]) == (6, 3, 3)
    done = await send(stoa, "/tables/t/import", "x.csv", content, partial="true")
    assert done["rejected"] == preview["rejected"] == refused["rejected"]
    assert await stoa.values("t", "k", "name", "z") == [(1, "two\nlines", 0.5), (4, "d", None), (6, "f", 0.25)]


async def test_the_list_of_rejected_rows_is_bounded(quick: Harness) -> None:
    await quick.plain("t", {"k": "int"})
    content = b"k\n" + b"x\n" * 1000
    refused = await send(quick, "/tables/t/import", "x.csv", content, expect=422)
    assert refused["rejected_total"] == 1000
    assert len(refused["rejected"]) == 100
    assert len(refused["detail"]) < 1000


async def test_types_are_brought_into_those_of_the_table(quick: Harness) -> None:
    await quick.plain(
        "t",
        {"text": "string", "n": "long", "flag": "boolean", "f": "double", "file": "File", "list": "int[]"},
    )
    table = Table(
        {
            "text": [12, 7],
            "n": ["5", " 6 "],
            "flag": [1, 0],
            "f": ["0.5", "1e3"],
            "file": ["/data/a.fits", "file:///data/b.fits"],
            "list": [[1, 2], [3, 4]],
        }
    )
    await send(quick, "/tables/t/import", "t.fits", fits_bytes(table))
    assert await quick.values("t", "text", "n", "flag", "f", "list") == [
        ("12", 5, True, 0.5, [1, 2]),
        ("7", 6, False, 1000.0, [3, 4]),
    ]
    assert [row["values"]["file"]["location"] for row in await quick.rows("t")] == [
        "file:///data/a.fits",
        "file:///data/b.fits",
    ]


async def test_units_that_do_not_fit_are_refused(quick: Harness) -> None:
    await quick.plain("t", {"flux": "double"})
    await quick.patch("/tables/t/columns/flux", {"unit": "Jy"})
    table = Table({"flux": [1.0]})
    table["flux"].unit = "deg"
    content = fits_bytes(table)
    preview = await send(quick, "/tables/t/import/preview", "t.fits", content, expect=200)
    assert preview["columns"][0]["problem"] == "The file says deg, which cannot be converted to the table's Jy."
    refused = await send(quick, "/tables/t/import", "t.fits", content, expect=422)
    assert refused["detail"] == "flux: The file says deg, which cannot be converted to the table's Jy."
    assert await quick.rows("t") == []


async def test_a_new_table_can_be_previewed_renamed_and_made_of_the_good_lines(quick: Harness) -> None:
    content = b"RA (deg),n\n1.5,1\n2.5\n3.5,3\n"
    preview = await send(quick, "/tables/import/preview", "My cat.csv", content, expect=200)
    assert preview["name"] == "My_cat"
    assert preview["first"] == [{"RA (deg)": 1.5, "n": 1}, {"RA (deg)": 3.5, "n": 3}]
    assert preview["rejected"] == [
        {"row": None, "line": 3, "problems": ["The line has 1 cells, but there are 2 columns."]}
    ]
    refused = await send(quick, "/tables/import", "c.csv", content, expect=422, name="t")
    assert refused["type"].endswith("rejected-rows")
    assert (await quick.get("/tables"))["tables"] == []
    made = await send(quick, "/tables/import", "c.csv", content, name="t", partial="true", mapping={"RA (deg)": "ra"})
    assert made["rows"] == 2
    assert made["report"]["rejected_total"] == 1
    assert await quick.values("t", "ra", "n") == [(1.5, 1), (3.5, 3)]


async def test_an_import_that_was_sent_twice_is_one(quick: Harness) -> None:
    await quick.plain("t", {"a": "int"})
    answers = [
        await quick.request(
            "POST",
            "/tables/t/import",
            expect=201,
            files=[("file", ("x.csv", b"a\n1\n"))],
            headers={"Idempotency-Key": "one"},
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len(await quick.rows("t")) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"partial": "maybe"}, "true or false"),
        ({"mapping": ["a"]}, "object in JSON"),
        ({"mapping": {"a": 5}}, "object in JSON"),
        ({"format": "xls"}, "no format that can be read"),
    ],
)
async def test_what_makes_no_sense_is_refused(quick: Harness, data: dict[str, Any], said: str) -> None:
    await quick.plain("t", {"a": "int"})
    refused = await send(quick, "/tables/t/import", "x.csv", b"a\n1\n", expect=422, **data)
    assert said in refused["detail"]


async def test_rows_of_a_derived_table_are_not_imported(quick: Harness) -> None:
    await quick.plain("l", {"k": "int"})
    await quick.plain("r", {"k": "int", "v": "int"})
    await quick.join("j", "l", "r", [("k", "k")])
    refused = await send(quick, "/tables/j/import", "x.csv", b"k\n1\n", expect=409)
    assert "come from other tables" in refused["detail"]


# --- files that harm ---------------------------------------------------------------------------------------------------

#: Less than what some of the files unfold to, and enough for every library.
_MEMORY = 600 * 1024**2


def request(path: Path, **more: Any) -> ReadRequest:
    folder = path.parent / f"{path.name}-rows"
    folder.mkdir(exist_ok=True)
    limits = {"max_rows": 1_000_000, "max_bytes": 256 * 1024**2, "memory_bytes": _MEMORY, "seconds": 60}
    return ReadRequest(path=path, folder=folder, **{**limits, **more})


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises((UnreadableFileError, TooLargeError)) as caught:
        read_in_process(request(path, **more))
    said = str(caught.value)
    assert "\n" not in said
    assert str(path.parent) not in said
    return said


def variable_length(count: int, offset: int, *, rows: int = 1, heap: int = 16) -> bytes:
    cards = [
        "XTENSION= 'BINTABLE'",
        "BITPIX  = 8",
        "NAXIS   = 2",
        "NAXIS1  = 8",
        f"NAXIS2  = {rows}",
        f"PCOUNT  = {heap}",
        "GCOUNT  = 1",
        "TFIELDS = 1",
        "TTYPE1  = 'spectrum'",
        "TFORM1  = '1PE(10)'",
        "END",
    ]
    primary = ["SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 0", "EXTEND  =                    T", "END"]
    data = struct.pack(">ii", count, offset) * rows + b"\0" * heap
    return b"".join(
        part.ljust(-(-len(part) // 2880) * 2880, fill)
        for part, fill in (
            ("".join(card.ljust(80) for card in primary).encode(), b" "),
            ("".join(card.ljust(80) for card in cards).encode(), b" "),
            (data, b"\0"),
        )
    )


def votable(body: str, *, prolog: str = "", fields: str = '<FIELD name="a" datatype="double"/>') -> bytes:
    return (
        f'<?xml version="1.0"?>{prolog}<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f"<RESOURCE><TABLE>{fields}<DATA>{body}</DATA></TABLE></RESOURCE></VOTABLE>"
    ).encode()


_LAUGHS = (
    "<!DOCTYPE lolz [<!ENTITY a 'lol'>"
    + "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(12))
    + "]>"
)

HARMFUL: dict[str, tuple[str, bytes, str]] = {
    "a heap that is too short": ("x.fits", variable_length(5, 0), "points outside of the heap"),
    "an offset outside": ("x.fits", variable_length(1, 1 << 30), "points outside of the heap"),
    "a negative count": ("x.fits", variable_length(-1, 0), "points outside of the heap"),
    "an array of all memory": ("x.fits", variable_length(2**31 - 1, 0), "points outside of the heap"),
    "overlapping arrays": (
        "x.fits",
        variable_length(250_000, 0, rows=20_000, heap=1_000_000),
        "unfold to 20,000,000,000 bytes",
    ),
    "more rows than data": ("x.fits", variable_length(0, 0, rows=5)[:5760], "of data"),
    "a header without an end": ("x.fits", b"SIMPLE  =                    T".ljust(2880 * 3), "ends within a header"),
    "billion laughs": ("x.vot", votable("<TABLEDATA/>", prolog=_LAUGHS), "declares a document type"),
    "an external entity": (
        "x.vot",
        votable("<TABLEDATA/>", prolog='<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "declares a document type",
    ),
    "data elsewhere": (
        "x.vot",
        votable('<BINARY><STREAM href="file:///etc/passwd" encoding="base64"/></BINARY>'),
        "lies elsewhere",
    ),
    "deep nesting": ("x.vot", votable("<GROUP>" * 5000 + "</GROUP>" * 5000), "nested more than"),
    "a cell as wide as memory": (
        "x.vot",
        votable(
            "<TABLEDATA><TR><TD>1</TD></TR></TABLEDATA>",
            fields='<FIELD name="a" datatype="double" arraysize="100000x100000"/>',
        ),
        "a cell may have",
    ),
    "a truncated VOTable": ("x.vot", votable("<TABLEDATA/>")[:-30], "no complete XML document"),
    "a damaged gzip": ("x.csv.gz", gzip.compress(b"a\n" + os.urandom(9000).hex().encode())[:-500], "is damaged"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_file_that_harms_is_refused_clearly(tmp_path: Path, name: str) -> None:
    file, content, said = HARMFUL[name]
    path = tmp_path / file
    path.write_bytes(content)
    limits = ImportLimits(bytes=256 * 1024**2)
    with pytest.raises((UnreadableFileError, TooLargeError)) as caught:
        check_file(unpacked(path, limits), guess_format(path), limits)
    assert said in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_gzip_bomb_is_refused_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"a,b\n")
        for _ in range(80):
            file.write(b"1,2\n" * (1024**2))
    assert path.stat().st_size < 2 * 1024**2
    assert "unfolds to more than 268,435,456 bytes" in refusal(path)


def test_a_csv_with_too_many_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("wb") as file:
        file.write(b"a,b\n")
        for _ in range(100):
            file.write(b"1,2\n" * 100_000)
    assert "more than 1,000,000 rows" in refusal(path)
    assert "more than 1,000,000 rows" in refusal(path, columns=columns(a="int"))


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a" * (64 * 1024**2))
    assert "is longer than" in refusal(path)


def test_what_needs_more_memory_than_allowed_is_refused(tmp_path: Path) -> None:
    """Equal texts are stored once, so that a small file unfolds to a gibibyte in its first piece alone."""
    path = tmp_path / "x.parquet"
    indices = pa.array(np.zeros(10_000, np.int32))
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 100_000]))
    parquet.write_table(pa.table({"a": texts}), path)
    assert path.stat().st_size < 1024**2
    assert refusal(path) == "The file x.parquet is too large to be read as Parquet."


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("suffix", ["fits", "parquet", "vot"])
def test_a_truncated_file_is_refused_and_nothing_is_half_read(tmp_path: Path, suffix: str, cut: float) -> None:
    path = tmp_path / f"x.{suffix}"
    table = Table({"a": np.arange(5000), "b": np.arange(5000) / 7})
    formats = {"fits": "fits", "vot": "votable", "parquet": "parquet"}
    table.write(path, format=formats[suffix])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    refusal(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_parquet_file_that_lies_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"a": pa.array(range(2000)), "b": pa.array(["x"] * 2000)}), path)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for at in random.integers(footer, len(content) - 8, 4):
        content[at] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    try:
        found = read_in_process(request(path))
    except (UnreadableFileError, TooLargeError):
        return
    assert len(list(rows_of(path.parent / f"{path.name}-rows", found.table_columns))) == found.accepted


async def test_a_bomb_leaves_no_trace(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path, max_import_rows=1000) as stoa:
        await stoa.plain("t", {"a": "int"})
        before = await stoa.head()
        for path, more in {"/tables/t/import": {}, "/tables/import": {"name": "new"}}.items():
            refused = await send(stoa, path, "x.csv", b"a\n" + b"1\n" * 5000, expect=413, **more)
            assert refused["limit"] == 1000
            for name in ("billion laughs", "an offset outside"):
                file, content, said = HARMFUL[name]
                refused = await send(stoa, path, file, content, expect=422, **more)
                assert said in refused["detail"]
        assert await stoa.head() == before
