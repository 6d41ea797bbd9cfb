from __future__ import annotations

from stoa_contracts.ids import new_id
from tests.tables.harness import Harness, tool


async def _row(stoa: Harness, row: int = 1) -> tuple[str, str | None]:
    found = await stoa.get(f"/tables/t/rows/{row}")
    return found["status"], found["reason"]


async def _table(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    await stoa.add("t", {"x": 1})


async def test_a_row_goes_from_stale_to_current(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    assert await _row(stoa) == ("queued", None)
    await stoa.start("t", 1, job)
    assert await _row(stoa) == ("running", None)
    await stoa.finish("t", 1, job, {"y": 2})
    row = await stoa.get("/tables/t/rows/1")
    assert (row["status"], row["values"], row["outdated"], row["job"]) == ("current", {"x": 1, "y": 2}, False, job)
    assert stoa.rebuilt()[1] == []


async def test_a_failure_with_another_attempt_to_come_queues_the_row(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    await stoa.start("t", 1, job)
    await stoa.finish("t", 1, job, None, outcome="temporaryFail", final=False, error="The network is gone.")
    assert await _row(stoa) == ("queued", "The network is gone.")
    await stoa.start("t", 1, job, attempt=2)
    assert await _row(stoa) == ("running", None)
    # The first attempt says something, too late.
    await stoa.finish("t", 1, job, None, outcome="permanentFail", error="Late.")
    assert await _row(stoa) == ("running", None)
    await stoa.finish("t", 1, job, None, outcome="permanentFail", error="No sources.", attempt=2)
    assert await _row(stoa) == ("failed", "No sources.")
    await stoa.start("t", 1, job, attempt=3)
    assert await _row(stoa) == ("failed", "No sources.")


async def test_outputs_for_older_inputs_stay_in_the_history(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    await stoa.start("t", 1, job)
    await stoa.patch("/tables/t/rows/1", {"x": 2})
    assert await _row(stoa) == ("stale", None)
    await stoa.finish("t", 1, job, {"y": 2}, revision=1)
    row = await stoa.get("/tables/t/rows/1")
    assert (row["status"], row["values"]["y"]) == ("stale", None)
    history = await stoa.get("/tables/t/rows/1/history")
    assert history["events"][-1]["details"]["outputs"] == {"y": 2}


async def test_outputs_of_an_older_workflow_version_stay_in_the_history(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    old = (await stoa.get("/tables/t"))["workflow"]["version"]
    files = [("files", ("main.cwl", tool({"x": "int"}, {"y": "int"}, label="Newer")))]
    await stoa.request("PUT", "/tables/t/workflow", expect=200, files=files)
    await stoa.finish("t", 1, job, {"y": 2}, version=old)
    row = await stoa.get("/tables/t/rows/1")
    assert (row["status"], row["values"]["y"]) == ("stale", None)
    assert len(await stoa.log(0, "outputs-recorded")) == 1


async def test_an_outcome_is_recorded_once(stoa: Harness) -> None:
    await _table(stoa)
    job = await stoa.run("t", 1, {"y": 2})
    await stoa.finish("t", 1, job, {"y": 3})
    await stoa.finish("t", 1, job, {"y": 3}, attempt=2)
    assert len(await stoa.log(0, "outputs-recorded")) == 1
    assert await stoa.values("t", "y") == [(2,)]
    # Nor one that belongs to older inputs.
    second = (await stoa.queue("t", 1))[1]
    await stoa.patch("/tables/t/rows/1", {"x": 2})
    await stoa.finish("t", 1, second, {"y": 4}, revision=1)
    await stoa.finish("t", 1, second, {"y": 4}, revision=1)
    assert len(await stoa.log(0, "outputs-recorded")) == 2


async def test_what_comes_before_its_cause_is_understood(stoa: Harness) -> None:
    """The scheduler's log and the executor's are followed side by side: a job may finish before we hear it was queued."""
    await _table(stoa)
    job = new_id()
    await stoa.start("t", 1, job)
    assert await _row(stoa) == ("running", None)
    await stoa.finish("t", 1, job, {"y": 2})
    assert (await _row(stoa))[0] == "current"
    await stoa.cancel("t", 1, job)
    assert (await _row(stoa))[0] == "current"


async def test_a_job_that_was_replaced_says_nothing_more(stoa: Harness) -> None:
    await _table(stoa)
    old = (await stoa.queue("t", 1))[1]
    await stoa.cancel("t", 1, old)
    assert await _row(stoa) == ("cancelled", "ada cancelled it")
    new = (await stoa.queue("t", 1))[1]
    await stoa.start("t", 1, old)
    await stoa.finish("t", 1, old, None, outcome="cancelled", error="Stopped.")
    assert await _row(stoa) == ("queued", None)
    await stoa.start("t", 1, new)
    await stoa.cancel("t", 1, old)
    assert await _row(stoa) == ("running", None)


async def test_a_cancelled_job_stays_cancelled(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    await stoa.start("t", 1, job)
    await stoa.cancel("t", 1, job)
    await stoa.finish("t", 1, job, None, outcome="cancelled", error="Stopped.")
    assert await _row(stoa) == ("cancelled", "ada cancelled it")
    # An edit makes it a row like any other.
    await stoa.patch("/tables/t/rows/1", {"x": 2})
    assert await _row(stoa) == ("stale", None)


async def test_a_current_row_that_is_run_again_shows_it(stoa: Harness) -> None:
    await _table(stoa)
    await stoa.run("t", 1, {"y": 2})
    job = (await stoa.queue("t", 1))[1]
    assert (await _row(stoa))[0] == "queued"
    await stoa.start("t", 1, job)
    assert (await _row(stoa))[0] == "running"
    await stoa.finish("t", 1, job, {"y": 2})
    recorded = await stoa.log(0, "outputs-recorded")
    assert [event.data["differs"] for event in recorded] == [True, False]
    assert (await _row(stoa))[0] == "current"


async def test_events_about_what_is_gone_are_passed_over(stoa: Harness) -> None:
    await _table(stoa)
    job = (await stoa.queue("t", 1))[1]
    detail = await stoa.get("/tables/t")
    await stoa.request("DELETE", "/tables/t/rows/1", expect=204)
    head = await stoa.head()
    await stoa.start("t", 1, job, revision=1)
    await stoa.finish("t", 1, job, {"y": 2}, revision=1)
    assert await stoa.head() == head
    await stoa.request("DELETE", "/tables/t", expect=204)
    await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    assert (await stoa.get("/tables/t"))["id"] != detail["id"]


async def test_jobs_of_many_rows_are_told_together(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    rows = await stoa.add("t", *({"x": number} for number in range(50)))
    jobs = await stoa.queue("t", *rows)
    assert (await stoa.get("/tables/t"))["counts"] == {"queued": 50}
    assert len(await stoa.log(0, "row-status-changed")) == 1
    for row, job in list(jobs.items())[:5]:
        await stoa.finish("t", row, job, {"y": row})
    assert (await stoa.get("/tables/t"))["counts"] == {"current": 5, "queued": 45}
    assert stoa.rebuilt()[1] == []
