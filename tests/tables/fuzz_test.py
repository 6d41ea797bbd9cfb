"""Whatever is asked, the service answers it: with what was asked for, or with a problem that is the caller's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables.harness import Harness, running

_text = st.text(max_size=8) | st.sampled_from(["x", "s", "t", "null", "\0", "1", "-1", str(2**64), "x>1", "s~a", "é"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_values = st.dictionaries(st.sampled_from(["x", "s", "f", "y", "z"]), _json, max_size=4)
_row = st.integers(-1, 4)
_columns = st.lists(st.fixed_dictionaries({"name": _text, "type": _json}, optional={"unit": _text}), max_size=2)
_rows = st.lists(_row, max_size=3)
_marks = st.one_of(
    st.tuples(
        st.just("PUT"), st.just("/tables/t/flags/f"), st.fixed_dictionaries({"colour": _text | st.just("#ffffff")})
    ),
    st.tuples(
        st.just("POST"),
        st.sampled_from(["/tables/t/flags/f/rows", "/tables/t/flags/%00/rows", "/tables/t/locks"]),
        st.fixed_dictionaries({"rows": _rows}, optional={"reason": _text, "flagged": _json}),
    ),
    st.tuples(
        st.just("POST"),
        _row.map(lambda row: f"/tables/t/rows/{row}/comments"),
        st.fixed_dictionaries({"text": _text}, optional={"column": _text, "element": _json, "replies_to": _text}),
    ),
    st.tuples(st.sampled_from(["PATCH", "DELETE"]), st.just("/tables/t/comments/%00"), st.just({"text": "x"})),
    st.tuples(
        st.just("POST"),
        st.just("/tables/t/views"),
        st.fixed_dictionaries(
            {"name": _text}, optional={"filters": st.lists(_text, max_size=2), "sort": _text, "columns": _json}
        ),
    ),
    st.tuples(st.sampled_from(["PUT", "DELETE"]), st.just("/tables/t/views/%00"), st.just({"name": "x"})),
    st.tuples(st.just("POST"), st.sampled_from(["/tables/t/undo", "/tables/t/redo"]), _json),
)
_requests = st.one_of(
    st.tuples(
        st.just("POST"), st.just("/tables/t/rows"), st.fixed_dictionaries({"rows": st.lists(_values, max_size=3)})
    ),
    st.tuples(st.just("PATCH"), _row.map(lambda row: f"/tables/t/rows/{row}"), _values),
    st.tuples(
        st.just("PATCH"),
        st.just("/tables/t/rows"),
        st.fixed_dictionaries({"edits": st.lists(st.fixed_dictionaries({"row": _row, "values": _values}), max_size=2)}),
    ),
    st.tuples(st.just("POST"), st.just("/tables"), st.fixed_dictionaries({"name": _text, "columns": _columns})),
    st.tuples(
        st.just("POST"),
        st.just("/tables/t/links"),
        st.fixed_dictionaries({"parent": _text, "mapping": st.dictionaries(_text, _text, max_size=2)}),
    ),
    st.tuples(
        st.just("PATCH"), st.just("/tables/t/columns/x"), st.dictionaries(st.sampled_from(["unit", "ucd"]), _json)
    ),
    st.tuples(st.sampled_from(["POST", "PATCH", "DELETE"]), st.just("/tables/t/rows"), _json),
    _marks,
)
_questions = st.fixed_dictionaries(
    {},
    optional={
        "filter": _text,
        "sort": _text,
        "after": _text,
        "limit": _text,
        "offset": _text,
        "status": _text,
        "view": _text,
    },
)


async def _table(stoa: Harness) -> None:
    await stoa.plain("t", {"x": "int", "s": "string?", "f": "File?", "y": {"type": "array", "items": "double"}})
    await stoa.add("t", {"x": 1, "s": "a"}, {"x": 2, "y": [1.5]})


@given(asked=st.lists(_requests, min_size=1, max_size=12), questions=st.lists(_questions, max_size=4))
@settings(max_examples=15)
def test_no_request_is_a_mistake_of_the_service(tmp_path_factory: Any, asked: list[Any], questions: list[Any]) -> None:
    folder: Path = tmp_path_factory.mktemp("fuzz")

    async def ask() -> None:
        async with running(f"sqlite:///{folder / 'stoa.db'}", folder) as stoa:
            await _ask(stoa, asked, questions)

    asyncio.run(ask())


async def _ask(stoa: Harness, asked: list[Any], questions: list[Any]) -> None:
    await _table(stoa)
    for method, path, body in asked:
        content = _dumped(body)
        headers = {"content-type": "application/json"}
        response = await stoa.request(method, path, content=content, headers=headers)
        assert response.status_code < 500, (method, path, body, response.text)
    for question in questions:
        for view in ("rows", "elements"):
            response = await stoa.request("GET", f"/tables/t/{view}", params=question)
            assert response.status_code in ({200, 404, 422} if "view" in question else {200, 422}), (
                question,
                response.text,
            )
    assert stoa.rebuilt()[1] == []


def _dumped(body: Any) -> bytes:
    import json

    return json.dumps(body).encode()


@given(st.data())
@settings(max_examples=3)
def test_nor_on_the_other_database(postgres_server: Any, tmp_path_factory: Any, data: st.DataObject) -> None:
    url = postgres_server.create_database()
    asked = data.draw(st.lists(_requests, min_size=10, max_size=30))
    questions = data.draw(st.lists(_questions, min_size=5, max_size=10))

    async def ask() -> None:
        async with running(url, tmp_path_factory.mktemp("fuzz")) as stoa:
            await _ask(stoa, asked, questions)

    try:
        asyncio.run(ask())
    finally:
        postgres_server.drop_database(url)
