"""Rows from CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.types import Column
from stoa_tables.csv_rows import MAX_PROBLEMS, CsvProblem, InvalidCsvError, parse_csv
from stoa_tables.values import to_text


def column(name: str, kind: Any, role: Any = "input", default: Any = None) -> Column:
    return Column(name=name, role=role, type=kind, default=default)


COLUMNS = [
    column("image", "File"),
    column("sigma", ["null", "float"], default=5.0),
    column("name", ["null", "string"]),
    column("bins", {"type": "array", "items": "int"}, default=[1, 2]),
    column("flux", "double", role="output"),
    column("parent", "string", role="key"),
]


def problems(text: str | bytes) -> list[tuple[int, str | None, str]]:
    with pytest.raises(InvalidCsvError) as caught:
        parse_csv(text, COLUMNS)
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


def test_cells_are_read_by_the_types_of_their_columns() -> None:
    rows = parse_csv('name,image,bins\n"M 31, core",/data/a b.fits,"[1, 2, 3]"\n', COLUMNS)
    assert rows == [
        {
            "image": {"class": "File", "location": "file:///data/a%20b.fits"},
            "sigma": 5.0,
            "name": "M 31, core",
            "bins": [1, 2, 3],
            "parent": None,
        }
    ]


def test_an_empty_cell_takes_the_default_else_null() -> None:
    assert parse_csv("image,sigma,name,bins\n,,,\n", COLUMNS) == [
        {"image": None, "sigma": 5.0, "name": None, "bins": [1, 2], "parent": None}
    ]


def test_a_quoted_pair_of_quotes_is_the_empty_text() -> None:
    assert parse_csv('name\n""""""\n', COLUMNS)[0]["name"] == ""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_and_line_ends_do_not_matter(mark: bytes, end: str) -> None:
    content = mark + end.join(["name,sigma", "β Cen,2", '"two', 'lines",3', ""]).encode()
    for source in (content, io.BytesIO(content)):
        rows = parse_csv(source, COLUMNS)
        assert [(row["name"], row["sigma"]) for row in rows] == [("β Cen", 2.0), (f"two{end}lines", 3.0)]


def test_text_may_begin_with_a_byte_order_mark() -> None:
    assert parse_csv("\ufeffname\nx\n", COLUMNS)[0]["name"] == "x"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_separate_cells_where_there_is_no_comma(delimiter: str) -> None:
    assert parse_csv(f"name{delimiter}sigma\nx{delimiter}2.5\n", COLUMNS)[0]["sigma"] == 2.5


def test_blank_lines_are_no_rows() -> None:
    assert len(parse_csv("name\n\nx\n\n", COLUMNS)) == 1
    assert parse_csv("name\n", COLUMNS) == []


def test_unknown_columns_are_named_with_what_was_probably_meant() -> None:
    assert problems("Name,imge,zzz\n1,2,3\n") == [
        (1, "Name", 'The table has no such column; did you mean "name"?'),
        (1, "imge", 'The table has no such column; did you mean "image"?'),
        (1, "zzz", "The table has no such column. There are: image, sigma, name, bins."),
    ]


def test_outputs_and_keys_cannot_be_written() -> None:
    assert problems("flux,parent\n1,2\n") == [
        (1, "flux", "The column is computed by the workflow and cannot be written."),
        (1, "parent", "The column comes from another table and cannot be written."),
    ]
    assert parse_csv("parent\nx\n", COLUMNS, writable=["key"])[0]["parent"] == "x"


def test_a_header_has_to_name_different_columns() -> None:
    assert problems("name,,name\n") == [
        (1, None, "The column number 2 has no name."),
        (1, "name", "The column stands twice in the first line."),
    ]
    assert problems("")[0][2] == "The first line has to name the columns; it is empty."


def test_every_bad_cell_is_reported_with_its_place_and_nothing_is_taken() -> None:
    text = 'name,sigma,bins\nfine,1,[1]\n"two\nlines",high,"[1, 2.5]"\nfine,,\nshort,1\nfine,inf,{}\n'
    assert problems(text) == [
        (3, "sigma", '"high" is no number.'),
        (3, "bins", "At [1]: 2.5 is no whole number."),
        (6, None, "The line has 2 cells, but there are 3 columns."),
        (7, "sigma", '"inf" is no value here; leave the cell empty where there is none.'),
        (7, "bins", "{} is no array."),
    ]


def test_at_most_twenty_problems_are_reported() -> None:
    assert len(problems("sigma\n" + "x\n" * 100)) == MAX_PROBLEMS


def test_broken_quoting_and_encoding_are_reported_with_their_line() -> None:
    assert problems('name\nx\n"y" z\n')[0][0] == 3
    assert problems("name\nx\nüü\n".encode("latin-1"))[0][2].startswith("The text is not UTF-8")


def test_a_problem_is_one_sentence() -> None:
    assert str(CsvProblem(3, "sigma", "It is bad.")) == "line 3, column sigma: It is bad."
    assert str(CsvProblem(3, None, "It is bad.")) == "line 3: It is bad."


def test_long_cells_are_read() -> None:
    bins = list(range(50_000))
    assert parse_csv(f'bins\n"{bins}"\n', COLUMNS)[0]["bins"] == bins


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": texts,
                "sigma": st.floats(width=32, allow_nan=False, allow_infinity=False),
                "bins": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
            }
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read_again(rows: list[dict[str, Any]]) -> None:
    kinds = {column.name: column.type for column in COLUMNS}
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["name", "sigma", "bins"])
    writer.writerows([[to_text(row[name], kinds[name]) for name in ("name", "sigma", "bins")] for row in rows])
    read = parse_csv(stream.getvalue().encode(), COLUMNS)
    assert [{name: row[name] for name in ("name", "sigma", "bins")} for row in read] == rows
