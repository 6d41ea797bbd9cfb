"""The pure rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_executor.domain import (
    Claim,
    InfiniteValueError,
    bool_for_number,
    claim_decision,
    clean_message,
    failure_sentence,
    last_words,
    plain_value,
    whole_characters,
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('Traceback (most recent call last):\n  File "x", line 1\nValueError: no WCS\n', "ValueError: no WCS"),
        ("\x1b[1;31mno sources\x1b[0m\n\n----\n^\n", "no sources"),
        (" 10%\r 50%\rfailed at 50%\n", "failed at 50%"),
        ("out of memory\r\n", "out of memory"),
        ("the cause\ncwltool: [job x] exited with status: 1\n", "the cause"),
        ("", ""),
        ("***\n", ""),
    ],
)
def test_the_last_words_of_a_tool(said: str, words: str) -> None:
    assert last_words(said) == words


def test_messages_of_the_engine_become_one_line() -> None:
    tree = (
        "Invalid job input record:\nfile:///cache/abc/main.cwl:4:1: * the 'x' field is not valid because\n"
        "                the value is not a float or double, expected float"
    )
    assert clean_message(tree) == (
        "the 'x' field is not valid because the value is not a float or double, expected float (main.cwl, line 4)."
    )


def test_sentences_are_short() -> None:
    sentence = failure_sentence(exit_code=1, said="x" * 10_000)
    assert len(sentence) == 500
    assert sentence.endswith("…")


@pytest.mark.parametrize(
    ("known", "attempt", "decision"),
    [
        (None, 1, "run"),
        (None, 3, "run"),
        (Claim(1, "running"), 1, "run"),
        (Claim(1, "finished"), 1, "drop"),
        (Claim(1, "finished"), 2, "run"),
        (Claim(2, "running"), 1, "drop"),
        (Claim(2, "cancelled"), 1, "drop"),
        (Claim(0, "cancelled"), 1, "cancelled"),
        (Claim(1, "cancelled"), 1, "cancelled"),
        (Claim(1, "cancelled"), 2, "cancelled"),
    ],
)
def test_claims(known: Claim | None, attempt: int, decision: str) -> None:
    assert claim_decision(known, attempt) == decision


@pytest.mark.parametrize(
    ("schema", "value", "wrong"),
    [
        ("int", True, True),
        ("int", 1, False),
        (["null", "double"], False, True),
        (["int", "boolean"], True, False),
        ("Any", True, False),
        ("string", True, False),
        ({"type": "array", "items": "long"}, [1, True], True),
        ({"type": "array", "items": "boolean"}, [True], False),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, [[1], [True]], True),
        (["null", {"type": "array", "items": "int"}], None, False),
    ],
)
def test_truth_values_for_numbers(schema: Any, value: Any, wrong: bool) -> None:
    assert bool_for_number(schema, value) is wrong


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_like)
def test_plain_values_are_json_without_what_json_cannot_carry(value: Any) -> None:
    text = json.dumps(value)
    if "Infinity" in json.dumps(json.loads(text.replace("NaN", "null")), ensure_ascii=False) and _has_infinity(value):
        with pytest.raises(InfiniteValueError):
            plain_value(value)
        return
    assert plain_value(value) == json.loads(json.dumps(_without_nan(value)))


def _has_infinity(value: Any) -> bool:
    if isinstance(value, float):
        return value in {float("inf"), float("-inf")}
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    return isinstance(value, list) and any(map(_has_infinity, value))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - that is what NaN is
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value


@given(st.text(min_size=1), st.integers(min_value=1, max_value=40))
def test_pieces_of_text_end_with_a_character(text: str, size: int) -> None:
    raw = text.encode(errors="replace")
    text = raw.decode()
    offset, pieces = 0, []
    while offset < len(raw):
        piece = whole_characters(raw[offset : offset + max(size, 4)])
        pieces.append(piece.decode())
        offset += len(piece)
    assert "".join(pieces) == text
    assert whole_characters(b"\xff\xfe") == b"\xff\xfe"
