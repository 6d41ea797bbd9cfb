"""Tables become files that others can read, and that give the same table when they are imported again."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stoa_contracts.types import Column
from stoa_tables.export_cells import spool
from stoa_tables.export_formats import SUFFIXES, write_table
from stoa_tables.file_metadata import FileMetadata
from stoa_tables.import_process import ReadFile, ReadRequest, rows_of
from stoa_tables.import_process import _read as read_here
from stoa_tables.importing import MEDIA_TYPES, FileFormat
from stoa_tables.values import coerce
from tests.tables.harness import Harness

FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

# --- round trips -------------------------------------------------------------------------------------------------------

_LONG = "x y " * 40
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "a ",
        " a",
        '"',
        "a,b",
        "line\nbreak",
        "\r",
        "<&>",
        "β Cen",
        "🌌",
        "\\",
        r"\-",
        "-1",
        "NaN",
        "null",
        "#",
        "\x01",
        "\x85",
        _LONG,
        f"β {_LONG}",
    ]
)
_DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
_SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32).filter(lambda number: abs(number) < 3e38)
_LOCATIONS = st.sampled_from(["file:///data/a%20b.fits", "file:///x/%CE%B2", f"sha256:{'0' * 64}"])
_FILES = st.builds(lambda location: {"class": "File", "location": location}, _LOCATIONS)
_FOLDERS = st.builds(lambda location: {"class": "Directory", "location": location}, _LOCATIONS)
_ENUM = {"type": "enum", "symbols": ["a b", "c", ""]}
_RECORD = {"type": "record", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "string"]}]}
_SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("boolean", st.booleans()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("float", _SINGLES | _DOUBLES.filter(lambda number: abs(number) < 3e38)),
    ("double", _DOUBLES),
    ("string", _TEXTS),
    (_ENUM, st.sampled_from(["a b", "c", ""])),
    ("File", _FILES),
    ("Directory", _FOLDERS),
]


def _arrays(inner: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
    kind, values = inner
    return {"type": "array", "items": kind}, st.lists(values, max_size=4)


def _nullable(inner: tuple[Any, st.SearchStrategy[Any]]) -> tuple[Any, st.SearchStrategy[Any]]:
    kind, values = inner
    return ["null", *kind] if isinstance(kind, list) else ["null", kind], st.none() | values


_MIXED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (_RECORD, st.fixed_dictionaries({"x": st.integers(-5, 5), "y": st.none() | _TEXTS})),
    (["int", "string"], st.integers(-5, 5) | _TEXTS),
    (["null", "string", _arrays(_SCALARS[1])[0]], st.none() | _TEXTS | st.lists(st.integers(-5, 5), max_size=3)),
    (["File", {"type": "array", "items": "File"}], _FILES | st.lists(_FILES, max_size=2)),
    (
        "Any",
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | _TEXTS, lambda inner: st.lists(inner, max_size=2)
        ),
    ),
]
_TYPES = [
    *_SCALARS,
    *map(_nullable, _SCALARS),
    *map(_arrays, _SCALARS),
    *(_nullable(_arrays(scalar)) for scalar in _SCALARS),
    *(_arrays(_nullable(scalar)) for scalar in _SCALARS),
    *(_nullable(_arrays(_nullable(_arrays(scalar)))) for scalar in _SCALARS[:6]),
    *_MIXED,
]
_DESCRIPTIONS = st.sampled_from([None, "Right ascension", "Größe <b> & 'more'", "x" * 100])
_UNITS = st.sampled_from([None, "deg", "mag", "km.s**-1"])
_UCDS = st.sampled_from([None, "pos.eq.ra;meta.main", "phot.mag"])
_NAMES = [
    "a",
    "B b",
    "größe",
    "x,y",
    'q"',
    "<&",
    "a_very_long_name_that_goes_on_and_on_until_it_is_longer_than_a_card_of_fits",
]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[list[Any]]]:
    chosen = draw(st.lists(st.sampled_from(_TYPES), min_size=1, max_size=4))
    n_rows = draw(st.integers(0, 5))
    columns, values = [], []
    for (kind, strategy), name in zip(chosen, draw(st.permutations(_NAMES)), strict=False):
        columns.append(
            Column(
                name=name,
                role="input",
                type=kind,
                unit=draw(_UNITS),
                ucd=draw(_UCDS),
                utype=draw(st.sampled_from([None, "src:a.b"])),
                description=draw(_DESCRIPTIONS),
                label=draw(st.sampled_from([None, "Lábel"])),
            )
        )
        made = draw(st.lists(strategy, min_size=n_rows, max_size=n_rows))
        values.append([None if value is None else coerce(value, kind, name=name) for value in made])
    return columns, values


def said() -> FileMetadata:
    return FileMetadata(table="größ-t", id="t", description="Sources & «more»", position=42, columns=[])


def written(folder: Path, chosen: FileFormat, columns: list[Column], values: list[list[Any]]) -> Path:
    path = folder / f"t{SUFFIXES[chosen]}"
    with tempfile.TemporaryFile() as rows, path.open("w+b") as file:
        chunks = iter([values] if values[0] else [])
        write_table(chosen, spool(columns, chunks, rows, set()), said(), file)
    return path


def imported(path: Path, columns: list[Column] | None = None, **more: Any) -> ReadFile:
    limits = {"max_rows": 100_000, "max_bytes": 2**30, "memory_bytes": 2**40, "seconds": 60}
    return read_here(ReadRequest(path=path, folder=path.parent, columns=columns, **{**limits, **more}))


def described(columns: list[Column]) -> list[Any]:
    return [(item.name, item.type, item.unit, item.ucd, item.utype, item.description, item.label) for item in columns]


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process, which is not to be limited for ever."""
    monkeypatch.setattr("stoa_tables.import_process._allow_memory", lambda *_: None)


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("chosen", [known for known in FORMATS if known != "csv"])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=25
)
@given(tables())
def test_an_export_is_imported_as_the_same_table(
    chosen: FileFormat, tmp_path_factory: pytest.TempPathFactory, table: tuple[list[Column], list[list[Any]]]
) -> None:
    columns, values = table
    path = written(tmp_path_factory.mktemp("t"), chosen, columns, values)
    found = imported(path)
    assert found.rejected == []
    assert described(found.table_columns) == described(columns)
    rows = list(rows_of(path.parent, found.table_columns))
    assert json.dumps([list(row.values()) for row in rows]) == json.dumps(
        [list(row) for row in zip(*values, strict=True)]
    )
    assert found.description == "Sources & «more»"


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("chosen", FORMATS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=15
)
@given(tables())
def test_an_export_goes_into_a_table_of_the_same_columns(
    chosen: FileFormat, tmp_path_factory: pytest.TempPathFactory, table: tuple[list[Column], list[list[Any]]]
) -> None:
    columns, values = table
    path = written(tmp_path_factory.mktemp("t"), chosen, columns, values)
    found = imported(path, columns)
    assert (found.rejected, found.rejected_total, found.accepted) == ([], 0, len(values[0]))
    rows = [list(row.values()) for row in rows_of(path.parent, columns)]
    assert json.dumps(rows) == json.dumps([list(row) for row in zip(*values, strict=True)])


# --- what others read --------------------------------------------------------------------------------------------------

CATALOGUE = {
    "ra": ("double", [10.5, None, 359.0]),
    "mag": ("float?", [18.5, 0.1, None]),
    "n": ("int?", [1, None, -(2**31)]),
    "id": ("long", [2**62 + 1, 0, -1]),
    "good": ("boolean?", [True, None, False]),
    "name": ("string", ["M 31", "", "β Cen <&>"]),
    "spectrum": ("double[]", [[1.0, 2.5], [], [3.0]]),
    "counts": ("int[]?", [[1], None, [2, 3]]),
    "image": ("File", ["/data/a b.fits", "/data/c.fits", "/data/d.fits"]),
}


async def catalogue(stoa: Harness, name: str = "cat") -> None:
    columns = [{"name": key, "type": kind} for key, (kind, _) in CATALOGUE.items()]
    columns[0] |= {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "utype": "src:ra", "description": "Größe"}
    columns[6] |= {"unit": "Jy"}
    await stoa.post("/tables", {"name": name, "columns": columns, "description": "Some sources"})
    rows = [dict(zip(CATALOGUE, row, strict=True)) for row in zip(*(v for _, v in CATALOGUE.values()), strict=True)]
    await stoa.add(name, *rows)


async def exported(stoa: Harness, table: str, chosen: str, **parameters: Any) -> bytes:
    answer = await stoa.request("GET", f"/tables/{table}/export", expect=200, params={"format": chosen, **parameters})
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content


async def test_a_fits_file_is_one_to_others(quick: Harness) -> None:
    await catalogue(quick)
    content = await exported(quick, "cat", "fits")
    with fits.open(io.BytesIO(content), checksum=True) as hdus:
        hdus.verify("exception")
        header, data = hdus[1].header, hdus[1].data
        assert header["STOAPOS"] == await quick.head()
        assert (header["TUNIT1"], header["TUCD1"], header["TUTYP1"]) == ("deg", "pos.eq.ra;meta.main", "src:ra")
        assert header["EXTNAME"] == "cat"
        assert header["DESCRIP"] == "Some sources"
        assert data["ra"].tolist()[::2] == [10.5, 359.0]
        assert math.isnan(data["ra"][1])
        # The lowest number is taken, so that another one stands for none.
        assert header["TNULL3"] == 2**31 - 1
        assert data["n"].tolist() == [1, 2**31 - 1, -(2**31)]
        assert data["id"].tolist() == [2**62 + 1, 0, -1]
        assert [list(cell) for cell in data["spectrum"]] == [[1.0, 2.5], [], [3.0]]
        assert data["image"][0] == "file:///data/a%20b.fits"
        assert data["name"][2] == r"\u03b2 Cen <&>"
    table = Table.read(io.BytesIO(content), format="fits", hdu=1)
    assert table["n"].mask.tolist() == [False, True, False]
    assert str(table["spectrum"].unit) == "Jy"


async def test_a_votable_is_one_to_others(quick: Harness, tmp_path: Path) -> None:
    await catalogue(quick)
    path = tmp_path / "cat.vot"
    path.write_bytes(await exported(quick, "cat", "votable"))
    output = io.StringIO()
    assert votable.validate(str(path), output=output), output.getvalue()
    table = votable.parse(str(path), verify="exception").get_first_table()
    assert (table.name, table.description) == ("cat", "Some sources")
    fields = {item.name: item for item in table.fields}
    assert (str(fields["ra"].unit), fields["ra"].ucd, fields["ra"].utype) == ("deg", "pos.eq.ra;meta.main", "src:ra")
    assert fields["ra"].description == "Größe"
    assert {info.name: info.value for info in table.infos}["stoa_position"] == str(await quick.head())
    assert table.array["name"].tolist() == ["M 31", "", "β Cen <&>"]
    assert np.ma.getmaskarray(table.array["n"]).tolist() == [False, True, False]
    assert table.array["id"].tolist() == [2**62 + 1, 0, -1]
    assert np.ma.getmaskarray(table.array["good"]).tolist() == [False, True, False]
    assert [np.asarray(cell).tolist() for cell in table.array["spectrum"]] == [[1.0, 2.5], [], [3.0]]


async def test_ecsv_csv_and_parquet_are_read_by_others(quick: Harness) -> None:
    await catalogue(quick)
    table = Table.read((await exported(quick, "cat", "ecsv")).decode(), format="ascii.ecsv")
    assert (str(table["ra"].unit), table["ra"].description) == ("deg", "Größe")
    assert table["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert table.meta["position"] == await quick.head()
    assert table["n"].tolist() == [1, None, -(2**31)]
    read = parquet.read_table(io.BytesIO(await exported(quick, "cat", "parquet")))
    assert read.column("counts").to_pylist() == [[1], None, [2, 3]]
    assert read.column("name").to_pylist() == ["M 31", "", "β Cen <&>"]
    header = votable.parse(io.BytesIO(read.schema.metadata[b"IVOA.VOTable-Parquet.content"])).get_first_table()
    assert [str(item.unit) for item in header.fields][:2] == ["deg", "None"]
    text = (await exported(quick, "cat", "csv", columns="name,ra,n,image")).decode()
    assert text == (
        "name,ra,n,image\r\nM 31,10.5,1,file:///data/a%20b.fits\r\n"
        '"",,,file:///data/c.fits\r\nβ Cen <&>,359.0,-2147483648,file:///data/d.fits\r\n'
    )


@pytest.mark.parametrize("chosen", ["fits", "votable"])
async def test_a_table_goes_out_and_in_over_http(quick: Harness, chosen: FileFormat) -> None:
    await catalogue(quick)
    content = await exported(quick, "cat", chosen)
    files = [("file", (f"cat{SUFFIXES[chosen]}", content))]
    made = (await quick.request("POST", "/tables/import", expect=201, files=files, data={"name": "again"})).json()
    before = await quick.get("/tables/cat")
    assert made["columns"] == before["columns"]
    assert made["description"] == "Some sources"
    assert await quick.values("again", *CATALOGUE) == await quick.values("cat", *CATALOGUE)


async def test_elements_filters_order_and_columns_are_exported(stoa: Harness) -> None:
    await stoa.worktable("w", {"x": "int"}, {"flux": "double[]", "total": "double"})
    await stoa.add("w", {"x": 1}, {"x": 2}, {"x": 3})
    for row, fluxes in ((1, [1.5, 2.5]), (2, [])):
        await stoa.run("w", row, {"flux": fluxes, "total": 4.0})
    columns = "row,element,x,flux,status"
    text = await exported(stoa, "w", "csv", view="elements", columns=columns)
    assert text.decode().splitlines() == ["row,element,x,flux,status", "1,0,1,1.5,current", "1,1,1,2.5,current"]
    text = await exported(stoa, "w", "csv", columns=["x", "flux,total"], sort="-x", filter="x<3")
    assert text.decode().splitlines() == ["x,flux,total", "2,[],4.0", '1,"[1.5, 2.5]",4.0']
    text = await exported(stoa, "w", "csv", columns="x,total", status="stale")
    assert text.decode().splitlines() == ["x,total", "3,"]
    content = await exported(stoa, "w", "fits", view="elements")
    with fits.open(io.BytesIO(content)) as hdus:
        assert hdus[1].data["flux"].tolist() == [1.5, 2.5]


async def test_values_of_an_older_type_are_exported_as_json(quick: Harness) -> None:
    await quick.worktable("w", {"x": "string"}, {"y": "int"})
    await quick.add("w", {"x": "five"}, {"x": "6"})
    body = json.dumps(
        {
            "cwlVersion": "v1.2",
            "class": "CommandLineTool",
            "baseCommand": "true",
            "inputs": {"x": "int"},
            "outputs": {"y": "int"},
        }
    )
    await quick.request("PUT", "/tables/w/workflow", expect=200, files=[("files", ("main.cwl", body))])
    text = await exported(quick, "w", "csv", columns="x")
    assert text.decode().splitlines() == ["x", '"""five"""', '"""6"""']
    assert Table.read(io.BytesIO(await exported(quick, "w", "votable")), format="votable")["x"].tolist() == [
        '"five"',
        '"6"',
    ]


async def test_an_export_has_its_name_type_position_and_tag(quick: Harness) -> None:
    await catalogue(quick)
    tags = {}
    for chosen in FORMATS:
        answer = await quick.request("GET", "/tables/CAT/export", expect=200, params={"format": chosen})
        assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[chosen]
        assert answer.headers["content-disposition"] == f'attachment; filename="cat{SUFFIXES[chosen]}"'
        assert answer.headers["stoa-position"] == str(await quick.head())
        tags[chosen] = answer.headers["etag"]
    assert len(set(tags.values())) == len(FORMATS)
    chosen, tag = "votable", tags["votable"]
    assert tag.startswith(f'"{await quick.head()}-')
    same = {"params": {"format": chosen}, "headers": {"If-None-Match": tag}}
    answer = await quick.request("GET", "/tables/CAT/export", expect=304, **same)
    assert answer.content == b""
    other = {**same, "params": {"format": chosen, "columns": "ra"}}
    await quick.request("GET", "/tables/CAT/export", expect=200, **other)
    await quick.add("cat", {"ra": 1.0})
    assert (await quick.request("GET", "/tables/CAT/export", expect=200, **same)).headers["etag"] != tag


async def test_a_table_is_exported_as_it_was(stoa: Harness) -> None:
    await catalogue(stoa)
    asked = {"format": "fits", "columns": "ra", "sort": "-ra"}
    then = await stoa.request("GET", "/tables/cat/export", expect=200, params=asked)
    await stoa.add("cat", {"ra": 1.0})
    await stoa.patch("/tables/cat", {"name": "renamed"})
    position = then.headers["stoa-position"]
    past = {**asked, "as_of": position}
    answer = await stoa.request("GET", "/tables/renamed/export", expect=200, params=past)
    assert answer.content == then.content
    assert answer.headers["stoa-position"] == position
    assert answer.headers["content-disposition"] == then.headers["content-disposition"]
    headers = {"If-None-Match": answer.headers["etag"]}
    await stoa.request("GET", "/tables/renamed/export", expect=304, params=past, headers=headers)
    await stoa.request("GET", "/tables/renamed/export", expect=200, params=asked, headers=headers)
    await stoa.request("GET", "/tables/renamed/export", expect=404, params={**asked, "as_of": "0"})


@pytest.mark.parametrize(
    ("parameters", "status", "said"),
    [
        ({"format": "csv", "columns": "zz"}, 422, "has no column 'zz'"),
        ({"format": "csv", "filter": "zz=1"}, 422, "has no column 'zz'"),
        ({"format": "xls"}, 422, "format"),
        ({}, 422, "format"),
        ({"format": "csv", "saved_view": "no-view"}, 404, "no view"),
    ],
)
async def test_an_export_that_cannot_be_is_refused(
    quick: Harness, parameters: dict[str, str], status: int, said: str
) -> None:
    await catalogue(quick)
    refused = await quick.request("GET", "/tables/cat/export", expect=status, params=parameters)
    assert said in refused.json()["detail"]
    await quick.request("GET", "/tables/nowhere/export", expect=404, params={"format": "csv"})


_MEASURE = """
import resource, sys, tempfile
from stoa_contracts.types import Column
from stoa_tables.export_cells import spool
from stoa_tables.export_formats import write_table
from stoa_tables.file_metadata import FileMetadata

def chunks(rows):
    for start in range(0, rows, 10_000):
        numbers = range(start, start + 10_000)
        yield [[i / 7 for i in numbers], [f"source {i} β" for i in numbers], [[i, i + 1] for i in numbers]]

columns = [Column(name="x", role="input", type="double"), Column(name="s", role="input", type="string"),
           Column(name="l", role="input", type={"type": "array", "items": "long"})]
peaks = []
for rows in (20_000, 200_000):
    for chosen in ("csv", "ecsv", "fits", "votable", "parquet"):
        with tempfile.TemporaryFile() as spooled, tempfile.TemporaryFile() as file:
            said = FileMetadata(table="t", id="t", position=1, columns=[])
            write_table(chosen, spool(columns, chunks(rows), spooled, set()), said, file)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


def test_the_memory_of_an_export_does_not_grow_with_its_rows() -> None:
    ended = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    # Ten times the rows are 20 MiB more in each file; groups of Parquet have a size of their own.
    assert int(ended.stdout) < 48 * 1024
