"""Tables as they were, what changed between two moments, and the history of a cell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from stoa_tables import moments
from stoa_tables.models import snapshot, snapshot_part
from stoa_tables.snapshots import SnapshotKeeper
from tests.tables.harness import Harness, running, tool

_INPUTS = {"x": "int"}
_OUTPUTS = {"y": "int"}


async def _runs(stoa: Harness, name: str = "runs") -> Any:
    detail = await stoa.worktable(name, _INPUTS, _OUTPUTS)
    await stoa.add(name, {"x": 1}, {"x": 2})
    return detail


async def _shown(stoa: Harness, table: str, **parameters: Any) -> Any:
    """Everything that the page of a table shows."""
    shown = [
        await stoa.get(f"/tables/{table}", **parameters),
        await stoa.get(f"/tables/{table}/rows", limit=10_000, **parameters),
        await stoa.get(f"/tables/{table}/elements", limit=10_000, **parameters),
    ]
    position = parameters.get("as_of")
    return [{**each, "position": position or each["position"]} for each in shown]


async def test_a_table_is_shown_as_it_was(stoa: Harness) -> None:
    await _runs(stoa)
    shown = {}

    async def note() -> None:
        position = await stoa.head()
        shown[position] = await _shown(stoa, "runs")

    await note()
    job = (await stoa.queue("runs", 1))[1]
    await note()
    await stoa.start("runs", 1, job)
    await note()
    await stoa.finish("runs", 1, job, {"y": 10})
    await note()
    await stoa.patch("/tables/runs/rows/1", {"x": 7})
    await note()
    await stoa.patch("/tables/runs/columns/x", {"unit": "deg"})
    await note()
    files = [("files", ("main.cwl", tool(_INPUTS, {**_OUTPUTS, "z": "int"})))]
    await stoa.request("PUT", "/tables/runs/workflow", expect=200, files=files)
    await note()
    await stoa.request("PUT", "/tables/runs/flags/odd", expect=200, json={"colour": "#ff0000"})
    await stoa.post("/tables/runs/flags/odd/rows", {"rows": [1, 2]}, expect=200)
    await stoa.post("/tables/runs/rows/1/comments", {"text": "Is it a star?"})
    await note()
    await stoa.request("DELETE", "/tables/runs/flags/odd", expect=200)
    await note()
    await stoa.request("DELETE", "/tables/runs/rows/2", expect=204)
    await note()
    await stoa.patch("/tables/runs", {"name": "walks", "description": "longer"})
    await stoa.plain("runs", {"a": "int"})
    for position, expected in shown.items():
        seen = await _shown(stoa, "walks", as_of=position)
        assert [{**each, "position": position} for each in expected] == seen
    response = await stoa.request("GET", "/tables/walks/rows", params={"as_of": 4})
    assert response.headers["Stoa-Position"] == "4"
    assert response.json()["position"] == 4


async def test_the_past_is_filtered_sorted_and_paged_like_the_present(stoa: Harness) -> None:
    await stoa.plain("stars", {"k": "int", "name": "string"})
    await stoa.add("stars", *({"k": number % 7, "name": f"HD {number}"} for number in range(30)))
    position = await stoa.head()
    asked: list[dict[str, Any]] = [
        {"filter": ["k>3"], "sort": "-k,name"},
        {"filter": ["name~hd 2", "k!=1"]},
        {"sort": "name", "limit": 7, "offset": 3},
        {"status": "current", "limit": 5},
    ]
    before = [await stoa.get("/tables/stars/rows", **each) for each in asked]
    await stoa.patch("/tables/stars/rows", {"edits": [{"row": row, "values": {"k": 99}} for row in range(1, 20)]})
    then = [await stoa.get("/tables/stars/rows", **each, as_of=position) for each in asked]
    assert [{**page, "position": 0} for page in then] == [{**page, "position": 0} for page in before]
    following = await stoa.get("/tables/stars/rows", as_of=position, limit=5, after=then[3]["next"])
    assert [row["row"] for row in following["rows"]] == [6, 7, 8, 9, 10]


async def test_a_moment_is_named_by_a_time(quick: Harness) -> None:
    await _runs(quick)
    first = (await quick.log())[-1]
    await quick.add("runs", {"x": 3})
    written = first.time.isoformat()
    page = await quick.get("/tables/runs/rows", as_of=written)
    assert (page["position"], page["total"]) == (first.log_position, 2)
    # The plus of a zone reads as a space where it was not escaped.
    elsewhere = first.time.astimezone(tz=datetime.now().astimezone().tzinfo).isoformat().replace("+", " ")
    assert (await quick.get("/tables/runs/rows", as_of=elsewhere))["position"] == first.log_position
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert (await quick.get("/tables/runs/rows", as_of=later))["total"] == 3
    early = (first.time - timedelta(days=1)).isoformat()
    refused = await quick.request("GET", "/tables/runs/rows", expect=404, params={"as_of": early})
    assert "There was no table 'runs' yet at position 0" in refused.json()["detail"]


@pytest.mark.parametrize("moment", ["yesterday", "2026-03-01", "2026-03-01T20:00:00", "-1", "1.5", "", "9" * 30])
async def test_what_is_no_moment_is_refused(quick: Harness, moment: str) -> None:
    await _runs(quick)
    refused = await quick.request("GET", "/tables/runs", expect=422, params={"as_of": moment})
    assert "as_of is a position of the log or a time with its zone" in refused.json()["detail"]
    refused = await quick.request("GET", "/tables/runs/diff", expect=422, params={"from": moment})
    assert "from is a position of the log" in refused.json()["detail"]


async def test_a_moment_to_come_is_refused(quick: Harness) -> None:
    await _runs(quick)
    head = await quick.head()
    refused = await quick.request("GET", "/tables/runs", expect=422, params={"as_of": head + 1})
    assert refused.json()["head"] == head
    await quick.request("GET", "/tables/runs/diff", expect=422, params={"from": 1, "to": head + 1})
    await quick.request("GET", "/tables/runs/diff", expect=422, params={"from": 3, "to": 2})


async def test_a_deleted_table_can_be_read(stoa: Harness) -> None:
    detail = await _runs(stoa)
    position = await stoa.head()
    expected = await _shown(stoa, "runs")
    await stoa.request("DELETE", "/tables/runs", expect=204)
    deleted = await stoa.head()
    for name in ("runs", "RUNS", detail["id"]):
        assert await _shown(stoa, name, as_of=position) == expected
        gone = await stoa.request("GET", f"/tables/{name}", expect=404, params={"as_of": deleted})
        assert gone.json()["deleted"] == deleted
    await stoa.request("GET", "/tables/runs", expect=404)
    # Another table takes the name; at each moment it means the one that was there.
    second = await stoa.plain("runs", {"a": "int"})
    assert (await stoa.get("/tables/runs", as_of=position))["id"] == detail["id"]
    assert (await stoa.get("/tables/runs", as_of=await stoa.head()))["id"] == second["id"]
    assert (await stoa.get("/tables/runs/rows/2", as_of=position))["values"] == {"x": 2, "y": None}
    await stoa.request("GET", "/tables/nothing", expect=404, params={"as_of": position})


async def test_derived_rows_and_corrections_are_shown_as_they_were(stoa: Harness) -> None:
    await stoa.plain("targets", {"k": "int"})
    await stoa.add("targets", {"k": 1}, {"k": 2})
    await stoa.worktable("runs", {"k": "int"}, _OUTPUTS)
    await stoa.post("/tables/runs/links", {"parent": "targets", "per": "row", "mapping": {"k": "k"}})
    await stoa.join("both", "targets", "runs", [("k", "k")])
    shown = {}
    for act in (
        lambda: stoa.patch("/tables/runs/rows/1", {"k": 5}),
        lambda: stoa.patch("/tables/targets/rows/2", {"k": 5}),
        lambda: stoa.patch("/tables/targets/rows/1", {"k": 3}),
        lambda: stoa.request("DELETE", "/tables/targets/rows/1", expect=204),
    ):
        shown[await stoa.head()] = [await _shown(stoa, table) for table in ("targets", "runs", "both")]
        await act()
    for position, expected in shown.items():
        seen = [await _shown(stoa, table, as_of=position) for table in ("targets", "runs", "both")]
        assert seen == expected
    corrected = (await stoa.get("/tables/runs/rows/1", as_of=list(shown)[1]))["derived_from"]["corrected"]
    assert list(corrected) == ["k"]


# --- snapshots -------------------------------------------------------------------------------------------------------------------


async def _snapshots(stoa: Harness) -> list[Any]:
    statement = sa.select(snapshot.c.version, snapshot.c.code).order_by(snapshot.c.version)
    return await stoa.context.database.read(lambda connection: list(connection.execute(statement).all()))


async def _catch_up(stoa: Harness) -> int:
    keeper: SnapshotKeeper = stoa.context.create_snapshot_keeper()
    return await keeper.catch_up(asyncio.Event())


async def _edited(stoa: Harness, times: int = 40) -> dict[int, Any]:
    await stoa.plain("stars", {"k": "int", "note": "string"})
    await stoa.add("stars", {"k": 0}, {"k": 0})
    shown = {}
    for number in range(times):
        # Events of some size, for a snapshot is made only where it takes less room than they do.
        await stoa.patch(f"/tables/stars/rows/{number % 2 + 1}", {"k": number, "note": f"{number} " * 300})
        if number % 7 == 0:
            shown[await stoa.head()] = await _shown(stoa, "stars")
    return shown


async def test_snapshots_bring_the_past_near(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(database_url, tmp_path, snapshot_events=10) as stoa:
        shown = await _edited(stoa)
        await _catch_up(stoa)
        assert [found.version for found in await _snapshots(stoa)] == [10, 20, 30, 40]
        assert await _catch_up(stoa) == 0
        replayed: list[int] = []
        whole = moments.replay

        def counted(file: sa.Connection, envelopes: Any) -> None:
            replayed.append(len(envelopes))
            whole(file, envelopes)

        monkeypatch.setattr(moments, "replay", counted)
        for position, expected in shown.items():
            assert await _shown(stoa, "stars", as_of=position) == expected
        assert replayed
        assert all(number < 10 for number in replayed)
        # What was made for one page is there for the next.
        replayed.clear()
        for position in shown:
            await stoa.get("/tables/stars/rows", as_of=position)
        assert replayed == []


@pytest.mark.parametrize("damage", ["content", "chain", "code", "part"])
async def test_a_snapshot_that_does_not_fit_is_not_read(sqlite_url: str, tmp_path: Path, damage: str) -> None:
    async with running(sqlite_url, tmp_path, snapshot_events=10) as stoa:
        shown = await _edited(stoa)
        await _catch_up(stoa)

        def harm(connection: sa.Connection) -> None:
            if damage == "content":
                # It is well packed, but of another moment.
                other = sa.select(snapshot_part.c.content).limit(1).scalar_subquery()
                connection.execute(sa.update(snapshot_part).values(content=other))
                connection.execute(sa.update(snapshot).values(sha256="0" * 64))
            elif damage == "part":
                connection.execute(sa.delete(snapshot_part))
            else:
                connection.execute(sa.update(snapshot).values({damage: "0" * 64}))
                connection.execute(sa.update(snapshot_part).values(content=b"of no use"))

        await stoa.context.database.write(harm)
        for position, expected in shown.items():
            assert await _shown(stoa, "stars", as_of=position) == expected


async def test_snapshots_of_other_code_are_made_again(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path, snapshot_events=10) as stoa:
        await _edited(stoa, 12)
        await _catch_up(stoa)
        stranger = sa.update(snapshot).values(code="0" * 64)
        await stoa.context.database.write(lambda connection: connection.execute(stranger))
    async with running(sqlite_url, tmp_path, snapshot_events=10) as stoa:
        while [(found.version, found.code) for found in await _snapshots(stoa)] != [(10, moments.code_version())]:
            await asyncio.sleep(0.05)
        parts = sa.select(sa.func.count()).select_from(snapshot_part)
        assert await stoa.context.database.read(lambda connection: connection.execute(parts).scalar_one()) == 1


async def test_files_of_the_past_are_removed(sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, tmp_path, history_bytes=0) as stoa:
        shown = await _edited(stoa, 20)
        for position, expected in shown.items():
            assert await _shown(stoa, "stars", as_of=position) == expected
        path = stoa.context.moments.new_file()
        assert list(path.parent.iterdir()) == []
    assert not path.parent.exists()


# --- differences -----------------------------------------------------------------------------------------------------------------


async def test_differences_between_two_moments(stoa: Harness) -> None:
    before = await _runs(stoa)
    first = await stoa.head()
    await stoa.run("runs", 1, {"y": 10})
    await stoa.patch("/tables/runs/rows/2", {"x": 5})
    await stoa.add("runs", {"x": 3})
    second = await stoa.head()
    found = await stoa.get("/tables/runs/diff", **{"from": first, "to": second})
    version = before["workflow"]["version"]
    assert found["summary"] == {
        "rows_added": 1,
        "rows_removed": 0,
        "rows_changed": 2,
        "cells_changed": 2,
        "statuses_changed": 1,
    }
    assert (found["before"], found["after"], found["next"]) == (first, second, None)
    assert found["rows"] == [
        {
            "row": 1,
            "change": "changed",
            "status": {"before": "stale", "after": "current"},
            "workflow_version": {"before": None, "after": version},
            "cells": [{"column": "y", "role": "output", "before": None, "after": 10}],
        },
        {
            "row": 2,
            "change": "changed",
            "status": None,
            "workflow_version": None,
            "cells": [{"column": "x", "role": "input", "before": 2, "after": 5}],
        },
        {
            "row": 3,
            "change": "added",
            "status": {"before": None, "after": "stale"},
            "workflow_version": None,
            "cells": [{"column": "x", "role": "input", "before": None, "after": 3}],
        },
    ]
    assert {name for name, change in found["changes"].items() if change} == set()
    files = [("files", ("main.cwl", tool({"x": "int", "t": {"type": "int", "default": 4}}, _OUTPUTS)))]
    await stoa.request("PUT", "/tables/runs/workflow", expect=200, files=files)
    await stoa.patch("/tables/runs", {"name": "walks"})
    await stoa.request("DELETE", "/tables/walks/rows/3", expect=204)
    await stoa.request("DELETE", "/tables/walks", expect=204)
    last = await stoa.head()
    found = await stoa.get("/tables/walks/diff", **{"from": second, "to": last - 1})
    changes = found["changes"]
    assert changes["name"] == {"before": "runs", "after": "walks"}
    assert changes["workflow_version"]["before"] == version
    assert [(each["column"], each["before"], each["after"]["default"]) for each in changes["columns"]] == [
        ("t", None, 4)
    ]
    assert [(row["row"], row["change"]) for row in found["rows"]] == [(1, "changed"), (2, "changed"), (3, "removed")]
    assert found["rows"][1]["cells"] == [{"column": "t", "role": "input", "before": None, "after": 4}]
    gone = await stoa.get("/tables/walks/diff", **{"from": second})
    assert gone["changes"]["exists"] == {"before": True, "after": False}
    assert gone["summary"]["rows_removed"] == 3
    came = await stoa.get("/tables/walks/diff", **{"from": 0, "to": first})
    assert came["changes"]["exists"] == {"before": False, "after": True}
    assert came["summary"]["rows_added"] == 2
    await stoa.request("GET", "/tables/walks/diff", expect=404, params={"from": 0, "to": 0})


async def test_differences_come_in_pages(quick: Harness) -> None:
    await quick.plain("stars", {"k": "int"})
    await quick.add("stars", *({"k": number} for number in range(2500)))
    first = await quick.head()
    await quick.patch("/tables/stars/rows", {"edits": [{"row": 2 * n + 1, "values": {"k": -1}} for n in range(1250)]})
    await quick.request("DELETE", "/tables/stars/rows", expect=200, json={"rows": [2, 2400]})
    await quick.add("stars", {"k": 7})
    seen: list[tuple[int, str]] = []
    page: dict[str, Any] = {"next": 0}
    while (after := page["next"]) is not None:
        page = await quick.get("/tables/stars/diff", **{"from": first, "after": after, "limit": 500})
        seen += [(row["row"], row["change"]) for row in page["rows"]]
    expected = [(2 * number + 1, "changed") for number in range(1250)]
    assert seen == sorted([*expected, (2, "removed"), (2400, "removed"), (2501, "added")])
    assert page["summary"] == {
        "rows_added": 1,
        "rows_removed": 2,
        "rows_changed": 1250,
        "cells_changed": 1250,
        "statuses_changed": 0,
    }


# --- cells -----------------------------------------------------------------------------------------------------------------------


async def test_the_history_of_an_input(stoa: Harness) -> None:
    await stoa.plain("targets", {"k": "int", "note": "string"})
    await stoa.add("targets", {"k": 1, "note": "a"})
    await stoa.worktable("runs", {"k": "int"}, _OUTPUTS)
    await stoa.post("/tables/runs/links", {"parent": "targets", "per": "row", "mapping": {"k": "k"}})
    await stoa.patch("/tables/targets/rows/1", {"k": 2})
    await stoa.patch("/tables/targets/rows/1", {"note": "b"})
    await stoa.request("DELETE", "/tables/targets/rows/1", expect=204)
    found = await stoa.get("/tables/targets/rows/1/cells/k/history")
    assert [(event["type"], event["previous"], event["value"], event["revision"]) for event in found["events"]] == [
        ("rows-added", None, 1, 1),
        ("row-edited", 1, 2, 2),
        ("rows-removed", 2, None, None),
    ]
    assert {event["actor"] for event in found["events"]} == {"ada"}
    derived = (await stoa.get("/tables/runs/rows/1/cells/k/history"))["events"]
    assert [(event["value"], event["cause"] and event["cause"]["kind"]) for event in derived] == [
        (1, "link"),
        (2, "upstream"),
        (None, "upstream"),
    ]


async def test_the_history_of_an_output(stoa: Harness) -> None:
    detail = await _runs(stoa)
    one = await stoa.run("runs", 1, {"y": 10})
    late = (await stoa.queue("runs", 1))[1]
    await stoa.patch("/tables/runs/rows/1", {"x": 4})
    await stoa.finish("runs", 1, late, {"y": 11}, revision=1)
    two = await stoa.run("runs", 1, {"y": 40})
    found = await stoa.get("/tables/runs/rows/1/cells/y/history")
    assert [
        (event["job"], event["previous"], event["value"], event["shown"], event["revision"])
        for event in found["events"]
    ] == [(one, None, 10, True, 1), (late, 10, 11, False, 1), (two, 10, 40, True, 2)]
    assert {event["workflow_version"] for event in found["events"]} == {detail["workflow"]["version"]}
    newest = await stoa.get("/tables/runs/rows/1/cells/y/history", limit=1)
    assert [(event["job"], event["previous"]) for event in newest["events"]] == [(two, 10)]
    older = await stoa.get("/tables/runs/rows/1/cells/y/history", limit=5, before=newest["before"])
    assert [event["job"] for event in older["events"]] == [one, late]
    assert older["before"] is None
    empty = await stoa.get("/tables/runs/rows/2/cells/y/history")
    assert empty["events"] == []


async def test_cells_that_never_were_are_refused(quick: Harness) -> None:
    await _runs(quick)
    for path in (
        "/tables/runs/rows/9/cells/x/history",
        "/tables/runs/rows/1/cells/q/history",
        "/tables/q/rows/1/cells/x/history",
    ):
        refused = await quick.request("GET", path, expect=404)
        assert refused.json()["type"] == "urn:stoa:problem:not-found"
    await quick.request("DELETE", "/tables/runs", expect=204)
    kept = await quick.get("/tables/runs/rows/1/cells/x/history")
    assert [event["value"] for event in kept["events"]] == [1]
