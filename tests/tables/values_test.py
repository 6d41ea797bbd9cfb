"""Which values columns take, and how they are written."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stoa_contracts.types import Column
from stoa_tables.values import (
    InvalidRowError,
    InvalidValueError,
    check_default,
    check_row,
    coerce,
    element_type,
    fill_defaults,
    from_text,
    is_array,
    is_numeric,
    is_optional,
    missing_inputs,
    refers_to_bundle,
    sort_kind,
    to_text,
    type_words,
)

FILTER = {"type": "enum", "symbols": ["u", "g", "r", "i", "z"]}
INTS = {"type": "array", "items": "int"}
SOURCE = {
    "type": "record",
    "fields": [
        {"name": "flux", "type": "double"},
        {"name": "band", "type": ["null", FILTER]},
        {"name": "image", "type": ["null", "File"]},
    ],
}
DIGEST = "0123456789abcdef" * 4


def column(name: str, kind: Any, role: Any = "input", default: Any = None) -> Column:
    return Column(name=name, role=role, type=kind, default=default)


def complaint(value: Any, kind: Any) -> str:
    with pytest.raises(InvalidValueError) as caught:
        coerce(value, kind, name="x")
    return str(caught.value)


# --- coercion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "int", 3),
        (3.0, "int", 3),
        (-(2**31), "int", -(2**31)),
        (2**62, "long", 2**62),
        (3, "double", 3.0),
        (0.1, "float", 0.1),
        (True, "boolean", True),
        ("", "string", ""),
        ("g", FILTER, "g"),
        ([1, 2.0], INTS, [1, 2]),
        ((), INTS, []),
        (None, "null", None),
        (None, ["null", "int"], None),
        (5, ["null", "string", "int"], 5),
        ("5", ["int", "string"], "5"),
        ({"a": [1, None]}, "Any", {"a": [1, None]}),
        ({"flux": 1}, SOURCE, {"flux": 1.0, "band": None, "image": None}),
        (
            {"flux": 1, "band": "r", "image": "/a"},
            SOURCE,
            {"flux": 1.0, "band": "r", "image": {"class": "File", "location": "file:///a"}},
        ),
        ([[1], []], {"type": "array", "items": INTS}, [[1], []]),
    ],
)
def test_a_value_comes_into_its_one_form(value: Any, kind: Any, expected: Any) -> None:
    made = coerce(value, kind, name="x")
    assert json.dumps(made) == json.dumps(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, "int", "x: true is no whole number."),
        (True, "double", "x: true is no number."),
        (1, "boolean", "x: 1 is neither true nor false."),
        (3.5, "int", "x: 3.5 is no whole number."),
        ("3", "int", 'x: "3" is no whole number.'),
        (2**31, "int", "a column of the type long takes larger ones"),
        (2**63, "long", f"is not between {-(2**63)} and {2**63 - 1}."),
        (1e300, "long", "is not between"),
        (math.nan, "double", "x: NaN is no value; leave the cell empty (null) where there is none."),
        (math.nan, "int", "x: NaN is no whole number."),
        (math.inf, "float", "infinite, or too large"),
        (10**400, "double", "infinite, or too large"),
        (1e39, "float", "too large for 32 bits"),
        (3, "string", "x: 3 is no text."),
        ("a\0b", "string", "NUL"),
        ("\ud800", "string", "no valid Unicode"),
        ("x", FILTER, 'x: "x" is not one of u, g, r, i, z.'),
        (["a"], FILTER, "is not one of"),
        (None, "int", "x: A value is required here: int."),
        (None, ["int", "string"], "is not of the type int or string."),
        (3, "null", "only null can"),
        ([1, "a"], INTS, 'x[1]: "a" is no whole number.'),
        ([1, None], INTS, "x[1]: A value is required here: int."),
        ({"0": 1}, INTS, "is no array"),
        ({"flux": 1, "fulx": 2}, SOURCE, 'x: The record has no field "fulx"; did you mean "flux"?'),
        ({}, SOURCE, "x.flux: A value is required here: double."),
        ({"flux": 1, "band": "q"}, SOURCE, "x.band:"),
        ("abc", SOURCE, "is no record"),
        ([1], ["null", "int", "string"], "x: [1] is not of the type int or string or null."),
        (None, "Any", "A value is required here: Any."),
        ([math.nan], "Any", "x[0]: NaN is no value"),
        ({"a": object()}, "Any", "nothing that JSON can hold"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(value: Any, kind: Any, message: str) -> None:
    assert message in complaint(value, kind)


@pytest.mark.parametrize("kind", ["File", "Directory"])
@pytest.mark.parametrize(
    ("given_as", "location"),
    [
        ("/data/M 31/ä.fits", "file:///data/M%2031/%C3%A4.fits"),
        ("file:///data/M 31/%C3%A4.fits", "file:///data/M%2031/%C3%A4.fits"),
        ("file://localhost/data/a.fits", "file:///data/a.fits"),
        ("//data/a.fits", "file:///data/a.fits"),
        (f"sha256:{DIGEST}", f"sha256:{DIGEST}"),
        (f"sha256:{DIGEST.upper()}", f"sha256:{DIGEST}"),
        ("/a#b?c%d.fits", "file:///a%23b%3Fc%25d.fits"),
    ],
)
def test_a_file_is_given_by_path_uri_or_digest(given_as: str, location: str, kind: str) -> None:
    expected = {"class": kind, "location": location}
    assert coerce(given_as, kind, name="x") == expected
    assert coerce({"class": kind, "location": given_as}, kind, name="x") == expected
    assert coerce({"class": kind, "path": given_as}, kind, name="x") == expected


def test_what_says_more_of_a_file_is_kept_and_what_the_engine_computes_is_not() -> None:
    given_as = {
        "class": "File",
        "path": "/a/b.fits",
        "basename": "b.fits",
        "size": 12.0,
        "checksum": "sha1$00",
        "format": None,
        "dirname": "/a",
        "nameroot": "b",
        "nameext": ".fits",
        "http://example.org/generation": 1,
        "secondaryFiles": [{"class": "Directory", "path": "/c"}, "/d"],
    }
    assert coerce(given_as, "File", name="x") == {
        "class": "File",
        "location": "file:///a/b.fits",
        "basename": "b.fits",
        "size": 12,
        "checksum": "sha1$00",
        "secondaryFiles": [{"class": "Directory", "location": "file:///c"}, {"class": "File", "location": "file:///d"}],
    }


def test_literal_files_and_directories_need_no_location() -> None:
    folder = {"class": "Directory", "basename": "d", "listing": [{"class": "File", "basename": "a", "contents": "x"}]}
    assert coerce(folder, "Directory", name="x") == folder


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("a.fits", "File", "no absolute path"),
        ("", "File", "no absolute path"),
        ("https://example.org/a.fits", "File", "cannot be read; a file is given by its path"),
        ("s3://bucket/a.fits", "File", "cannot be read"),
        ("file://elsewhere/a.fits", "File", "on another host"),
        ("file:a.fits", "File", "no file URI"),
        ("file:///a%00b", "File", "no file URI"),
        ("sha256:123", "File", "no digest"),
        (3, "File", "3 is no File"),
        ({"class": "Directory", "location": "/a"}, "File", "The object is a Directory; a File is wanted."),
        ({"location": "/a"}, "File", "The object has no class"),
        ({"class": "File"}, "File", "has no location"),
        ({"class": "File", "location": 3}, "File", "is no text"),
        ({"class": "File", "location": "/a", "basname": "b"}, "File", 'no field "basname"; did you mean "basename"?'),
        ({"class": "File", "location": "/a", "listing": []}, "File", "no field"),
        ({"class": "File", "location": "/a", "basename": "../b"}, "File", "x.basename: "),
        ({"class": "File", "location": "/a", "size": -0.5}, "File", "x.size: "),
        ({"class": "File", "location": "/a", "secondaryFiles": ["b"]}, "File", "x.secondaryFiles[0]: "),
        ({"class": "File", "location": "/a", "secondaryFiles": "b"}, "File", "no list of files"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(value: Any, kind: str, message: str) -> None:
    assert message in complaint(value, kind)


# --- what a type is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "sorted_as", "numeric", "array"),
    [
        ("int", "number", True, False),
        (["null", "double"], "number", True, False),
        (["int", "double"], "number", True, False),
        ("boolean", "boolean", False, False),
        ("string", "text", False, False),
        (["null", FILTER, "string"], "text", False, False),
        (["int", "string"], "json", False, False),
        ("File", "json", False, False),
        ("Any", "json", False, False),
        ("null", "json", False, False),
        (INTS, "json", False, True),
        (["null", INTS], "json", False, True),
        ([INTS, "int"], "json", False, False),
    ],
)
def test_a_type_says_how_its_values_compare(kind: Any, sorted_as: str, numeric: bool, array: bool) -> None:
    assert (sort_kind(kind), is_numeric(kind), is_array(kind)) == (sorted_as, numeric, array)


def test_the_items_of_an_array_have_a_type() -> None:
    assert element_type(INTS) == "int"
    assert element_type(["null", INTS]) == "int"
    assert element_type([INTS, {"type": "array", "items": ["null", "int"]}]) == ["int", "null"]
    assert element_type({"type": "array", "items": INTS}) == INTS
    assert element_type("int") is None
    assert element_type([INTS, "int"]) is None


def test_types_are_said_in_words() -> None:
    assert (
        type_words(["null", {"type": "array", "items": ["int", FILTER]}])
        == "array of (int or one of u, g, r, i, z) or null"
    )
    assert type_words(SOURCE) == "record of flux, band, image"


# --- rows --------------------------------------------------------------------------------------------------------------

COLUMNS = [
    column("image", "File"),
    column("script", "File", default={"class": "File", "location": "scripts/flux.py"}),
    column("sigma", "float", default=5),
    column("name", ["null", "string"]),
    column("target", "string", role="key"),
    column("flux", "double", role="output"),
]


def test_a_row_is_checked_cell_by_cell() -> None:
    assert check_row(COLUMNS, {"sigma": 3, "image": None}) == {"sigma": 3.0, "image": None}


def test_all_that_is_wrong_with_a_row_is_said_at_once() -> None:
    with pytest.raises(InvalidRowError) as caught:
        check_row(COLUMNS, {"sigma": "x", "flux": 1.0, "target": "M31", "imgae": "/a", "zzz": 1, "name": "fine"})
    assert [str(error) for error in caught.value.errors] == [
        'sigma: "x" is no number.',
        "flux: The column is computed by the workflow and cannot be written.",
        "target: The column comes from another table and cannot be written.",
        'imgae: The table has no such column; did you mean "image"?',
        "zzz: The table has no such column. There are: image, script, sigma, name.",
    ]
    assert caught.value.name == "sigma"


def test_keys_are_written_by_links_and_imports() -> None:
    assert check_row(COLUMNS, {"target": "M31"}, writable=("key", "input")) == {"target": "M31"}


def test_defaults_fill_what_is_not_given() -> None:
    assert fill_defaults(COLUMNS, {"name": "x"}) == {
        "image": None,
        "script": None,
        "sigma": 5.0,
        "name": "x",
        "target": None,
    }
    assert fill_defaults(COLUMNS, {"sigma": None})["sigma"] is None


def test_a_row_without_required_inputs_is_incomplete() -> None:
    assert missing_inputs(COLUMNS, fill_defaults(COLUMNS, {})) == ["image"]
    assert missing_inputs(COLUMNS, {"image": {"class": "File", "location": "file:///a"}, "sigma": None}) == []


def test_defaults_may_name_files_of_the_bundle() -> None:
    assert check_default(COLUMNS[1]) == {"class": "File", "location": "scripts/flux.py"}
    assert check_default(COLUMNS[2]) == 5.0
    with pytest.raises(InvalidValueError):
        check_default(column("sigma", "float", default="x"))


@pytest.mark.parametrize(
    ("value", "relative"),
    [
        ({"class": "File", "location": "a.py"}, True),
        ([{"class": "Directory", "path": "data"}], True),
        ({"class": "File", "location": "/a", "secondaryFiles": [{"class": "File", "location": "b"}]}, True),
        ({"class": "File", "location": "file:///a.py"}, False),
        ({"class": "File", "location": f"sha256:{DIGEST}"}, False),
        ({"location": "a.py"}, False),
        ("a.py", False),
    ],
)
def test_a_relative_location_refers_to_the_bundle(value: Any, relative: bool) -> None:
    assert refers_to_bundle(value) == relative


# --- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("", "int", None),
        (" 12 ", "int", 12),
        ("+12.", "int", 12),
        ("1e3", "int", 1000),
        ("9007199254740993", "long", 9007199254740993),
        ("9007199254740993.0", "long", 9007199254740993),
        (".5", "double", 0.5),
        ("1E-3", "float", 0.001),
        ("nan", ["null", "double"], None),
        ("NaN", ["null", "int", "double"], None),
        ("TRUE", "boolean", True),
        ("0", "boolean", False),
        ("abc ", "string", "abc "),
        ('""', "string", ""),
        ('"M31"', "string", "M31"),
        ('"M31" x', "string", '"M31" x'),
        ('"', "string", '"'),
        ("g", FILTER, "g"),
        ("[1, 2]", INTS, [1, 2]),
        ("/a b", "File", {"class": "File", "location": "file:///a%20b"}),
        ('{"class": "Directory", "path": "/a"}', "Directory", {"class": "Directory", "location": "file:///a"}),
        ("3", ["int", "string"], 3),
        ("3", ["string", "int"], 3),
        ("3x", ["string", "int"], "3x"),
        ('"3"', ["string", "int"], "3"),
        ("1", ["boolean", "int"], 1),
        ("hello", "Any", "hello"),
        ('{"a": 1}', "Any", {"a": 1}),
    ],
)
def test_text_is_read_by_type(text: str, kind: Any, expected: Any) -> None:
    assert json.dumps(from_text(text, kind)) == json.dumps(expected)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("nan", "double", "leave the cell empty"),
        ("inf", ["null", "double"], "leave the cell empty"),
        ("1_000", "int", "no whole number"),
        ("0x10", "long", "no whole number"),
        ("1,5", "double", "no number"),
        ("1" * 30, "long", "too many digits"),
        ("1e400", "long", "too large"),
        ("1e400", "double", "too large"),
        ("maybe", "boolean", "neither true nor false"),
        ("[1, NaN]", {"type": "array", "items": "double"}, "NaN is not JSON"),
        ("[1, 2", INTS, "is no array in JSON: Expecting"),
        ("x", "null", "cannot stand here"),
        ("x", ["null", "int", "boolean"], "is not of the type int or boolean or null"),
        ("G", FILTER, "is not one of"),
    ],
)
def test_text_that_does_not_fit_is_refused(text: str, kind: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^value: ") as caught:
        from_text(text, kind)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, ["null", "int"], ""),
        (True, "boolean", "true"),
        (0.1, "double", "0.1"),
        ("abc", "string", "abc"),
        ("", "string", '""'),
        ({"class": "File", "location": "file:///a%20b"}, "File", "/a b"),
        ({"class": "File", "location": f"sha256:{DIGEST}"}, "File", f"sha256:{DIGEST}"),
        ([1, 2], INTS, "[1, 2]"),
        ("3", ["int", "string"], '"3"'),
        ("abc", ["int", "string"], "abc"),
    ],
)
def test_values_are_written_for_people(value: Any, kind: Any, text: str) -> None:
    assert to_text(value, kind) == text


# --- properties --------------------------------------------------------------------------------------------------------

words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
names = st.text(alphabet="abc", min_size=1, max_size=3)
primitives = st.sampled_from(["boolean", "int", "long", "float", "double", "string", "File", "Directory", "Any"])
enums = st.lists(words, min_size=1, max_size=4, unique=True).map(lambda symbols: {"type": "enum", "symbols": symbols})


def _unions(kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def normal(members: list[Any], optional: bool) -> Any:
        flat: list[Any] = []
        for member in members:
            flat.extend(
                one for one in (member if isinstance(member, list) else [member]) if one not in flat and one != "null"
            )
        return (["null", *flat] if optional else flat) if optional or len(flat) > 1 else flat[0]

    return st.builds(normal, st.lists(kinds, min_size=1, max_size=3), st.booleans())


types = st.recursive(
    primitives | enums,
    lambda inner: (
        inner.map(lambda items: {"type": "array", "items": items})
        | st.lists(st.tuples(names, inner), max_size=3, unique_by=lambda field: field[0]).map(
            lambda fields: {"type": "record", "fields": [{"name": name, "type": kind} for name, kind in fields]}
        )
        | _unions(inner)
    ),
    max_leaves=5,
)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Draw values that a person might give for a type."""
    if isinstance(kind, list):
        return st.one_of([values_of(member) for member in kind])
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return st.lists(values_of(kind["items"]), max_size=3)
        if kind["type"] == "enum":
            return st.sampled_from(kind["symbols"])
        return st.fixed_dictionaries({entry["name"]: values_of(entry["type"]) for entry in kind["fields"]})
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1) | st.integers(-(2**31), 2**31 - 1).map(float),
        "long": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "string": words | st.sampled_from(["1", "true", "null", '"', '""', "[1]", "{}", "nan", "/a", " x "]),
        "Any": json_values,
    }
    if kind in ("File", "Directory"):
        paths = words.map(lambda text: f"/{text}")
        return paths | paths.map(lambda path: {"class": kind, "location": path, "basename": "b"})
    return simple[kind]


typed_values = types.flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind)))


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


@given(typed_values)
def test_coercion_takes_what_fits_and_is_idempotent(drawn: tuple[Any, Any]) -> None:
    kind, value = drawn
    once = coerce(value, kind, name="x")
    assert same(coerce(once, kind, name="x"), once)


@given(types, json_values | st.none() | st.floats())
def test_coercion_of_anything_gives_a_stable_json_value_or_a_clear_error(kind: Any, value: Any) -> None:
    try:
        once = coerce(value, kind, name="x")
    except InvalidValueError as error:
        said = error
    else:
        json.dumps(once, allow_nan=False)
        assert same(coerce(once, kind, name="x"), once)
        return
    assert said.name.startswith("x")
    assert said.message.endswith((".", "?"))


@given(typed_values)
def test_what_is_written_as_text_is_read_again(drawn: tuple[Any, Any]) -> None:
    kind, value = drawn
    coerced = coerce(value, kind, name="x")
    assert same(from_text(to_text(coerced, kind), kind), coerced)


@given(types, words)
def test_any_text_is_read_or_refused_clearly(kind: Any, text: str) -> None:
    try:
        value = from_text(text, kind)
    except InvalidValueError as error:
        said = error
    else:
        assume(value is not None)
        assert same(coerce(value, kind, name="x"), value)
        return
    assert said.message.endswith((".", "?"))


@given(types)
def test_the_helpers_know_every_type(kind: Any) -> None:
    assert sort_kind(kind) in ("number", "text", "boolean", "json")
    assert is_optional(kind) == (isinstance(kind, list) and "null" in kind)
    assert (element_type(kind) is not None) == is_array(kind)
    assert type_words(kind)
