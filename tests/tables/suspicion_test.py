"""What is below a row that is not settled is stale by suspicion, until it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tables.harness import Harness


async def _chain(stoa: Harness, *, length: int = 3) -> None:
    """Make tables t0 -> t1 -> t2 of one row each, all of it current."""
    for number in range(length):
        await stoa.worktable(f"t{number}", {"x": "int", "note": "string?"}, {"y": "int"})
        if number:
            link = {"parent": f"t{number - 1}", "per": "row", "mapping": {"x": "y"}}
            await stoa.post(f"/tables/t{number}/links", link)
    await stoa.add("t0", {"x": 1})
    for number in range(length):
        await stoa.run(f"t{number}", 1, {"y": number})


async def _statuses(stoa: Harness, *tables: str) -> str:
    return " ".join([await stoa.status(table) for table in tables])


async def _suspected(stoa: Harness, table: str) -> list[bool]:
    return [row["suspected"] for row in await stoa.rows(table)]


async def _told(stoa: Harness, after: int) -> list[tuple[str, str, Any]]:
    names = {table["id"]: table["name"] for table in (await stoa.get("/tables"))["tables"]}
    told = []
    for event in await stoa.log(after, "table-invalidated", "rows-confirmed"):
        word = "confirmed" if event.name == "rows-confirmed" else "suspected" if event.data["suspected"] else "stale"
        told.append((word, names[event.subject], event.data["cause"]["kind"]))
    return told


async def test_an_edit_puts_everything_below_under_suspicion(stoa: Harness) -> None:
    await _chain(stoa)
    head = await stoa.head()
    await stoa.patch("/tables/t0/rows/1", {"x": 2})
    assert await _statuses(stoa, "t0", "t1", "t2") == "stale stale stale"
    assert [await _suspected(stoa, table) for table in ("t0", "t1", "t2")] == [[False], [True], [True]]
    assert await _told(stoa, head) == [("suspected", "t1", "edit"), ("suspected", "t2", "edit")]
    event = (await stoa.log(head, "table-invalidated"))[-1]
    assert event.data["cause"]["table"] == (await stoa.get("/tables/t0"))["id"]
    assert event.data["cause"]["rows"] == [1]
    # The outputs that are shown still are those of the inputs that are shown.
    assert not (await stoa.get("/tables/t2/rows/1"))["outdated"]
    assert stoa.rebuilt()[1] == []


async def test_equal_outputs_above_make_everything_below_current_without_a_run(stoa: Harness) -> None:
    await _chain(stoa)
    await stoa.patch("/tables/t0/rows/1", {"x": 2})
    head = await stoa.head()
    await stoa.run("t0", 1, {"y": 0})
    assert await _statuses(stoa, "t0", "t1", "t2") == "current current current"
    assert await _told(stoa, head) == [("confirmed", "t1", "upstream"), ("confirmed", "t2", "upstream")]
    assert len(await stoa.log(0, "outputs-recorded")) == 4
    history = await stoa.get("/tables/t2/rows/1/history")
    assert [event["summary"] for event in history["events"]][-2:] == [
        "Suspected, because t0 row 1 was edited",
        "No longer suspected, because t0 row 1 came out the same",
    ]
    assert stoa.rebuilt()[1] == []


async def test_other_outputs_above_edit_what_is_below_and_leave_the_rest_suspected(stoa: Harness) -> None:
    await _chain(stoa)
    await stoa.patch("/tables/t0/rows/1", {"x": 2})
    head = await stoa.head()
    await stoa.run("t0", 1, {"y": 10})
    assert await _statuses(stoa, "t0", "t1", "t2") == "current stale stale"
    assert [await _suspected(stoa, table) for table in ("t1", "t2")] == [[False], [True]]
    assert await _told(stoa, head) == [("stale", "t1", "upstream")]
    await stoa.run("t1", 1, {"y": 1})
    assert await _statuses(stoa, "t0", "t1", "t2") == "current current current"
    assert stoa.rebuilt()[1] == []


async def test_an_edit_that_is_taken_back_lifts_the_suspicion(stoa: Harness) -> None:
    await _chain(stoa)
    await stoa.patch("/tables/t0/rows/1", {"x": 2})
    head = await stoa.head()
    await stoa.patch("/tables/t0/rows/1", {"x": 1})
    assert await _statuses(stoa, "t0", "t1", "t2") == "current current current"
    assert await _told(stoa, head) == [("confirmed", "t1", "edit"), ("confirmed", "t2", "edit")]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_row_above_that_does_not_end_well_leaves_the_suspicion(quick: Harness, end: str) -> None:
    await _chain(quick)
    job = (await quick.queue("t0", 1))[1]
    assert await _statuses(quick, "t0", "t1", "t2") == "queued stale stale"
    await quick.start("t0", 1, job)
    if end == "failed":
        await quick.finish("t0", 1, job, None, outcome="permanentFail", error="No.")
    else:
        await quick.cancel("t0", 1, job)
    assert await _statuses(quick, "t0", "t1", "t2") == f"{end} stale stale"
    assert await _suspected(quick, "t1") == [True]
    await quick.run("t0", 1, {"y": 0})
    assert await _statuses(quick, "t0", "t1", "t2") == "current current current"


async def test_a_new_workflow_version_above_is_suspicious_and_the_old_one_is_not(stoa: Harness) -> None:
    await _chain(stoa)
    inputs, outputs = {"x": "int", "note": "string?"}, {"y": "int"}
    head = await stoa.head()
    await stoa.change_workflow("t0", inputs, outputs, label="Newer")
    assert await _statuses(stoa, "t0", "t1", "t2") == "stale stale stale"
    told = [("stale", "t0", "workflow"), ("suspected", "t1", "workflow"), ("suspected", "t2", "workflow")]
    assert await _told(stoa, head) == told
    # A workflow of its own makes a suspected row stale for sure, and the suspicion stays.
    await stoa.change_workflow("t1", inputs, outputs, label="Newer")
    await stoa.change_workflow("t0", inputs, outputs)
    assert await _statuses(stoa, "t0", "t1", "t2") == "current stale stale"
    assert [await _suspected(stoa, table) for table in ("t1", "t2")] == [[False], [True]]
    await stoa.change_workflow("t1", inputs, outputs)
    assert await _statuses(stoa, "t0", "t1", "t2") == "current current current"
    assert stoa.rebuilt()[1] == []


async def test_a_row_that_failed_stays_failed_while_it_is_suspected(quick: Harness) -> None:
    await _chain(quick)
    job = (await quick.queue("t1", 1))[1]
    await quick.finish("t1", 1, job, None, outcome="permanentFail", error="No.")
    await quick.patch("/tables/t0/rows/1", {"x": 2})
    row = await quick.get("/tables/t1/rows/1")
    assert (row["status"], row["suspected"]) == ("failed", True)
    await quick.run("t0", 1, {"y": 0})
    row = await quick.get("/tables/t1/rows/1")
    assert (row["status"], row["suspected"]) == ("failed", False)
    assert quick.rebuilt()[1] == []


async def test_a_job_that_ends_while_its_row_is_suspected_leaves_the_row_stale(stoa: Harness) -> None:
    await _chain(stoa)
    job = (await stoa.queue("t1", 1))[1]
    await stoa.patch("/tables/t0/rows/1", {"x": 2})
    assert await _statuses(stoa, "t0", "t1") == "stale queued"
    await stoa.finish("t1", 1, job, {"y": 1})
    assert await _statuses(stoa, "t0", "t1", "t2") == "stale stale stale"
    await stoa.patch("/tables/t0/rows/1", {"x": 1})
    assert await _statuses(stoa, "t0", "t1", "t2") == "current current current"
    assert stoa.rebuilt()[1] == []


async def test_inputs_that_are_taken_alone_are_settled_when_they_are_edited(stoa: Harness) -> None:
    await stoa.worktable("a", {"x": "int"}, {"y": "int"})
    await stoa.worktable("b", {"x": "int"}, {"y": "int"})
    await stoa.worktable("c", {"x": "int"}, {"y": "int"})
    await stoa.post("/tables/b/links", {"parent": "a", "per": "row", "mapping": {"x": "y"}})
    await stoa.post("/tables/c/links", {"parent": "b", "per": "row", "mapping": {"x": "x"}})
    await stoa.add("a", {"x": 1})
    for table in ("a", "b", "c"):
        await stoa.run(table, 1, {"y": 5})
    # b is stale for sure, and what takes its inputs alone knows them.
    await stoa.patch("/tables/b/rows/1", {"x": 6})
    assert (await _statuses(stoa, "b", "c"), await _suspected(stoa, "c")) == ("stale stale", [False])
    await stoa.run("c", 1, {"y": 5})
    assert await _statuses(stoa, "b", "c") == "stale current"
    # While b itself is suspected its inputs may change.
    await stoa.run("b", 1, {"y": 5})
    await stoa.patch("/tables/a/rows/1", {"x": 2})
    assert await _statuses(stoa, "a", "b", "c") == "stale stale stale"
    assert await _suspected(stoa, "c") == [True]
    await stoa.run("a", 1, {"y": 5})
    assert await _statuses(stoa, "a", "b", "c") == "current current current"


@pytest.mark.parametrize("kind", ["inner", "left"])
async def test_suspicion_goes_through_joins(stoa: Harness, kind: str) -> None:
    for name in ("left", "right"):
        await stoa.worktable(name, {"k": "int"}, {f"{name}_y": "int"})
        await stoa.add(name, {"k": 1}, {"k": 2})
    await stoa.join("both", "left", "right", [("k", "k")], kind)
    await stoa.worktable("sum", {"one": "int", "other": "int?"}, {"y": "int"})
    await stoa.post(
        "/tables/sum/links", {"parent": "both", "per": "row", "mapping": {"one": "left_y", "other": "right_y"}}
    )
    for name in ("left", "right"):
        for row in (1, 2):
            await stoa.run(name, row, {f"{name}_y": row})
    for row in (1, 2):
        await stoa.run("sum", row, {"y": 1})
    await stoa.patch("/tables/left/rows/1", {"k": 3})
    await stoa.patch("/tables/left/rows/1", {"k": 1})
    await stoa.request("DELETE", "/tables/right/rows/2", expect=204)
    rows = {row["row"]: (row["status"], row["suspected"]) for row in await stoa.rows("sum")}
    assert all(not suspected for _, suspected in rows.values())
    job = (await stoa.queue("left", 1))[1]
    second = (await stoa.queue("right", 1))[1]
    assert {row["status"] for row in await stoa.rows("both")} == {"current"}
    assert True in await _suspected(stoa, "both")
    assert True in await _suspected(stoa, "sum")
    await stoa.finish("left", 1, job, {"left_y": 1})
    assert True in await _suspected(stoa, "sum")
    await stoa.finish("right", 1, second, {"right_y": 1})
    assert True not in await _suspected(stoa, "sum")
    assert {row["row"]: (row["status"], row["suspected"]) for row in await stoa.rows("sum")} == rows
    assert stoa.rebuilt()[1] == []


async def test_a_diamond_is_settled_when_both_sides_are(stoa: Harness) -> None:
    await stoa.worktable("top", {"x": "int"}, {"y": "int"})
    for name in ("left", "right"):
        await stoa.worktable(name, {"k": "int", "x": "int"}, {f"{name}_y": "int"})
        link = {"parent": "top", "per": "row", "mapping": {"k": "x", "x": "y"}}
        await stoa.post(f"/tables/{name}/links", link)
    await stoa.join("both", "left", "right", [("x", "x")])
    await stoa.worktable("bottom", {"one": "int", "other": "int"}, {"y": "int"})
    mapping = {"one": "left_y", "other": "right_y"}
    await stoa.post("/tables/bottom/links", {"parent": "both", "per": "row", "mapping": mapping})
    await stoa.add("top", {"x": 1})
    await stoa.run("top", 1, {"y": 1})
    for name in ("left", "right"):
        await stoa.run(name, 1, {f"{name}_y": 1})
    await stoa.run("bottom", 1, {"y": 1})
    await stoa.patch("/tables/top/rows/1", {"x": 2})
    assert await _statuses(stoa, "top", "left", "right", "bottom") == "stale stale stale stale"
    await stoa.run("top", 1, {"y": 1})
    assert await _statuses(stoa, "top", "left", "right", "bottom") == "current stale stale stale"
    await stoa.run("left", 1, {"left_y": 1})
    assert (await _statuses(stoa, "bottom"), await _suspected(stoa, "bottom")) == ("stale", [True])
    await stoa.run("right", 1, {"right_y": 1})
    assert await _statuses(stoa, "bottom") == "current"
    assert stoa.rebuilt()[1] == []


async def test_rows_that_are_derived_from_unsettled_ones_are_suspected_at_once(stoa: Harness) -> None:
    await stoa.worktable("a", {"x": "int"}, {"y": "int"})
    await stoa.add("a", {"x": 1}, {"x": 2})
    for row in (1, 2):
        await stoa.run("a", row, {"y": row})
    await stoa.patch("/tables/a/rows/1", {"x": 5})
    await stoa.worktable("b", {"x": "int"}, {"y": "int"})
    head = await stoa.head()
    await stoa.post("/tables/b/links", {"parent": "a", "per": "row", "mapping": {"x": "y"}})
    assert await _suspected(stoa, "b") == [True, False]
    told = [(event.data["suspected"], event.data["rows"]) for event in await stoa.log(head, "table-invalidated")]
    assert told == [(False, [2]), (True, [1])]
    assert stoa.rebuilt()[1] == []
