"""The queue from row to end, part by part: projection, policy, dispatcher and store on a real database."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from stoa_chassis.database import Database
from stoa_chassis.migrations import differences, upgrade
from stoa_contracts.events.tables import EditedRow, RowEdited
from stoa_contracts.jobs import JobRequest
from stoa_scheduler.app import SERVICE
from stoa_scheduler.models import dispatch, job, row_state
from stoa_scheduler.views import CancellationRequest, RunRequest, TriggerRequest
from tests.scheduler.neighbours import FLUX, IMAGE, version
from tests.scheduler.site import Site


def test_the_migrations_give_the_models(database_url: str) -> None:
    database = Database(database_url)
    upgrade(database, SERVICE.migrations)
    assert differences(database, SERVICE.metadata) == []
    database.engine.dispose()


async def run(site: Site, table: str, **request: object) -> str | None:
    answer, _ = await site.service().start_run(RunRequest.model_validate({"table": table, **request}))
    return answer.run


def statuses(site: Site, table: str) -> dict[int, str]:
    rows = site.query(sa.select(row_state.c.row, row_state.c.status).where(row_state.c.table_id == table))
    return {item.row: item.status for item in rows}


async def take_jobs(site: Site) -> list[JobRequest]:
    """Hand out, and take everything off the bus."""
    await site.dispatch()
    jobs = []
    for message, request in await site.handed_out():
        await message.ack()
        jobs.append(request)
    return jobs


async def test_a_stale_row_becomes_current(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.deliver_all()
    assert statuses(site, table) == {1: "stale", 2: "stale"}
    await run(site, "sources", priority=3)
    assert statuses(site, table) == {1: "queued", 2: "queued"}
    first, second = await take_jobs(site)
    (queued,) = site.own_events("job-queued")
    assert first == JobRequest(
        job=first.job,
        attempt=1,
        max_attempts=3,
        table=table,
        row=1,
        revision=1,
        workflow_version=version("one"),
        inputs={"image": "sources-1.fits", "sigma": 5.0, "note": None},
        requested_by="jansky",
        correlationid="c",
        causationid=queued.id,
    )
    site.executor.start(first)
    site.deliver_all()
    assert statuses(site, table) == {1: "running", 2: "queued"}
    site.executor.finish(first)
    site.executor.start(second)
    site.executor.finish(second, "permanentFail", error="no source was found")
    site.tables.record(first)
    site.deliver(site.executor)
    assert site.states() == {"succeeded": 1, "failed": 1}
    site.deliver(site.tables)
    assert statuses(site, table) == {1: "current", 2: "failed"}
    site.check_counts()
    assert site.query(sa.select(dispatch)) == []
    assert site.rebuilt_differently() == []


async def test_a_row_is_not_queued_twice(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1])
    answer, _ = await site.service().start_run(RunRequest(table=table, scope="all"))
    assert answer.jobs == 2
    assert [(item.row, item.reason) for item in answer.skipped] == [(1, "it is queued already")]
    assert site.states() == {"waiting": 3}


async def test_scopes(site: Site) -> None:
    table = site.tables.create("sources", rows=4)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1, 2, 3])
    one, two, three = await take_jobs(site)
    for item in (one, two):
        site.executor.start(item)
    site.executor.finish(one)
    site.tables.record(one)
    site.executor.finish(two, "permanentFail", error="no source was found")
    site.deliver_all()
    await site.service().cancel(CancellationRequest(jobs=[three.job]))
    assert statuses(site, table) == {1: "current", 2: "failed", 3: "cancelled", 4: "stale"}

    async def rows(**request: object) -> list[int]:
        run_id = await run(site, table, **request)
        found = [item.row for item in site.query(sa.select(job.c.row).where(job.c.run == run_id).order_by(job.c.row))]
        await site.service().cancel(CancellationRequest(run=run_id))
        return found

    assert await rows(scope="failed") == [2]
    assert await rows(scope="stale") == [2, 3, 4]
    assert await rows(scope="rows", rows=[1]) == [1]
    assert await rows(scope="all") == [1, 2, 3, 4]


async def test_an_edit_supersedes_the_job_that_waits(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await run(site, table)
    await site.dispatch()
    site.tables.edit(table, 1, 2, image="other.fits")
    site.deliver_all()
    assert statuses(site, table) == {1: "stale"}
    assert site.states() == {"cancelled": 1}
    (cancelled,) = site.own_events("job-cancelled")
    assert cancelled.data["reason"] == "the row was edited"
    assert cancelled.causationid == site.tables.envelopes[-1].id
    await run(site, table)
    *_, newest = await take_jobs(site)
    assert (newest.revision, newest.inputs["image"]) == (2, "other.fits")
    site.check_counts()


async def test_an_edit_lets_the_running_job_end_but_not_begin_again(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.deliver_all()
    await run(site, table)
    one, two = await take_jobs(site)
    for item in (one, two):
        site.executor.start(item)
    site.deliver_all()
    for row in (1, 2):
        site.tables.edit(table, row, 2, image="other.fits")
    site.deliver_all()
    assert site.states() == {"running": 2}
    site.executor.finish(one)
    site.executor.finish(two, "temporaryFail", final=False, error="the disk was full")
    site.tables.record(one)
    site.deliver_all()
    assert site.states() == {"succeeded": 1, "cancelled": 1}
    assert statuses(site, table) == {1: "stale", 2: "stale"}
    assert site.rebuilt_differently() == []


async def test_temporary_failures_are_tried_again_later(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await run(site, table)
    for attempt in (1, 2):
        (request,) = await take_jobs(site)
        assert request.attempt == attempt
        site.executor.start(request)
        site.executor.finish(request, "temporaryFail", final=False, at=site.now, error="the archive did not answer")
        site.deliver_all()
        assert statuses(site, table) == {1: "queued"}
        assert await take_jobs(site) == []
        site.now += timedelta(seconds=1)
        assert await take_jobs(site) == []
        site.now += timedelta(seconds=5)
        site.check_counts()
    (request,) = await take_jobs(site)
    site.executor.start(request)
    site.executor.finish(request, "temporaryFail", final=True, error="the archive did not answer")
    site.deliver_all()
    detail = await site.service().job(request.job)
    assert detail.state == "failed"
    assert detail.error == "the archive did not answer"
    assert [(item.attempt, item.outcome, item.error) for item in detail.attempts] == [
        (number, "temporaryFail", "the archive did not answer") for number in (1, 2, 3)
    ]
    assert statuses(site, table) == {1: "failed"}
    assert site.rebuilt_differently() == []


async def test_late_news_of_an_earlier_attempt_change_nothing(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await run(site, table)
    (first,) = await take_jobs(site)
    site.executor.start(first)
    site.executor.finish(first, "temporaryFail", final=False, at=site.now, error="lost")
    site.deliver_all()
    site.now += timedelta(seconds=10)
    (second,) = await take_jobs(site)
    site.executor.start(second)
    site.executor.finish(first, "permanentFail", error="too late")
    site.executor.start(first)
    site.deliver_all()
    assert site.states() == {"running": 1}
    site.executor.finish(second)
    site.executor.finish(second, "permanentFail", error="too late")
    site.deliver_all()
    assert site.states() == {"succeeded": 1}
    site.check_counts()


async def test_cancelled_stays_cancelled(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.deliver_all()
    await run(site, table)
    one, two = await take_jobs(site)
    site.executor.start(one)
    site.deliver_all()
    answer, _ = await site.service("reber").cancel(CancellationRequest(table=table))
    assert answer.cancelled == 2
    site.executor.finish(one)
    site.executor.start(two)
    site.executor.finish(two, "cancelled", error="stopped")
    site.deliver_all()
    assert site.states() == {"cancelled": 2}
    assert statuses(site, table) == {1: "cancelled", 2: "cancelled"}
    detail = await site.service().job(one.job)
    assert (detail.state, detail.outcome, detail.error) == ("cancelled", "cancelled", "reber cancelled it")
    assert detail.usage is not None
    again, _ = await site.service().cancel(CancellationRequest(table=table))
    assert again.cancelled == 0
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_removed_rows_and_deleted_tables_take_their_jobs_along(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    other = site.tables.create("other", rows=1)
    site.deliver_all()
    await run(site, table)
    await run(site, other)
    jobs = await take_jobs(site)
    site.executor.start(next(item for item in jobs if item.table == table and item.row == 1))
    site.deliver_all()
    site.tables.remove(table, 1, 2)
    site.deliver_all()
    assert site.states() == {"cancelled": 2, "waiting": 2}
    site.tables.delete(table, "sources")
    site.deliver_all()
    assert site.states() == {"cancelled": 3, "waiting": 1}
    assert statuses(site, table) == {}
    reasons = [event.data["reason"] for event in site.own_events("job-cancelled")]
    assert reasons == ["the row was removed", "the table was deleted"]
    site.check_counts()


async def test_a_new_workflow_makes_rows_stale_and_cancels_what_computes_the_old_one(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table, scope="rows", rows=[1, 2])
    one, two = await take_jobs(site)
    site.executor.start(one)
    site.executor.finish(one)
    site.tables.record(one)
    site.executor.start(two)
    site.deliver_all()
    assert statuses(site, table) == {1: "current", 2: "running", 3: "stale"}
    site.tables.change_workflow(table, "two", "one", columns=[IMAGE, FLUX])
    site.deliver_all()
    assert statuses(site, table) == {1: "stale", 2: "stale", 3: "stale"}
    assert site.states() == {"succeeded": 1, "cancelled": 1}
    await run(site, table, scope="rows", rows=[2])
    (again,) = await take_jobs(site)
    assert (again.workflow_version, again.inputs) == (version("two"), {"image": "sources-2.fits"})
    site.tables.change_workflow(table, "one", "two")
    site.deliver_all()
    assert statuses(site, table) == {1: "current", 2: "stale", 3: "stale"}
    assert site.rebuilt_differently() == []


async def test_an_automatic_table_runs_what_becomes_stale(site: Site) -> None:
    table = site.tables.create("sources", rows=2)
    site.tables.add(table, {"image": None}, first=3)
    site.deliver_all()
    await site.service().set_trigger(table, TriggerRequest(mode="automatic"))
    assert statuses(site, table) == {1: "queued", 2: "queued", 3: "stale"}
    await site.dispatch()
    await site.finish_all()
    assert statuses(site, table) == {1: "current", 2: "current", 3: "stale"}
    edited = site.tables.edit(table, 3, 2, actor="reber", image="m87.fits")
    site.deliver_all()
    queued = site.own_events("job-queued")[-1]
    assert queued.data["reason"] == "automatic"
    assert queued.data["requested_by"] == queued.actor == "reber"
    assert (queued.causationid, queued.correlationid) == (edited.id, edited.correlationid)
    # A row that is queued already computes its present inputs: an invalidation of it starts nothing.
    site.tables.invalidate(table, [3])
    site.deliver_all()
    assert len(site.own_events("job-queued")) == 2
    await site.dispatch()
    await site.finish_all()
    site.tables.invalidate(table, [1, 2])
    site.deliver_all()
    assert statuses(site, table) == {1: "queued", 2: "queued", 3: "current"}
    await site.dispatch()
    await site.finish_all()
    site.tables.invalidate(table, None)
    site.deliver_all()
    assert statuses(site, table) == {1: "queued", 2: "queued", 3: "queued"}
    site.tables.change_workflow(table, "two", "one")
    site.deliver_all()
    assert site.states() == {"succeeded": 5, "cancelled": 3}
    site.tables.invalidate(table, None)
    site.deliver_all()
    assert site.states() == {"succeeded": 5, "cancelled": 3, "waiting": 3}
    await site.service().set_trigger(table, TriggerRequest(mode="manual"))
    site.tables.edit(table, 1, 2, image="m31.fits")
    site.deliver_all()
    assert statuses(site, table)[1] == "stale"
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_a_failed_row_of_an_automatic_table_waits_for_an_edit(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await site.service().set_trigger(table, TriggerRequest(mode="automatic"))
    (request,) = await take_jobs(site)
    site.executor.start(request)
    site.executor.finish(request, "permanentFail", error="no source was found")
    site.deliver_all()
    assert statuses(site, table) == {1: "failed"}
    assert await take_jobs(site) == []
    site.tables.edit(table, 1, 2, image="m87.fits")
    site.deliver_all()
    assert [item.revision for item in await take_jobs(site)] == [2]


async def test_plain_tables_have_no_rows_here(site: Site) -> None:
    table = site.tables.create("catalogue", kind="plain", rows=5)
    site.deliver_all()
    assert statuses(site, table) == {}


async def test_what_was_lost_before_the_bus_is_handed_out_by_the_next_process(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table)
    lost = site.take()
    assert len(lost) == 3
    assert await site.handed_out() == []
    site.restart()
    assert [item.job for item in await take_jobs(site)] == lost


async def test_what_the_broker_lost_is_handed_out_after_the_lease(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table)
    await site.dispatch()
    site.broker.wipe()
    assert await take_jobs(site) == []
    site.now += timedelta(seconds=61)
    jobs = await take_jobs(site)
    assert [(item.row, item.attempt) for item in jobs] == [(1, 1), (2, 1), (3, 1)]
    site.executor.start(jobs[0])
    site.deliver_all()
    site.broker.wipe()
    site.now += timedelta(seconds=600)
    assert [item.row for item in await take_jobs(site)] == [2, 3]
    site.now += timedelta(seconds=1800)
    assert 1 in [item.row for item in await take_jobs(site)]


async def test_jobs_wait_while_the_broker_is_gone(site: Site) -> None:
    table = site.tables.create("sources", rows=3)
    site.deliver_all()
    await run(site, table)
    await site.bus.connect()
    site.broker.stop()
    assert await site.dispatcher.step() < 1
    assert site.query(sa.select(dispatch)) == []
    site.broker.start()
    assert len(await take_jobs(site)) == 3


@pytest.mark.parametrize("site_bytes", [300])
async def test_a_job_that_the_broker_does_not_take_is_cancelled_with_the_reason(site: Site, site_bytes: int) -> None:
    site.tables.create("sources", rows=1)
    site.deliver_all()
    run_id = await run(site, "sources")
    site.bus._max_message_bytes = site_bytes
    await site.dispatch()
    jobs = await site.service().jobs(run=run_id, limit=10)
    assert [(item.state, item.error) for item in jobs.jobs] == [
        ("cancelled", "its inputs are larger than what the broker takes")
    ]
    site.check_counts()


async def test_a_long_table_holds_up_nobody(site: Site) -> None:
    site.tables.create("survey")
    site.tables.create("few", rows=10)
    site.deliver_all()
    survey = site.tables.envelopes[0].subject
    site.tables.add(survey, *({"image": f"{number}.fits"} for number in range(10_000)))
    site.deliver_all()
    await run(site, "survey")
    await site.dispatch()
    ended = [item.table for item in await site.finish_all(4)]
    await run(site, "few")
    for _ in range(8):
        await site.dispatch()
        ended += [item.table for item in await site.finish_all(4)]
    few = [place for place, table in enumerate(ended) if table != survey]
    assert len(few) == 10
    # What was on the bus when they came goes before them, and then they share alike.
    assert max(few) < 32
    site.check_counts()


async def test_priority_goes_first_and_cancelling_what_waits_is_at_once(site: Site) -> None:
    site.tables.create("slow", rows=400)
    site.tables.create("urgent", rows=5)
    site.deliver_all()
    slow = await run(site, "slow")
    await run(site, "urgent", priority=10)
    jobs = await take_jobs(site)
    assert [item.table for item in jobs[:5]] == [site.tables.envelopes[3].subject] * 5
    assert [item.row for item in jobs[5:]] == [1, 2, 3]
    answer, _ = await site.service().cancel(CancellationRequest(run=slow))
    assert answer.cancelled == 400
    summary = await site.service().run(slow or "")
    assert summary.states == {"cancelled": 400}
    assert summary.finished is not None
    site.check_counts()


async def test_the_news_of_the_tables_may_come_before_those_of_the_executor(site: Site) -> None:
    table = site.tables.create("sources", rows=1)
    site.deliver_all()
    await run(site, table)
    (request,) = await take_jobs(site)
    site.executor.start(request)
    site.executor.finish(request)
    site.tables.record(request)
    site.deliver(site.tables)
    assert statuses(site, table) == {1: "current"}
    assert site.states() == {"succeeded": 1}
    assert site.query(sa.select(dispatch)) == []
    await run(site, table, scope="all")
    site.deliver(site.executor)
    assert statuses(site, table) == {1: "queued"}
    assert site.states() == {"succeeded": 1, "waiting": 1}
    detail = await site.service().job(request.job)
    assert (detail.outcome, detail.exit_code, detail.host) == ("success", 0, "green-bank")
    site.check_counts()
    assert site.rebuilt_differently() == []


async def test_a_paste_edits_many_rows_in_one_step(site: Site) -> None:
    table = site.tables.create("sources", rows=1200)
    site.deliver_all()
    await run(site, table)
    edited = [
        EditedRow(row=row, revision=2, changes={"sigma": float(row)}, previous={"sigma": None})
        for row in range(1, 1101)
    ]
    site.tables.tell(table, RowEdited(table=table, rows=edited))
    site.deliver_all()
    assert Counter(statuses(site, table).values()) == {"stale": 1100, "queued": 100}
    assert site.states() == {"cancelled": 1100, "waiting": 100}
    assert [len(event.data["jobs"]) for event in site.own_events("job-cancelled")] == [500, 500, 100]
    await run(site, table)
    (inputs,) = site.query(sa.select(job.c.inputs).where(job.c.row == 7, job.c.state == "waiting"))
    assert inputs.inputs == {"image": "sources-7.fits", "sigma": 7.0, "note": None}
    site.check_counts()
    assert site.rebuilt_differently() == []
