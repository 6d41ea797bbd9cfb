"""Rows that wait, are confirmed, accepted, pinned, restored, imported or locked: what is run of them, and what is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from stoa_contracts.jobs import JobRequest
from stoa_scheduler.models import awaited, row_state
from stoa_scheduler.problems import NotFoundError
from stoa_scheduler.views import CancellationRequest, RunAnswer, RunRequest, TriggerRequest
from tests.scheduler.neighbours import FLUX, IMAGE, version
from tests.scheduler.site import Site


async def run(site: Site, table: str, *, actor: str = "jansky", **request: object) -> RunAnswer:
    answer, _ = await site.service(actor).start_run(RunRequest.model_validate({"table": table, **request}))
    return answer


def statuses(site: Site, table: str) -> dict[int, str]:
    rows = site.query(sa.select(row_state.c.row, row_state.c.status).where(row_state.c.table_id == table))
    return {item.row: item.status for item in rows}


def waiting_rows(site: Site) -> list[int]:
    return sorted(item.row for item in site.query(sa.select(awaited.c.row)))


async def take_jobs(site: Site) -> list[JobRequest]:
    await site.dispatch()
    jobs = []
    for message, request in await site.handed_out():
        await message.ack()
        jobs.append(request)
    return jobs


async def computed(site: Site, *, rows: int) -> str:
    """Make a table whose rows are current."""
    table = site.tables.create("sources", rows=rows)
    site.deliver_all()
    await run(site, table)
    await site.dispatch()
    await site.finish_all()
    assert set(statuses(site, table).values()) == {"current"}
    return table


async def test_suspected_rows_wait_and_run_when_they_are_stale_for_sure(site: Site) -> None:
    table = await computed(site, rows=4)
    site.tables.suspect(table, 1, 2, 3)
    site.deliver_all()
    assert statuses(site, table) == {1: "stale", 2: "stale", 3: "stale", 4: "current"}
    answer = await run(site, table, actor="reber", priority=3, force=True)
    assert (answer.jobs, answer.awaited, answer.skipped) == (0, 3, [])
    again = await run(site, table)
    assert again.run is None
    assert {item.reason for item in again.skipped} == {"it waits already until what it depends on is computed"}
    summary = await site.service().run(answer.run or "")
    assert (summary.jobs, summary.awaited, summary.states, summary.finished) == (0, 3, {}, None)
    site.check_counts()
    site.tables.invalidate(table, [1])
    site.tables.remove(table, 2)
    site.deliver_all()
    (job,) = await take_jobs(site)
    assert (job.row, job.requested_by, job.force) == (1, "reber", True)
    assert waiting_rows(site) == [3]
    cancelled, _ = await site.service().cancel(CancellationRequest(run=answer.run))
    assert (cancelled.cancelled, cancelled.awaited) == (1, 1)
    assert waiting_rows(site) == []
    assert (await site.service().run(answer.run or "")).finished is not None
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_confirmed_rows_wait_no_longer_but_what_is_forced_runs(site: Site) -> None:
    table = await computed(site, rows=3)
    site.tables.suspect(table, 1, 2, 3)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1, 2])
    await run(site, table, scope="rows", rows=[3], force=True)
    site.tables.confirm(table, [1])
    site.deliver_all()
    assert waiting_rows(site) == [2, 3]
    site.tables.confirm(table, None)
    site.deliver_all()
    assert waiting_rows(site) == []
    assert statuses(site, table) == {1: "current", 2: "current", 3: "queued"}
    assert [(item.row, item.force) for item in await take_jobs(site)] == [(3, True)]
    site.check_counts()


async def test_what_failed_stays_failed_while_it_is_suspected_and_runs_afterwards(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.deliver_all()
    await run(site, table)
    for request in await take_jobs(site):
        site.executor.start(request)
        site.executor.finish(request, "permanentFail", error="no source was found")
    site.deliver_all()
    site.tables.suspect(table, 1, 2)
    site.deliver_all()
    assert statuses(site, table) == {1: "failed", 2: "failed"}
    answer = await run(site, table, scope="failed")
    assert (answer.jobs, answer.awaited) == (0, 2)
    site.tables.confirm(table, [1])
    site.tables.invalidate(table, [2])
    site.deliver_all()
    assert sorted(item.row for item in await take_jobs(site)) == [1, 2]


async def test_a_waiting_job_comes_back_when_its_row_is_suspected(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    asked = await run(site, table, priority=2)
    one, two, three = await take_jobs(site)
    site.executor.start(one)
    site.executor.start(two)
    site.executor.finish(two, "temporaryFail", final=False, at=site.now, error="the archive did not answer")
    site.deliver_all()
    site.tables.suspect(table, 1, 2, 3)
    site.deliver_all()
    assert site.states() == {"running": 1, "cancelled": 2}
    assert waiting_rows(site) == [2, 3]
    site.executor.finish(one, "temporaryFail", final=False, at=site.now, error="the archive did not answer")
    site.deliver_all()
    assert site.states() == {"cancelled": 3}
    assert waiting_rows(site) == [1, 2, 3]
    site.tables.edit(table, 1, 2, derived=True, image="m87.fits")
    site.tables.invalidate(table, [1, 2, 3])
    site.deliver_all()
    jobs = await take_jobs(site)
    assert [(item.row, item.revision, item.attempt) for item in jobs] == [(1, 2, 1), (2, 1, 1), (3, 1, 1)]
    assert three.job not in {item.job for item in jobs}
    summary = await site.service().run(asked.run or "")
    assert (summary.jobs, summary.states) == (6, {"cancelled": 3, "dispatched": 3})
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_a_derived_edit_carries_the_request_on_and_a_person_s_does_not(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table)
    running, *_ = await take_jobs(site)
    site.executor.start(running)
    site.deliver_all()
    for row in (1, 2):
        site.tables.edit(table, row, 2, derived=True, image="m87.fits")
    site.tables.edit(table, 3, 2, image="m31.fits")
    site.deliver_all()
    assert waiting_rows(site) == [1, 2]
    site.tables.invalidate(table, [1, 2])
    site.deliver_all()
    assert statuses(site, table) == {1: "queued", 2: "queued", 3: "stale"}
    assert site.states() == {"running": 1, "cancelled": 2, "waiting": 2}
    site.check_counts()


async def test_a_row_with_its_old_inputs_is_current_again(site: Site) -> None:
    table = await computed(site, rows=2)
    site.tables.edit(table, 1, 2, image="other.fits")
    site.deliver_all()
    await run(site, table)
    (job,) = await take_jobs(site)
    site.executor.start(job)
    site.tables.edit(table, 1, 3, current=True, image="sources-1.fits")
    site.deliver_all()
    assert statuses(site, table) == {1: "current", 2: "current"}
    # What was computed for other inputs is no longer this row's, and what belongs may be of an earlier revision.
    site.executor.finish(job)
    site.tables.record(job, belongs=False)
    site.deliver_all()
    assert statuses(site, table)[1] == "current"
    site.tables.edit(table, 1, 4, image="other.fits")
    site.tables.record(job, belongs=True)
    site.deliver_all()
    assert statuses(site, table)[1] == "current"
    site.check_counts()


async def test_outputs_of_a_suspected_row_do_not_make_it_current(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await run(site, table)
    (job,) = await take_jobs(site)
    site.executor.start(job)
    site.tables.suspect(table, 1)
    site.executor.finish(job)
    site.tables.record(job, belongs=True)
    site.deliver_all()
    assert statuses(site, table) == {1: "stale"}
    site.tables.confirm(table, [1])
    site.deliver_all()
    assert statuses(site, table) == {1: "current"}


async def test_accepted_and_imported_rows_need_no_run(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1, 2])
    site.tables.accept(table, 1, 1)
    site.tables.import_outputs(table, 2)
    site.tables.suspect(table, 3)
    site.tables.accept(table, 3, 1)
    site.deliver_all()
    assert statuses(site, table) == {1: "current", 2: "current", 3: "stale"}
    assert site.states() == {"cancelled": 2}
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_a_pinned_row_runs_its_own_version(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    site.tables.pin(table, 1, "one")
    site.tables.pin(table, 2, "gone")
    site.tables.change_workflow(table, "two", "one", columns=[IMAGE, FLUX])
    site.deliver_all()
    answer = await run(site, table)
    assert [(item.row, item.reason) for item in answer.skipped] == [
        (2, "the workflow version that it is pinned to is not known here")
    ]
    three, one = sorted(await take_jobs(site), key=lambda item: -item.row)
    assert (three.workflow_version, three.inputs) == (version("two"), {"image": "sources-3.fits"})
    assert one.workflow_version == version("one")
    assert one.inputs == {"image": "sources-1.fits", "sigma": 5.0, "note": None}
    # Another version of the table is none of the pinned row's business.
    site.executor.start(one)
    site.tables.change_workflow(table, "three", "two")
    site.deliver_all()
    assert site.states() == {"running": 1, "cancelled": 1}
    site.executor.finish(one)
    site.tables.record(one)
    site.deliver_all()
    assert statuses(site, table)[1] == "current"
    site.tables.pin(table, 1, None)
    site.tables.invalidate(table, [1])
    site.deliver_all()
    assert statuses(site, table)[1] == "stale"
    await run(site, table, scope="rows", rows=[1])
    site.tables.pin(table, 1, "one")
    site.deliver_all()
    assert statuses(site, table)[1] == "cancelled"
    assert site.states() == {"succeeded": 1, "cancelled": 2}
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_locked_rows_are_not_run(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1])
    site.tables.suspect(table, 2)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[2])
    site.tables.lock(table, 1, 2, 3)
    site.deliver_all()
    assert (site.states(), waiting_rows(site)) == ({"cancelled": 1}, [])
    answer = await run(site, table)
    assert {item.reason for item in answer.skipped} == {"it is locked"}
    await site.service().set_trigger(table, TriggerRequest(mode="automatic"))
    assert site.states() == {"cancelled": 1}
    site.tables.lock(table, 3, locked=False)
    site.deliver_all()
    assert [item.row for item in await take_jobs(site)] == [3]


async def test_restored_rows_are_stale_rows(site: Site) -> None:
    table = await computed(site, rows=2)
    site.tables.remove(table, 2)
    site.tables.restore(table, 2, 2, image="m87.fits", sigma=3.0)
    site.deliver_all()
    assert statuses(site, table) == {1: "current", 2: "stale"}
    await run(site, table)
    (job,) = await take_jobs(site)
    assert (job.row, job.revision, job.inputs["sigma"]) == (2, 2, 3.0)
    site.check_counts()


async def test_an_automatic_table_waits_until_it_is_told_that_rows_are_stale_for_sure(site: Site) -> None:
    table = await computed(site, rows=2)
    await site.service().set_trigger(table, TriggerRequest(mode="automatic"))
    site.tables.suspect(table, 1, 2)
    site.tables.edit(table, 1, 2, derived=True, image="m87.fits")
    site.deliver_all()
    assert await take_jobs(site) == []
    site.tables.invalidate(table, [1])
    site.tables.confirm(table, [2])
    site.deliver_all()
    assert [item.row for item in await take_jobs(site)] == [1]


async def test_a_reused_job_is_a_success_and_is_counted(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.deliver_all()
    asked = await run(site, table)
    one, two = await take_jobs(site)
    site.executor.start(one)
    site.executor.finish(one)
    site.executor.start(two)
    site.executor.finish(two, reused_from=one.job)
    site.deliver_all()
    summary = await site.service().run(asked.run or "")
    assert (summary.states, summary.reused) == ({"succeeded": 2}, 1)
    assert (await site.service().job(two.job)).reused_from == one.job
    assert (await site.service().job(one.job)).reused_from is None
    assert site.rebuilt_differently() == []


async def test_everything_of_mine_is_cancelled_and_nothing_of_others(site: Site) -> None:
    first, second = site.tables.create("first", rows=3), site.tables.create("second", rows=3)
    site.tables.suspect(second, 3)
    site.deliver_all()
    await run(site, first)
    await run(site, second, scope="rows", rows=[1, 3])
    await run(site, second, actor="reber")
    (job, *_) = await take_jobs(site)
    site.executor.start(job)
    site.deliver_all()
    answer, _ = await site.service().cancel(CancellationRequest(scope="mine"))
    assert (answer.cancelled, answer.awaited) == (4, 1)
    assert site.states() == {"cancelled": 4, "waiting": 1}
    assert (await site.queue_service().queue()).groups[0].requested_by == "reber"
    site.check_counts()


async def test_a_project_resumes_with_what_failed(site: Site) -> None:
    tables = [site.tables.create(name, rows=2, project="survey") for name in ("first", "second")]
    site.tables.create("other", rows=2)
    site.tables.create("catalogue", kind="plain", project="survey")
    site.deliver_all()
    for table in tables:
        await run(site, table)
    for request in await take_jobs(site):
        site.executor.start(request)
        failed = request.row == 2
        site.executor.finish(request, "permanentFail" if failed else "success", at=site.now, error="it broke")
        if not failed:
            site.tables.record(request)
    site.deliver_all()
    site.now += timedelta(seconds=1)
    answer, _ = await site.service().start_run(RunRequest(project="survey", scope="failed"))
    assert (answer.run, answer.jobs) == (None, 2)
    assert sorted((item.table, item.jobs) for item in answer.runs) == sorted((table, 1) for table in tables)
    assert {(item.table, item.row) for item in await take_jobs(site)} == {(table, 2) for table in tables}
    with pytest.raises(NotFoundError, match="no table in a project 'galaxies'"):
        await site.service().start_run(RunRequest(project="galaxies"))
