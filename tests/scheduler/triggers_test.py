"""Triggers: when they fire, what they run, and that they fire once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.projection import compare, rebuild
from stoa_contracts.events.tables import TableInvalidated
from stoa_contracts.types import Cause, ChangedFile, Trigger
from stoa_scheduler.alarm import Alarm
from stoa_scheduler.app import SERVICE
from stoa_scheduler.problems import InvalidTriggerError
from stoa_scheduler.triggers import check_trigger, due_firing, next_firing, watches
from tests.scheduler.http_test import Observatory, serving
from tests.support.brokers import MemoryTestBroker

BERLIN = ZoneInfo("Europe/Berlin")


def trigger(kind: str, schedule: str | None = None, **more: Any) -> Trigger:
    return Trigger.model_validate({"trigger": "t", "kind": kind, "schedule": schedule, **more})


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc, arg-type]


# --- when ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "after", "wanted"),
    [
        (trigger("cron", "30 2 * * *"), utc(2026, 11, 22, 2, 30), utc(2026, 11, 23, 2, 30)),
        (trigger("cron", "30 2 * * *", timezone="Europe/Berlin"), utc(2026, 11, 22, 2), utc(2026, 11, 23, 1, 30)),
        (trigger("cron", "0 12 * * 1-5"), utc(2026, 11, 20, 13), utc(2026, 11, 23, 12)),
        (trigger("cron", "0 0 29 2 *"), utc(2026, 1, 1), utc(2028, 2, 29)),
        (trigger("interval", "PT15M"), utc(2026, 11, 22, 2, 7), utc(2026, 11, 22, 2, 22)),
        (trigger("interval", "P1DT1H"), utc(2026, 11, 22), utc(2026, 11, 23, 1)),
        (trigger("cron", "30 2 * * *", paused=True), utc(2026, 11, 22), None),
        (trigger("upstream"), utc(2026, 11, 22), None),
        (trigger("file", files=["file:///data"]), utc(2026, 11, 22), None),
    ],
)
def test_a_trigger_knows_when_it_fires_next(what: Trigger, after: datetime, wanted: datetime | None) -> None:
    check_trigger(what)
    assert next_firing(what, after) == wanted


def test_a_time_that_the_clock_leaves_out_fires_after_the_jump_and_one_that_comes_twice_fires_once() -> None:
    nightly = trigger("cron", "30 2 * * *", timezone="Europe/Berlin")
    spring = next_firing(nightly, utc(2026, 3, 28, 12))
    assert spring == datetime(2026, 3, 29, 3, 0, tzinfo=BERLIN).astimezone(UTC)
    autumn = next_firing(nightly, utc(2026, 10, 24, 12))
    assert autumn is not None
    following = next_firing(nightly, autumn)
    assert following is not None
    assert (autumn.astimezone(BERLIN).day, following.astimezone(BERLIN).day) == (25, 26)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (trigger("cron"), "needs a schedule"),
        (trigger("cron", "30 2 * *"), "five fields"),
        (trigger("cron", "61 2 * * *"), "five fields"),
        (trigger("cron", "0 0 31 2 *"), "cron expression|never comes"),
        (trigger("cron", "30 2 * * *", timezone="Mars/Olympus"), "time zone"),
        (trigger("cron", "30 2 * * *", timezone="../../etc/passwd"), "time zone"),
        (trigger("cron", "30 2 * * *", files=["file:///a"]), "watches files"),
        (trigger("interval"), "needs a schedule"),
        (trigger("interval", "15 minutes"), "no interval"),
        (trigger("interval", "PT1S"), "10 seconds"),
        (trigger("interval", "-PT15M"), "no interval"),
        (trigger("upstream", "30 2 * * *"), "no schedule"),
        (trigger("upstream", files=["file:///a"]), "watches files"),
    ],
)
def test_a_trigger_that_can_never_fire_is_refused(what: Trigger, why: str) -> None:
    with pytest.raises(InvalidTriggerError, match=why):
        check_trigger(what)


def test_what_was_missed_is_caught_up_once_or_left_out() -> None:
    hourly = trigger("cron", "0 * * * *")
    firing = due_firing(hourly, utc(2026, 11, 22, 1), utc(2026, 11, 22, 4, 30))
    assert (firing.due, firing.missed, firing.runs) == (utc(2026, 11, 22, 4), 3, True)
    skipping = hourly.model_copy(update={"missed": "skip"})
    assert not due_firing(skipping, utc(2026, 11, 22, 1), utc(2026, 11, 22, 4, 30)).runs
    punctual = due_firing(skipping, utc(2026, 11, 22, 1), utc(2026, 11, 22, 4, 0, 30))
    assert (punctual.missed, punctual.runs) == (3, True)


@given(st.integers(10, 100_000), st.integers(0, 500_000))
def test_an_interval_keeps_its_pace_however_late_it_is_seen(seconds: int, late: int) -> None:
    every = trigger("interval", f"PT{seconds}S")
    due = utc(2026, 11, 22)
    now = due + timedelta(seconds=late)
    firing = due_firing(every, due, now)
    assert firing.due <= now < firing.due + timedelta(seconds=seconds) or firing.missed == 10_000
    assert (firing.due - due) == firing.missed * timedelta(seconds=seconds)
    following = next_firing(every, firing.due)
    assert following == firing.due + timedelta(seconds=seconds)


def test_what_happens_upstream_or_to_a_file_fires_what_watches_it() -> None:
    upstream, everything = trigger("upstream"), trigger("file")
    folder = trigger("file", files=["file:///data/night"])
    paused = trigger("upstream", paused=True)
    known = [upstream, everything, folder, paused]

    def told(kind: str, file: str | None = None, **more: Any) -> list[Trigger]:
        changed = None if file is None else ChangedFile(location=file, sha256="a" * 64, size=1)
        cause = Cause.model_validate({"kind": kind})
        return watches(known, TableInvalidated(table="t", cause=cause, rows=[1], file=changed, **more))

    assert told("upstream") == [upstream]
    assert told("upstream", suspected=True) == []
    assert told("workflow") == []
    assert told("file", "file:///data/night/a.fits") == [everything, folder]
    assert told("file", "file:///data/night") == [everything, folder]
    assert told("file", "file:///data/nights/a.fits") == [everything]


# --- what they do --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def observatory(url: str, folder: Path) -> AsyncIterator[Observatory]:
    broker = MemoryTestBroker()
    async with serving(url, folder, await broker.client(), await broker.client(), after_timeout=3) as found:
        yield found
    await broker.aclose()


async def put(here: Observatory, table: str, status: int = 200, **content: Any) -> Any:
    answer = await here.client.put(f"/api/triggers/{table}", json={"after": await here.told(), **content})
    assert answer.status_code == status, answer.text
    return answer.json()


async def fired(here: Observatory) -> list[Any]:
    return [item for item in await events(here) if item.name == "trigger-fired"]


async def events(here: Observatory) -> list[Any]:
    context = here.app.state.context
    found: list[Any] = await context.database.read(lambda connection: context.log.read(connection, after=0))
    return found


async def test_a_scheduled_table_runs_when_its_trigger_is_due(database_url: str, tmp_path: Path) -> None:
    async with observatory(database_url, tmp_path) as here:
        table = here.tables.create("sources", rows=3)
        refused = await put(here, table, 422, mode="scheduled")
        assert "no trigger yet" in refused["detail"]
        assert (await put(here, table, 422, mode="scheduled", triggers=[{"kind": "cron", "schedule": "x"}]))["detail"]
        nightly = {"kind": "cron", "schedule": "30 2 * * *", "timezone": "Europe/Berlin"}
        answer = await put(here, table, mode="scheduled", triggers=[nightly])
        (state,) = answer["triggers"]
        due = datetime.fromisoformat(state["next"])
        assert (due.astimezone(BERLIN).hour, due.astimezone(BERLIN).minute) == (2, 30)
        assert await here.get("/api/triggers/sources") == answer
        assert (await here.get("/api/queue"))["waiting"] == 0

        # Several schedulers look at the clock at the same moment, and later once more.
        context = here.app.state.context
        alarms = [
            Alarm(database=context.database, events=context.events, clock=lambda: due + timedelta(seconds=1))
            for _ in range(3)
        ]
        await asyncio.gather(*(alarm.step() for alarm in alarms))
        await alarms[0].step()
        (told,) = await fired(here)
        assert (told.data["trigger"], told.data["missed"], told.actor) == (state["trigger"], 0, "jansky")
        run = await here.get(f"/api/runs/{told.data['run']}")
        assert (run["reason"], run["jobs"], run["requested_by"]) == ("trigger", 3, "jansky")
        (after,) = (await here.get("/api/triggers/sources"))["triggers"]
        assert datetime.fromisoformat(after["next"]).astimezone(BERLIN).date() == due.astimezone(
            BERLIN
        ).date() + timedelta(days=1)
        assert after["fired"] is not None

        # What is paused does not fire, and what is taken away is gone.
        paused = await put(here, table, mode="scheduled", triggers=[{**_given(after), "paused": True}])
        assert (paused["triggers"][0]["trigger"], paused["triggers"][0]["next"]) == (after["trigger"], None)
        later = Alarm(database=context.database, events=context.events, clock=lambda: due + timedelta(days=40))
        await later.step()
        assert len(await fired(here)) == 1
        assert (await put(here, table, mode="manual", triggers=[]))["triggers"] == []
        projection = SERVICE.projection()
        rebuild(context.database, context.log, projection, here_feed(here), swap=False)
        assert list(compare(context.database, projection)) == []


def here_feed(here: Observatory) -> Any:
    """Give a rebuild the logs of the neighbours."""
    neighbours = {"tables": here.tables, "executor": here.executor}
    return lambda source, after, until: neighbours[source].fetch(source, after, until)


def _given(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in {"next", "fired"}}


async def test_missed_firings_are_told_and_left_out_where_that_is_set(sqlite_url: str, tmp_path: Path) -> None:
    async with observatory(sqlite_url, tmp_path) as here:
        table = here.tables.create("sources", rows=1)
        hourly = {"kind": "interval", "schedule": "PT1H", "missed": "skip"}
        (state,) = (await put(here, table, mode="scheduled", triggers=[hourly]))["triggers"]
        due = datetime.fromisoformat(state["next"])
        context = here.app.state.context
        late = Alarm(
            database=context.database, events=context.events, clock=lambda: due + timedelta(hours=3, minutes=30)
        )
        await late.step()
        (told,) = await fired(here)
        assert (told.data["missed"], told.data["run"]) == (3, None)
        assert (await here.get("/api/queue"))["waiting"] == 0
        (after,) = (await here.get(f"/api/triggers/{table}"))["triggers"]
        assert datetime.fromisoformat(after["next"]) == due + timedelta(hours=4)
        assert after["fired"] is None


async def test_a_change_upstream_fires_what_waits_for_it(sqlite_url: str, tmp_path: Path) -> None:
    async with observatory(sqlite_url, tmp_path) as here:
        table = here.tables.create("sources", rows=2)
        await put(here, table, mode="scheduled", triggers=[{"kind": "upstream"}])
        assert await fired(here) == []
        here.tables.invalidate(table, [1])
        await here.told()
        queue = await here.until("/api/queue", lambda found: found["waiting"] + found["dispatched"] == 2)
        assert queue["running"] == 0
        (told,) = await fired(here)
        assert told.data["due"] is None


async def test_an_alarm_sleeps_until_the_next_moment(sqlite_url: str, tmp_path: Path) -> None:
    async with observatory(sqlite_url, tmp_path) as here:
        context = here.app.state.context
        alarm = Alarm(database=context.database, events=context.events)
        assert await alarm.step() == 60.0
        table = here.tables.create("sources", rows=1)
        await put(here, table, mode="scheduled", triggers=[{"kind": "interval", "schedule": "PT30S"}])
        assert 0 < await alarm.step() <= 30
