"""Array outputs of equal length become elements."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.types import Column
from stoa_tables.elements import split


def output(name: str, kind: Any) -> Column:
    return Column(name=name, role="output", type=kind)


FLOATS = {"type": "array", "items": "double"}
RA, DEC, COUNT = output("ra", FLOATS), output("dec", ["null", FLOATS]), output("count", "int")


def test_arrays_of_equal_length_become_complete_rows() -> None:
    assert split({"ra": [1.0, 2.0], "dec": [3.0, 4.0], "count": 2}, [RA, DEC, COUNT]) == (
        2,
        [{"ra": 1.0, "dec": 3.0, "count": 2}, {"ra": 2.0, "dec": 4.0, "count": 2}],
    )


def test_arrays_of_unequal_length_stay_in_their_cells() -> None:
    assert split({"ra": [1.0, 2.0], "dec": [3.0], "count": 2}, [RA, DEC, COUNT]) == (None, None)


def test_empty_arrays_are_no_elements_at_all_but_they_are_elements() -> None:
    assert split({"ra": [], "dec": [], "count": 0}, [RA, DEC, COUNT]) == (0, [])


def test_an_optional_array_that_is_null_does_not_count() -> None:
    assert split({"ra": [1.0], "dec": None}, [RA, DEC]) == (1, [{"ra": 1.0, "dec": None}])
    assert split({"ra": [1.0]}, [RA, DEC]) == (1, [{"ra": 1.0, "dec": None}])


def test_without_an_array_there_are_no_elements() -> None:
    assert split({"count": 2}, [COUNT]) == (None, None)
    assert split({"dec": None}, [DEC]) == (None, None)
    assert split({}, []) == (None, None)


def test_only_the_type_makes_an_array() -> None:
    anything = output("anything", "Any")
    either = output("either", ["string", {"type": "array", "items": "string"}])
    assert split({"anything": [1, 2], "either": ["a", "b"]}, [anything, either]) == (None, None)
    assert split({"anything": [1, 2], "ra": [5.0]}, [anything, RA]) == (1, [{"anything": [1, 2], "ra": 5.0}])


def test_inputs_and_keys_are_no_outputs() -> None:
    columns = [Column(name="ra", role="key", type=FLOATS), Column(name="dec", role="input", type=FLOATS), COUNT]
    assert split({"ra": [1.0], "dec": [1.0], "count": 1}, columns) == (None, None)


def test_of_nested_arrays_the_outermost_counts() -> None:
    nested = output("spectra", {"type": "array", "items": FLOATS})
    assert split({"spectra": [[1.0, 2.0], []]}, [nested]) == (2, [{"spectra": [1.0, 2.0]}, {"spectra": []}])


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), max_size=4), min_size=1), st.integers())
def test_joining_the_elements_gives_the_outputs(arrays: dict[str, list[int]], scalar: int) -> None:
    columns = [output(name, {"type": "array", "items": "int"}) for name in arrays] + [COUNT]
    outputs = {**arrays, "count": scalar}
    k, elements = split(outputs, columns)
    if len({len(array) for array in arrays.values()}) > 1:
        assert (k, elements) == (None, None)
    else:
        assert elements is not None
        assert k == len(elements)
        assert {name: [element[name] for element in elements] for name in arrays} == arrays
        assert all(element["count"] == scalar for element in elements)
