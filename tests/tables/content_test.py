"""Outputs belong to a row by content: by what the run read, not by when the row was edited."""

from __future__ import annotations

from typing import Any

from tests.tables.harness import Harness

_IN: dict[str, Any] = {"x": "int", "z": {"type": "int", "default": 7}}
_OUT = {"y": "int"}


async def _table(stoa: Harness) -> None:
    await stoa.worktable("t", _IN, _OUT)
    await stoa.add("t", {"x": 1})


async def test_an_edit_that_restores_the_inputs_of_the_last_run_makes_a_row_current(stoa: Harness) -> None:
    await _table(stoa)
    await stoa.run("t", 1, {"y": 2})
    edited = await stoa.patch("/tables/t/rows/1", {"x": 2})
    assert (edited["status"], edited["outdated"]) == ("stale", True)
    edited = await stoa.patch("/tables/t/rows/1", {"x": 1})
    assert (edited["status"], edited["outdated"], edited["revision"]) == ("current", False, 3)
    told = await stoa.log(0, "row-edited")
    assert [(edit["restored"], edit["current"]) for event in told for edit in event.data["rows"]] == [
        (False, False),
        (True, True),
    ]
    assert (await stoa.get("/tables/t"))["counts"] == {"current": 1}
    assert stoa.rebuilt()[1] == []


async def test_a_default_that_is_written_out_is_the_same_input(quick: Harness) -> None:
    await _table(quick)
    await quick.patch("/tables/t/rows/1", {"z": None})
    await quick.run("t", 1, {"y": 2})
    assert (await quick.patch("/tables/t/rows/1", {"z": 7}))["status"] == "current"
    assert (await quick.patch("/tables/t/rows/1", {"z": 8}))["status"] == "stale"


async def test_a_failed_row_whose_inputs_are_restored_is_current(quick: Harness) -> None:
    await _table(quick)
    await quick.run("t", 1, {"y": 2})
    await quick.patch("/tables/t/rows/1", {"x": 2})
    job = (await quick.queue("t", 1))[1]
    await quick.finish("t", 1, job, None, outcome="permanentFail", error="No sources.")
    assert await quick.status("t") == "failed"
    assert (await quick.patch("/tables/t/rows/1", {"x": 1}))["status"] == "current"
    assert quick.rebuilt()[1] == []


async def test_a_job_for_an_older_revision_with_equal_inputs_belongs_to_the_row(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    await stoa.start("t", 1, job)
    await stoa.patch("/tables/t/rows/1", {"x": 2})
    await stoa.patch("/tables/t/rows/1", {"x": 1})
    assert await stoa.status("t") == "stale"
    await stoa.finish("t", 1, job, {"y": 2}, revision=1, inputs={"x": 1, "z": 7})
    row = await stoa.get("/tables/t/rows/1")
    assert (row["status"], row["values"]["y"], row["outdated"]) == ("current", 2, False)
    assert [event.data["belongs"] for event in await stoa.log(0, "outputs-recorded")] == [True]
    # What it gave for other inputs does not, and outputs that belong already are not replaced by older ones.
    await stoa.patch("/tables/t/rows/1", {"x": 3})
    later = (await stoa.queue("t", 1))[1]
    await stoa.patch("/tables/t/rows/1", {"x": 4})
    await stoa.finish("t", 1, later, {"y": 9}, revision=4, inputs={"x": 3, "z": 7})
    assert (await stoa.get("/tables/t/rows/1"))["values"]["y"] == 2
    assert (await stoa.patch("/tables/t/rows/1", {"x": 1}))["status"] == "current"
    assert stoa.rebuilt()[1] == []


async def test_going_back_to_a_workflow_version_makes_its_rows_current(stoa: Harness) -> None:
    await _table(stoa)
    await stoa.add("t", {"x": 5}, {"x": 6})
    first = (await stoa.get("/tables/t"))["workflow"]["version"]
    for row in (1, 2, 3):
        await stoa.run("t", row, {"y": row})
    await stoa.change_workflow("t", _IN, _OUT, label="Newer")
    assert (await stoa.get("/tables/t"))["counts"] == {"stale": 3}
    await stoa.run("t", 3, {"y": 30})
    # Back and forth: row 1 has the inputs of its run again, row 2 has not.
    await stoa.patch("/tables/t/rows/1", {"x": 9})
    edited = await stoa.patch("/tables/t/rows/1", {"x": 1})
    assert (edited["status"], edited["outdated"]) == ("stale", True)
    await stoa.patch("/tables/t/rows/2", {"x": 9})
    head = await stoa.head()
    assert (await stoa.change_workflow("t", _IN, _OUT))["workflow"]["version"] == first
    assert [row["status"] for row in await stoa.rows("t")] == ["current", "stale", "stale"]
    told = [(event.name, event.data["rows"]) for event in (await stoa.log(head))[1:]]
    assert told == [("rows-confirmed", [1]), ("table-invalidated", [2, 3])]
    assert stoa.rebuilt()[1] == []


async def test_outputs_without_a_key_belong_by_revision(quick: Harness) -> None:
    await _table(quick)
    job = (await quick.queue("t", 1))[1]
    await quick.patch("/tables/t/rows/1", {"x": 2})
    await quick.patch("/tables/t/rows/1", {"x": 1})
    await quick.finish("t", 1, job, {"y": 2}, revision=1)
    assert await quick.status("t") == "stale"
