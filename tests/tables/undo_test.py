"""Undo and redo of one's own edits: nothing of others is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tables.harness import Harness, running
from tests.tables.people import Person, people


@pytest.fixture
async def table(stoa: Harness) -> Harness:
    """Give a plain table of three rows, which somebody else added."""
    (setup,) = people(stoa, "setup")
    await stoa.plain("t", {"x": "int", "y": "int"})
    await setup.ask("POST", "/tables/t/rows", {"rows": [{"x": 0, "y": 0}] * 3}, expect=201)
    return stoa


async def _state(stoa: Harness) -> dict[int, Mapping[str, Any]]:
    return {row["row"]: row["values"] for row in await stoa.rows("t")}


async def _undo(person: Person, *, expect: int = 200, **asked: Any) -> Any:
    return await person.ask("POST", "/tables/t/undo", asked or None, expect=expect)


async def _redo(person: Person, *, expect: int = 200, **asked: Any) -> Any:
    return await person.ask("POST", "/tables/t/redo", asked or None, expect=expect)


async def _steps(person: Person) -> tuple[list[str], list[str]]:
    steps = await person.ask("GET", "/tables/t/steps")
    undo, redo = ([step["summary"] for step in steps[side]] for side in ("undo", "redo"))
    return undo, redo


async def test_a_paste_is_one_step(table: Harness) -> None:
    (ada,) = people(table, "ada")
    edits = [{"row": row, "values": {"x": row, "y": 5}} for row in (1, 2, 3)]
    await ada.ask("PATCH", "/tables/t/rows", {"edits": edits})
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 9})
    assert await _steps(ada) == (["Edited 1 row", "Edited 3 rows"], [])
    undone = await _undo(ada)
    assert (undone["rows"], undone["left"], undone["step"]["summary"]) == ([1], [], "Edited 1 row")
    undone = await _undo(ada)
    assert undone["rows"] == [1, 2, 3]
    assert set(map(str, (await _state(table)).values())) == {"{'x': 0, 'y': 0}"}
    assert await _steps(ada) == ([], ["Edited 3 rows", "Edited 1 row"])
    problem = await _undo(ada, expect=409)
    assert problem["detail"] == "You have nothing to undo in t"
    await _redo(ada)
    await _redo(ada)
    assert await _state(table) == {1: {"x": 9, "y": 5}, 2: {"x": 2, "y": 5}, 3: {"x": 3, "y": 5}}
    assert (await _redo(ada, expect=409))["detail"] == "You have nothing to redo in t"
    assert table.rebuilt()[1] == []


async def test_a_step_in_several_events_is_undone_whole(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path, event_bytes=1024) as stoa:
        (ada,) = people(stoa, "ada")
        await stoa.plain("t", {"x": "int", "s": "string"})
        first = [{"x": number, "s": "a" * 40} for number in range(50)]
        await ada.ask("POST", "/tables/t/rows", {"rows": first}, expect=201)
        edits = [{"row": row, "values": {"s": "b" * 30}} for row in range(1, 51)]
        await ada.ask("PATCH", "/tables/t/rows", {"edits": edits})
        await ada.ask("DELETE", "/tables/t/rows", {"rows": list(range(1, 51))})
        assert len(await stoa.log(0, "row-edited")) > 2
        assert await _steps(ada) == (["Removed 50 rows", "Edited 50 rows", "Added 50 rows"], [])
        await _undo(ada)
        assert len(await stoa.log(0, "rows-restored")) > 2
        assert [values["s"] for values in (await _state(stoa)).values()] == ["b" * 30] * 50
        await _undo(ada)
        assert list((await _state(stoa)).values()) == first
        await _undo(ada)
        assert await _state(stoa) == {}
        for _ in range(3):
            await _redo(ada)
        for _ in range(2):
            await _undo(ada)
        assert list((await _state(stoa)).values()) == first
        assert stoa.rebuilt()[1] == []


async def test_a_new_edit_ends_what_can_be_redone(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 1})
    await ada.ask("PATCH", "/tables/t/rows/1", {"y": 1})
    await _undo(ada)
    await bob.ask("PATCH", "/tables/t/rows/2", {"x": 1})
    assert (await _steps(ada))[1] == ["Edited 1 row"]
    await ada.ask("PATCH", "/tables/t/rows/3", {"x": 3})
    assert await _steps(ada) == (["Edited 1 row"] * 2, [])
    assert await _steps(bob) == (["Edited 1 row"], [])
    assert table.rebuilt()[1] == []


async def test_what_somebody_changed_since_is_named_and_not_undone(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    await ada.ask("PATCH", "/tables/t/rows", {"edits": [{"row": row, "values": {"x": 7}} for row in (1, 2)]})
    await bob.ask("PATCH", "/tables/t/rows/1", {"x": 8, "y": 8})
    head = await table.head()
    problem = await _undo(ada, expect=409)
    assert problem["detail"] == (
        "The step cannot be undone, because of what happened in t since: row 1, x: changed by bob"
    )
    assert problem["cells"] == [{"row": 1, "column": "x", "reason": "changed by bob"}]
    assert problem["type"] == "urn:stoa:problem:changed-since"
    assert await table.head() == head
    # Also where bob wrote what ada had written.
    await bob.ask("PATCH", "/tables/t/rows/1", {"x": 7})
    await _undo(ada, expect=409)
    await _undo(bob)
    await _undo(bob)
    await _undo(ada)
    assert (await _state(table))[1] == {"x": 0, "y": 0}
    await _redo(bob, expect=409)
    await _redo(ada)
    await _redo(bob)
    undone = await _undo(ada, skip_changed=True)
    assert (undone["rows"], [cell["row"] for cell in undone["left"]]) == ([2], [1])
    assert await _state(table) == {1: {"x": 8, "y": 8}, 2: {"x": 0, "y": 0}, 3: {"x": 0, "y": 0}}
    await _redo(ada)
    assert (await _state(table))[2] == {"x": 7, "y": 0}
    assert table.rebuilt()[1] == []


async def test_a_step_of_which_nothing_is_left_is_skipped(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    await ada.ask("PATCH", "/tables/t/rows/1", {"y": 1})
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 1})
    await bob.ask("PATCH", "/tables/t/rows/1", {"x": 2})
    assert (await _undo(ada, skip_changed=True))["rows"] == []
    await _undo(ada)
    assert (await _state(table))[1] == {"x": 2, "y": 0}
    assert table.rebuilt()[1] == []


async def test_removed_rows_come_back_with_their_ids_and_marks(stoa: Harness) -> None:
    (ada,) = people(stoa, "ada")
    await stoa.worktable("t", {"x": "int"}, {"z": "int"})
    await stoa.worktable("below", {"x": "int"}, {"z": "int"})
    await ada.ask("POST", "/tables/t/rows", {"rows": [{"x": 1}, {"x": 2}]}, expect=201)
    await stoa.post("/tables/below/links", {"parent": "t", "per": "row", "mapping": {"x": "x"}})
    await stoa.request("PUT", "/tables/t/flags/odd", json={"colour": "#112233"}, expect=200)
    await ada.ask("POST", "/tables/t/flags/odd/rows", {"rows": [2]})
    await ada.ask("POST", "/tables/t/rows/2/comments", {"text": "Why?"}, expect=201)
    await stoa.run("t", 2, {"z": 4})
    await ada.ask("DELETE", "/tables/t/rows", {"rows": [2]})
    assert await stoa.values("below", "x") == [(1,)]
    assert (await stoa.get("/tables/t/flags"))["flags"][0]["rows"] == 0
    assert (await stoa.get("/tables/t/comments"))["comments"] == []
    await _undo(ada)
    row = await stoa.get("/tables/t/rows/2")
    assert (row["values"]["x"], row["status"], row["revision"]) == (2, "stale", 2)
    assert (row["flags"], row["comments"]) == (["odd"], 1)
    assert await stoa.values("below", "x") == [(1,), (2,)]
    assert (await stoa.get("/tables/t"))["counts"] == {"stale": 2}
    assert await stoa.add("t", {"x": 3}) == [3]
    told = [event["summary"] for event in (await stoa.get("/tables/t/rows/2/history"))["events"]]
    assert told[-2:] == ["Removed", "Put back"]
    assert stoa.rebuilt()[1] == []


async def test_added_rows_are_taken_away_unless_somebody_worked_on_them(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    await ada.ask("POST", "/tables/t/rows", {"rows": [{"x": 4}, {"x": 5}]}, expect=201)
    await bob.ask("PATCH", "/tables/t/rows/5", {"y": 1})
    problem = await _undo(ada, expect=409)
    assert problem["cells"] == [{"row": 5, "column": "y", "reason": "changed by bob"}]
    await _undo(bob)
    await _undo(ada)
    assert sorted(await _state(table)) == [1, 2, 3]
    await bob.ask("PATCH", "/tables/t/rows/1", {"x": 1})
    await ada.ask("DELETE", "/tables/t/rows/1", expect=204)
    problem = await _undo(bob, expect=409)
    assert "row 1: it was removed" in problem["detail"]
    assert table.rebuilt()[1] == []


async def test_a_locked_row_is_not_undone(quick: Harness) -> None:
    (ada,) = people(quick, "ada")
    await quick.plain("t", {"x": "int"})
    await ada.ask("POST", "/tables/t/rows", {"rows": [{"x": 1}]}, expect=201)
    await ada.ask("POST", "/tables/t/locks", {"rows": [1]})
    problem = await _undo(ada, expect=423)
    assert problem["detail"].startswith("Row 1 of t was locked by ada")


async def test_the_step_that_is_meant_is_the_one_that_is_undone(quick: Harness) -> None:
    (ada,) = people(quick, "ada")
    await quick.plain("t", {"x": "int"})
    await ada.ask("POST", "/tables/t/rows", {"rows": [{"x": 1}]}, expect=201)
    seen = (await ada.ask("GET", "/tables/t/steps"))["undo"][0]["step"]
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 2})
    await _undo(ada, step=seen, expect=409)
    await _undo(ada)
    await _undo(ada, step=seen)
    ada.headers["Idempotency-Key"] = "once"
    await _redo(ada)
    await _redo(ada)
    assert await _state(quick) == {1: {"x": 1}}


async def test_a_type_that_changed_since_is_named(quick: Harness) -> None:
    (ada,) = people(quick, "ada")
    await quick.worktable("t", {"x": "string"}, {"z": "int"})
    await ada.ask("POST", "/tables/t/rows", {"rows": [{"x": "one"}]}, expect=201)
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": "2"})
    tool = b'{"cwlVersion": "v1.2", "class": "CommandLineTool", "baseCommand": "true", "inputs": {"w": "int"}, "outputs": {}}'
    await quick.request("PUT", "/tables/t/workflow", files=[("files", ("main.cwl", tool))], expect=200)
    problem = await _undo(ada, expect=409)
    assert [(cell["row"], cell["column"]) for cell in problem["cells"]] == [(1, "x")]


async def test_an_edit_that_is_undone_needs_no_run(quick: Harness) -> None:
    (ada,) = people(quick, "ada")
    await quick.worktable("t", {"x": "int"}, {"z": "int"})
    await quick.add("t", {"x": 1})
    await quick.run("t", 1, {"z": 2})
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 5})
    assert (await quick.get("/tables/t/rows/1"))["status"] == "stale"
    await _undo(ada)
    row = await quick.get("/tables/t/rows/1")
    assert (row["status"], row["outdated"]) == ("current", False)
    await _redo(ada)
    assert (await quick.get("/tables/t/rows/1"))["status"] == "stale"


# --- corrections ---


@pytest.fixture
async def derived(stoa: Harness) -> Harness:
    """Give a table that is filled from another one."""
    await stoa.plain("parent", {"name": "string", "x": "int"})
    await stoa.add("parent", {"name": "a", "x": 1}, {"name": "b", "x": 2})
    await stoa.worktable("t", {"name": "string", "x": "int"}, {"z": "int"})
    mapping = {"name": "name", "x": "x"}
    await stoa.post("/tables/t/links", {"parent": "parent", "per": "row", "mapping": mapping, "keys": ["name"]})
    return stoa


async def _correction(stoa: Harness, row: int = 1) -> Any:
    shown = await stoa.get(f"/tables/t/rows/{row}")
    return shown["values"]["x"], shown["derived_from"]["corrected"].get("x")


async def test_a_correction_that_is_undone_is_none_any_more(derived: Harness) -> None:
    ada, bob = people(derived, "ada", "bob")
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 10})
    first = (await _correction(derived))[1]
    assert first["by"] == "ada"
    await bob.ask("PATCH", "/tables/t/rows/1", {"x": 20})
    await _undo(ada, expect=409)
    await _undo(bob)
    # It is ada's correction again, as she made it.
    assert await _correction(derived) == (10, first)
    await _undo(ada)
    assert await _correction(derived) == (1, None)
    await derived.patch("/tables/parent/rows/1", {"x": 5})
    assert await _correction(derived) == (5, None)
    assert derived.rebuilt()[1] == []


async def test_a_correction_that_is_undone_gives_way_to_what_upstream_says_now(derived: Harness) -> None:
    (ada,) = people(derived, "ada")
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 10})
    await derived.patch("/tables/parent/rows/1", {"x": 5})
    await _undo(ada)
    assert await _correction(derived) == (5, None)
    assert (await _redo(ada))["rows"] == [1]
    value, correction = await _correction(derived)
    assert (value, correction["by"], correction["derived"]) == (10, "ada", 5)
    assert derived.rebuilt()[1] == []


async def test_a_correction_that_was_taken_back_is_there_again_after_undo(derived: Harness) -> None:
    ada, bob = people(derived, "ada", "bob")
    await ada.ask("PATCH", "/tables/t/rows/1", {"x": 10})
    before = await _correction(derived)
    await bob.ask("POST", "/tables/t/corrections/reset", {"rows": [1]})
    assert await _correction(derived) == (1, None)
    await _undo(bob)
    assert await _correction(derived) == before
    await _redo(bob)
    assert await _correction(derived) == (1, None)
    assert derived.rebuilt()[1] == []


# --- any sequence ---

_cells = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3), min_size=1)
_commands = st.one_of(
    st.tuples(st.just("edit"), st.lists(st.tuples(st.integers(1, 5), _cells), min_size=1, max_size=3)),
    st.tuples(st.just("add"), st.lists(_cells, min_size=1, max_size=2)),
    st.tuples(st.just("remove"), st.lists(st.integers(1, 5), min_size=1, max_size=2)),
    st.tuples(st.sampled_from(["undo", "undo", "redo"]), st.none()),
)
_histories = st.lists(st.tuples(st.sampled_from([0, 1]), _commands), min_size=4, max_size=30)

#: Row and column to the value before and after a step; a row that is not there has no value.
_Delta = dict[tuple[int, str], tuple[Any, Any]]


def _flat(state: Mapping[int, Mapping[str, Any]]) -> dict[tuple[int, str], Any]:
    return {(row, name): value for row, values in state.items() for name, value in values.items()}


def _delta(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> _Delta:
    return {
        cell: (before.get(cell), after.get(cell))
        for cell in before.keys() | after.keys()
        if (cell in before, before.get(cell)) != (cell in after, after.get(cell))
    }


async def _command(person: Person, kind: str, body: Any) -> int:
    content: Any = None
    if kind == "edit":
        content = {"edits": [{"row": row, "values": values} for row, values in dict(body).items()]}
    elif kind in {"add", "remove"}:
        content = {"rows": body}
    method = {"edit": "PATCH", "remove": "DELETE"}.get(kind, "POST")
    path = f"/tables/t/{kind if kind in {'undo', 'redo'} else 'rows'}"
    headers = {"Test-Person": person.name}
    response = await person.stoa.request(method, path, headers=headers, **({"json": content} if content else {}))
    return response.status_code


async def _live(stoa: Harness, history: list[tuple[int, tuple[str, Any]]]) -> None:
    persons = people(stoa, "ada", "bob")
    (setup,) = people(stoa, "setup")
    await stoa.plain("t", {"x": "int", "y": "int"})
    await setup.ask("POST", "/tables/t/rows", {"rows": [{"x": 0, "y": 0}] * 3}, expect=201)
    first = state = _flat(await _state(stoa))
    done: list[list[_Delta]] = [[], []]
    undone: list[list[_Delta]] = [[], []]

    async def live(who: int, kind: str, body: Any) -> bool:
        nonlocal state
        head = await stoa.head()
        status = await _command(persons[who], kind, body)
        before, state = state, _flat(await _state(stoa))
        change = _delta(before, state)
        if status >= 400:
            assert status in {404, 409}
            assert await stoa.head() == head
            assert change == {}
            return False
        if kind in {"undo", "redo"}:
            taken, given = (done, undone) if kind == "undo" else (undone, done)
            step = taken[who].pop()
            given[who].append(step)
            # The cells of the step are what they were, and no other cell is touched.
            assert change == ({c: (new, old) for c, (old, new) in step.items()} if kind == "undo" else step)
        elif change:
            done[who].append(change)
            undone[who].clear()
        return True

    for who, (kind, body) in history:
        await live(who, kind, body)

    async def all_of(kind: str, times: list[int]) -> None:
        while any(times):
            progress = False
            for who in (0, 1):
                while times[who] and await live(who, kind, None):
                    times[who] -= 1
                    progress = True
            # Whoever made the last change can always take it back.
            assert progress

    last, counts = state, [len(steps) for steps in done]
    await all_of("undo", counts.copy())
    assert state == first
    await all_of("redo", counts)
    assert state == last
    assert stoa.rebuilt()[1] == []


@given(history=_histories)
@settings(max_examples=settings().max_examples * 8 // 50)
def test_undoing_everything_gives_the_first_state_and_loses_nothing_of_others(
    tmp_path_factory: Any, history: list[tuple[int, tuple[str, Any]]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("undo")

    async def run() -> None:
        async with running(f"sqlite:///{folder / 'stoa.db'}", folder) as stoa:
            await _live(stoa, history)

    asyncio.run(run())
