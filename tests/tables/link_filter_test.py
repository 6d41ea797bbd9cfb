from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.types import Column
from stoa_tables.link_filter import read_filter
from stoa_tables.problems import InvalidFilterError

_COLUMNS = [
    Column.model_validate({"name": name, "role": role, "type": kind})
    for name, role, kind in [
        ("snr", "input", ["null", "double"]),
        ("snr max", "input", "double"),
        ("object", "input", "string"),
        ("good", "input", "boolean"),
        ("not", "input", "int"),
        ("image", "input", "File"),
        ("flux", "output", {"type": "array", "items": "double"}),
    ]
]

_ROW = {
    "snr": 5.5,
    "snr max": 9,
    "object": "Cen A",
    "good": True,
    "not": 1,
    "image": {"location": "/a.fits"},
    "flux": 2,
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("snr>5", True),
        ("snr > 5.5", False),
        ("snr>=5.5", True),
        ("snr max=9", True),
        ("snr max!=9", False),
        ("object=Cen A", True),
        ("object = 'Cen A'", True),
        ('object="Cen A"', True),
        ("object~cen", True),
        ("object=Cen A and snr>5", True),
        ("object=Cen A AND snr>6", False),
        ("snr>6 or object=Cen A", True),
        ("snr>6 and good=true or object=Cen A", True),
        ("snr>6 and (good=true or object=Cen A)", False),
        ("not snr>6", True),
        ("not (snr>6 or good=true)", False),
        ("not=1", True),
        ("not not=1", False),
        ("good=true", True),
        ("good!=true", False),
        ("image~A.FITS", True),
        ("image!=null", True),
        ("object=null", False),
        ("object!='null'", True),
        ("flux<3", True),
        ("((snr>5))", True),
        ("object<Cen B", True),
        ("'snr max'>8", True),
    ],
)
def test_a_filter_lets_through_what_it_says(text: str, passes: bool) -> None:
    assert read_filter(text, _COLUMNS, taken_apart=True).passes(_ROW) is passes


@pytest.mark.parametrize("text", ["snr>5", "snr<5", "snr=5", "snr>=5", "snr<=5", "snr~5", "not snr!=5"])
def test_what_is_missing_is_equal_to_nothing_and_has_no_order(text: str) -> None:
    found = read_filter(text, _COLUMNS, taken_apart=True)
    assert not found.passes({"snr": None})
    assert not found.passes({})


def test_a_filter_names_the_columns_that_it_asks_for() -> None:
    found = read_filter("snr max>1 and (object~a or not good=true)", _COLUMNS, taken_apart=True)
    assert found.columns == {"snr max", "object", "good"}


@pytest.mark.parametrize(
    ("text", "character", "words"),
    [
        ("snr>", 5, "a number is missing"),
        ("snr>five", 5, "'five' is no number"),
        ("snr>inf", 5, "'inf' is no number"),
        ("snr 5", 5, "one of = != < <= > >= ~ is missing"),
        ("snr", 4, "one of = != < <= > >= ~ is missing"),
        ("", 1, "a column is missing"),
        ("snr>5 and", 5, "'5 and' is no number"),
        ("snr>5 and ", 11, "a column is missing"),
        ("snr>5 and flix<1", 11, "no column 'flix'; there are snr, snr max"),
        ("snr>5)", 6, "closes nothing"),
        ("(snr>5", 1, "never closed"),
        ("good=yes", 6, "neither true nor false"),
        ("image=a", 7, "compared with null"),
        ("object='a", 8, "quotes are never closed"),
        ("object='a' snr>5", 12, "'and' or 'or' is missing"),
        ("(" * 60 + "snr>5" + ")" * 60, 51, "more than 50"),
        ("object=" + "a" * 10_000, 10_001, "longer than"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, character: int, words: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        read_filter(text, _COLUMNS, taken_apart=True)
    assert words in str(caught.value)
    assert caught.value.members["character"] == character


def test_an_array_that_is_not_taken_apart_has_no_order() -> None:
    with pytest.raises(InvalidFilterError, match="holds files, arrays"):
        read_filter("flux<3", _COLUMNS, taken_apart=False)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["snr", ">", "5", "and", "or", "not", "(", ")", " ", "'"])).map("".join)
)
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        found = read_filter(text, _COLUMNS, taken_apart=True)
    except InvalidFilterError:
        return
    assert found.passes(_ROW) in {True, False}


@given(st.lists(st.tuples(st.sampled_from(["snr", "snr max"]), st.sampled_from("<>="), st.integers(-9, 9)), min_size=1))
def test_conditions_are_joined_as_python_joins_them(parts: list[tuple[str, str, int]]) -> None:
    text = " and ".join(f"{name}{operator}{value}" for name, operator, value in parts)
    compare: dict[str, Any] = {"<": float.__lt__, ">": float.__gt__, "=": float.__eq__}
    expected = all(compare[operator](float(str(_ROW[name])), float(value)) for name, operator, value in parts)
    assert read_filter(text, _COLUMNS, taken_apart=True).passes(_ROW) is expected
