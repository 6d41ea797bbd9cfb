"""The rules of the queue: fairness, windows, retries, and what a row needs to run."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_contracts.canonical import canonical_json
from stoa_contracts.keys import job_inputs
from stoa_contracts.types import Column
from stoa_scheduler.domain import (
    MAX_EVENT_BYTES,
    MAX_EVENT_JOBS,
    Group,
    InputColumn,
    Turns,
    chunks,
    input_columns,
    job_bytes,
    missing_inputs,
    retry_delay,
    share,
    window_size,
)


def shared(groups: list[Group], room: int, in_flight: dict[tuple[str, str], int] | None = None) -> list[int]:
    share(groups, room, in_flight or {}, Turns())
    return [group.taken for group in groups]


def test_the_highest_priority_goes_first() -> None:
    groups = [Group("a", "jansky", 0, 100), Group("b", "jansky", 5, 3), Group("c", "jansky", -1, 100)]
    assert shared(groups, 10) == [7, 3, 0]


def test_two_tables_share_alike_however_long_they_are() -> None:
    assert shared([Group("a", "jansky", 0, 100_000), Group("b", "jansky", 0, 10)], 12) == [6, 6]


def test_who_has_less_in_flight_catches_up() -> None:
    groups = [Group("a", "jansky", 0, 100), Group("b", "jansky", 0, 100)]
    assert shared(groups, 10, {("jansky", "a"): 8}) == [1, 9]


def test_people_share_before_their_tables_do() -> None:
    groups = [*(Group(f"j{number}", "jansky", 0, 100) for number in range(9)), Group("r", "reber", 0, 100)]
    taken = shared(groups, 20)
    assert taken[-1] == 10
    assert sorted(taken[:-1]) == [1] * 8 + [2]


def test_equals_take_turns_even_where_there_is_room_for_one_only() -> None:
    turns = Turns()
    seen = []
    for _ in range(6):
        groups = [Group(table, "jansky", 0, 100) for table in "abc"]
        share(groups, 1, {}, turns)
        seen += [group.table for group in groups if group.taken]
    assert sorted(seen[:3]) == sorted(seen[3:]) == ["a", "b", "c"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(-1, 1), st.integers(1, 30)),
        unique_by=lambda item: item[:3],
    ),
    st.integers(0, 60),
    st.dictionaries(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd")), st.integers(0, 10)),
)
def test_room_is_used_up_and_nobody_of_lower_priority_comes_first(
    waiting: list[tuple[str, str, int, int]], room: int, in_flight: dict[tuple[str, str], int]
) -> None:
    groups = [Group(*item) for item in waiting]
    share(groups, room, in_flight, Turns())
    assert sum(group.taken for group in groups) == min(room, sum(group.waiting for group in groups))
    assert all(0 <= group.taken <= group.waiting for group in groups)
    served = [group.priority for group in groups if group.taken]
    assert all(group.taken == group.waiting for group in groups if served and group.priority > min(served))
    # Whoever was served ends with at most one more in flight than anybody who still waits in the same priority.
    for priority in {group.priority for group in groups}:
        peers = [group for group in groups if group.priority == priority]
        have = Counter[str]()
        for (person, _), number in in_flight.items():
            have[person] += number
        before = dict(have)
        for group in groups:
            if group.priority >= priority:
                have[group.requested_by] += group.taken
        hungry = {group.requested_by for group in peers if group.taken < group.waiting}
        for group in peers:
            if group.taken and have[group.requested_by] > before.get(group.requested_by, 0):
                higher = sum(
                    item.taken
                    for item in groups
                    if item.priority > priority and item.requested_by == group.requested_by
                )
                start = before.get(group.requested_by, 0) + higher
                assert all(have[group.requested_by] <= max(start, have[other]) + 1 for other in hungry)


@pytest.mark.parametrize(
    ("running", "starts", "expected"), [(0, 0, 8), (40, 0, 80), (2, 50, 50), (1000, 0, 128), (2, 1000, 128)]
)
def test_the_window_follows_what_starts(running: int, starts: int, expected: int) -> None:
    assert window_size(smallest=8, largest=128, running=running, starts=starts) == expected


def test_delays_double_up_to_ten_minutes_and_are_the_same_for_everyone() -> None:
    for job in ("a", "b", "c"):
        delays = [retry_delay(job, attempt) for attempt in range(2, 20)]
        assert delays == [retry_delay(job, attempt) for attempt in range(2, 20)]
        assert timedelta(seconds=1.5) <= delays[0] <= timedelta(seconds=2.5)
        assert timedelta(seconds=6) <= delays[2] <= timedelta(seconds=10)
        assert timedelta(seconds=450) <= delays[-1] <= timedelta(seconds=750)
    assert len({retry_delay(str(number), 2) for number in range(50)}) > 40


@pytest.mark.parametrize(
    ("type_", "default", "value", "is_missing"),
    [
        ("string", None, None, True),
        ("string", None, "", False),
        ("float", 5.0, None, False),
        ("boolean", False, None, False),
        (["null", "string"], None, None, False),
        ("string?", None, None, False),
        ("File", None, None, True),
        ({"type": "array", "items": ["null", "string"]}, None, None, True),
        (["string", "int"], None, None, True),
        ("int", None, 0, False),
    ],
)
def test_an_input_is_missing_without_value_default_and_null(
    type_: object, default: object, value: object, is_missing: bool
) -> None:
    columns = input_columns([Column(name="x", role="input", type=type_, default=default)])
    assert missing_inputs(columns, {"x": value}) == (["x"] if is_missing else [])
    assert missing_inputs(columns, {}) == (
        ["x"] if (is_missing or value is not None) and default is None and not columns[0].optional else []
    )


def test_keys_are_inputs_and_outputs_are_not() -> None:
    columns = input_columns(
        [
            Column(name="product", role="key", type="string"),
            Column(name="sigma", role="input", type="float", default=5.0),
            Column(name="flux", role="output", type="float"),
        ]
    )
    assert columns == [
        InputColumn(name="product", optional=False),
        InputColumn(name="sigma", optional=False, default=5.0),
    ]
    assert job_inputs(columns, {"product": "M87", "gone": 1}) == {"product": "M87", "sigma": 5.0}


@given(st.lists(st.integers(1, 200_000), max_size=40))
def test_chunks_keep_order_and_sizes(sizes: list[int]) -> None:
    pieces = list(chunks(list(enumerate(sizes)), lambda item: item[1]))
    assert [item for piece in pieces for item in piece] == list(enumerate(sizes))
    assert all(sum(size for _, size in piece) <= MAX_EVENT_BYTES for piece in pieces)


def test_chunks_hold_at_most_500_jobs() -> None:
    assert [len(piece) for piece in chunks(range(1200))] == [MAX_EVENT_JOBS, MAX_EVENT_JOBS, 200]


def test_the_size_of_a_job_is_not_underestimated() -> None:
    inputs = {"image": "ü" * 100, "sigma": 5.0}
    content = canonical_json({"job": "0" * 36, "row": 2**62, "revision": 2**62, "inputs": inputs})
    assert job_bytes(inputs) >= len(content)
