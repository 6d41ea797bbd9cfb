"""Progress: counts, a rate over the last minutes, and an end where one can be known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_scheduler.problems import NotFoundError
from stoa_scheduler.progress import Ended, Pace, moment_of, pace
from stoa_scheduler.views import ProgressReport, RunRequest
from tests.scheduler.site import Site

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def ends(*ago: float) -> Iterator[Ended]:
    """Give jobs that ended so many seconds ago."""
    counted: dict[int, int] = {}
    for seconds in ago:
        moment = moment_of(NOW - timedelta(seconds=seconds))
        counted[moment] = counted.get(moment, 0) + 1
    return iter([Ended(moment, counted[moment]) for moment in sorted(counted, reverse=True)])


def at(*ago: float, left: int = 10, busy: float = 3600) -> Pace:
    return pace(ends(*ago), left=left, busy_since=NOW - timedelta(seconds=busy), now=NOW)


def test_nobody_knows_an_end_before_something_ended() -> None:
    assert at() == Pace(None, None)
    assert pace(ends(5), left=10, busy_since=None, now=NOW) == Pace(None, None)


def test_where_nothing_is_left_there_is_no_end_to_wait_for() -> None:
    assert at(5, 10, left=0) == Pace(None, None)


def test_the_rate_is_that_of_the_last_minutes() -> None:
    # One a second lately, and one an hour before: the hour before does not count.
    speed = at(*range(290), *range(1000, 80_000, 3600), busy=80_000)
    assert speed.per_minute == pytest.approx(60, rel=0.05)
    assert speed.estimated_end is not None
    assert (speed.estimated_end - NOW).total_seconds() == pytest.approx(10, rel=0.05)


def test_long_jobs_are_counted_further_back() -> None:
    # One an hour: nothing within the last minutes says so.
    speed = at(*range(1800, 80_000, 3600), busy=80_000)
    assert speed.per_minute == pytest.approx(1 / 60, rel=0.1)


def test_a_night_without_work_does_not_make_the_morning_slow() -> None:
    speed = at(10, 20, 30, *range(40_000, 50_000, 10), busy=60)
    assert speed.per_minute == pytest.approx(3)


def test_a_rate_that_has_fallen_is_seen() -> None:
    speed = at(*range(600, 1200), busy=1200)
    assert speed.per_minute is not None
    assert speed.per_minute < 3


@given(st.lists(st.floats(0, 80_000), max_size=60), st.integers(0, 1000), st.floats(1, 80_000))
def test_an_end_is_in_the_future_and_follows_from_the_rate(ago: list[float], left: int, busy: float) -> None:
    speed = at(*ago, left=left, busy=busy)
    assert (speed.per_minute is None) == (speed.estimated_end is None)
    if speed.per_minute is not None and speed.estimated_end is not None:
        assert speed.per_minute > 0
        seconds = (speed.estimated_end - NOW).total_seconds()
        assert seconds == pytest.approx(60 * left / speed.per_minute, abs=0.001)


async def report(site: Site, **which: str) -> ProgressReport:
    asked = {"table": None, "project": None, **which}
    return await site.queue_service().progress(**asked, after=None, limit=100)


async def test_a_table_and_its_project_tell_how_far_they_got(site: Site) -> None:
    first, second = (site.tables.create(name, rows=6, project="survey") for name in ("first", "second"))
    site.tables.create("other", rows=4)
    site.tables.suspect(second, 5, 6)
    site.deliver_all()
    site.now = datetime.now(UTC)
    await site.service().start_run(RunRequest(project="survey"))
    unknown = await report(site, table="first")
    assert (unknown.rows, unknown.waiting, unknown.rate, unknown.estimated_end) == (6, 6, None, None)
    await site.dispatch()
    begun = site.now
    for number, (message, request) in enumerate(await site.handed_out()):
        site.executor.start(request)
        if number < 4:
            site.now += timedelta(seconds=15)
            outcome = "permanentFail" if number == 3 else "success"
            site.executor.finish(request, outcome, at=site.now, error="it broke")  # type: ignore[arg-type]
            if outcome == "success":
                site.tables.record(request)
            await message.ack()
    site.deliver_all()
    both = await report(site, project="survey")
    assert (both.rows, both.done, both.failed, both.awaited, both.stale) == (12, 3, 1, 2, 2)
    assert both.waiting + both.running == 6
    assert both.rate == pytest.approx(4, rel=0.1)
    assert both.estimated_end is not None
    # Eight are left, at one in 15 seconds.
    assert (both.estimated_end - begun).total_seconds() == pytest.approx(60 + 120, rel=0.1)
    assert [item.name for item in both.tables] == ["first", "second"]
    assert {item.project for item in both.tables} == {"survey"}
    assert sum(item.done for item in both.tables) == 3
    everything = await report(site)
    assert everything.rows == 16
    page = await site.queue_service().progress(table=None, project=None, after=None, limit=2)
    rest = await site.queue_service().progress(table=None, project=None, after=page.next, limit=2)
    assert [len(page.tables), len(rest.tables), rest.next] == [2, 1, None]
    assert first == both.tables[0].table
    site.check_counts()
    with pytest.raises(NotFoundError):
        await report(site, project="galaxies")
    with pytest.raises(NotFoundError):
        await report(site, table="galaxies")


async def test_counts_follow_whatever_happens_to_a_table(site: Site) -> None:
    table = site.tables.create("sources", rows=5)
    site.deliver_all()
    await site.service().start_run(RunRequest(table=table))
    await site.dispatch()
    await site.finish_all(2)
    site.tables.change_workflow(table, "two", "one")
    site.tables.invalidate(table, None)
    site.tables.remove(table, 5)
    site.deliver_all()
    site.check_progress()
    told = await report(site, table=table)
    assert (told.rows, told.stale + told.cancelled) == (4, 4)
    site.tables.delete(table, "sources")
    site.deliver_all()
    site.check_progress()
    assert (await report(site)).rows == 0
    assert site.rebuilt_differently() == []
