"""What decides beside the inputs: changed files, and what people say of rows."""

from __future__ import annotations

from typing import Any

from stoa_contracts.canonical import digest
from stoa_contracts.events.executor import FileChanged
from tests.tables.harness import Harness

_PLACE = "file:///data/a.fits"
_OLD, _NEW = digest("old"), digest("new")
_IN: dict[str, Any] = {"x": "int", "f": "File?"}
_OUT = {"y": "int"}


async def _file_holds(stoa: Harness, sha256: str | None, previous: str = _OLD, place: str = _PLACE) -> None:
    event = FileChanged(location=place, previous=previous, sha256=sha256, size=None if sha256 is None else 4)
    await stoa.tell("executor", "files", event)


async def _chain(stoa: Harness) -> None:
    """Make t with three rows, of which the first two read a file, and below it u; all of it current."""
    await stoa.worktable("t", _IN, _OUT)
    await stoa.worktable("u", {"x": "int"}, _OUT)
    await stoa.post("/tables/u/links", {"parent": "t", "per": "row", "mapping": {"x": "y"}})
    read = {"class": "File", "location": _PLACE}
    await stoa.add("t", {"x": 1, "f": read}, {"x": 2, "f": read}, {"x": 3})
    for row in (1, 2, 3):
        await stoa.run("t", row, {"y": row}, files={} if row == 3 else {_PLACE: _OLD})
        await stoa.run("u", row, {"y": row})


async def _statuses(stoa: Harness, table: str) -> list[str]:
    return [row["status"] for row in await stoa.rows(table)]


async def test_a_changed_file_makes_the_rows_stale_that_were_made_from_it(stoa: Harness) -> None:
    await _chain(stoa)
    head = await stoa.head()
    await _file_holds(stoa, _NEW)
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["stale", "stale", "current"]
    row = await stoa.get("/tables/t/rows/1")
    assert (row["outdated"], row["suspected"]) == (True, False)
    event = (await stoa.log(head, "table-invalidated"))[0]
    assert (event.data["cause"]["kind"], event.data["rows"], event.data["suspected"]) == ("file", [1, 2], False)
    assert event.data["file"] == {"location": _PLACE, "sha256": _NEW, "size": 4}
    history = (await stoa.get("/tables/t/rows/1/history"))["events"]
    assert history[-1]["summary"] == f"Stale, because {_PLACE} holds something else"
    # Another one, which nobody read.
    head = await stoa.head()
    await _file_holds(stoa, _NEW, place="file:///data/b.fits")
    assert await stoa.head() == head
    # A run takes what the file holds now, and then its old content is another one.
    await stoa.run("t", 1, {"y": 1}, files={_PLACE: _NEW})
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["current", "stale", "current"]
    await _file_holds(stoa, _OLD, _NEW)
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["stale", "current", "current"]
    assert stoa.rebuilt()[1] == []


async def test_a_file_that_is_gone_and_comes_back(stoa: Harness) -> None:
    await _chain(stoa)
    await _file_holds(stoa, None)
    assert await _statuses(stoa, "t") == ["stale", "stale", "current"]
    # An edit takes nothing back that the file has changed.
    await stoa.patch("/tables/t/rows/1", {"x": 9})
    assert (await stoa.patch("/tables/t/rows/1", {"x": 1}))["status"] == "stale"
    await stoa.patch("/tables/t/rows/2", {"x": 9})
    await _file_holds(stoa, _OLD, _NEW)
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["current", "stale", "current"]
    assert (await stoa.patch("/tables/t/rows/2", {"x": 2}))["status"] == "current"
    assert await _statuses(stoa, "u") == ["current", "current", "current"]
    assert stoa.rebuilt()[1] == []


async def test_accepted_rows_are_current_until_something_changes(stoa: Harness) -> None:
    await _chain(stoa)
    await stoa.patch("/tables/t/rows/1", {"x": 9})
    assert await _statuses(stoa, "u") == ["stale", "current", "current"]
    body = {"rows": [1], "reason": "It makes no difference."}
    answer = await stoa.post("/tables/t/accept", body, expect=200)
    assert (answer["rows"], answer["suspected"]) == ([1], [])
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["current", "current", "current"]
    row = await stoa.get("/tables/t/rows/1")
    assert (row["outdated"], row["values"]["y"]) == (False, 1)
    assert (await stoa.get("/tables/t/rows/1/history"))["events"][-1]["details"]["reason"] == body["reason"]
    # The next change counts again: other inputs, and those of the run, too.
    assert (await stoa.patch("/tables/t/rows/1", {"x": 8}))["status"] == "stale"
    assert (await stoa.patch("/tables/t/rows/1", {"x": 9}))["status"] == "stale"
    assert (await stoa.patch("/tables/t/rows/1", {"x": 1}))["status"] == "current"
    # All that are stale at once, for another workflow and for a file.
    await stoa.change_workflow("t", _IN, _OUT, label="Another log")
    await _file_holds(stoa, _NEW)
    answer = await stoa.post("/tables/t/accept", {"reason": "Only the log."}, expect=200)
    assert answer["rows"] == [1, 2, 3]
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["current", "current", "current"]
    await _file_holds(stoa, digest("newer"), _NEW)
    assert await _statuses(stoa, "t") == ["stale", "stale", "current"]
    assert stoa.rebuilt()[1] == []


async def test_an_accepted_row_that_is_suspected_is_current_when_what_is_above_is_settled(stoa: Harness) -> None:
    await _chain(stoa)
    await stoa.change_workflow("u", {"x": "int"}, _OUT, label="Newer")
    await stoa.patch("/tables/t/rows/1", {"x": 9})
    answer = await stoa.post("/tables/u/accept", {"reason": "Only the label."}, expect=200)
    assert (answer["rows"], answer["suspected"]) == ([1, 2, 3], [1])
    assert await _statuses(stoa, "u") == ["stale", "current", "current"]
    await stoa.run("t", 1, {"y": 1})
    assert await _statuses(stoa, "u") == ["current", "current", "current"]


async def test_what_cannot_be_accepted_is_refused(quick: Harness) -> None:
    await _chain(quick)
    await quick.add("t", {"x": 4})
    await quick.plain("p", {"x": "int"})
    problem = await quick.post("/tables/t/accept", {"rows": [4], "reason": "So."}, expect=409)
    assert "Row 4 of t has no outputs" in problem["detail"]
    assert "nothing to accept" in (await quick.post("/tables/t/accept", {"reason": "So."}, expect=409))["detail"]
    await quick.post("/tables/t/accept", {"rows": [77], "reason": "So."}, expect=404)
    await quick.post("/tables/t/accept", {"rows": [1]}, expect=422)
    await quick.post("/tables/t/accept", {"rows": [1], "reason": ""}, expect=422)
    assert "plain table" in (await quick.post("/tables/p/accept", {"reason": "So."}, expect=409))["detail"]
    await quick.queue("t", 1)
    problem = await quick.post("/tables/t/accept", {"rows": [1], "reason": "So."}, expect=409)
    assert "queued" in problem["detail"]


async def test_pinned_rows_stay_with_their_version(stoa: Harness) -> None:
    await _chain(stoa)
    first = (await stoa.get("/tables/t"))["workflow"]["version"]
    answer = await stoa.post("/tables/t/pin", {"rows": [1, 2], "version": "1"}, expect=200)
    assert (answer["rows"], answer["workflow_version"]) == ([1, 2], first)
    await stoa.change_workflow("t", _IN, _OUT, label="Newer")
    assert await _statuses(stoa, "t") == await _statuses(stoa, "u") == ["current", "current", "stale"]
    assert (await stoa.get("/tables/t/rows/1"))["pinned"] == first
    # A job of the pinned version belongs to its row, and one of the table's version does not.
    await stoa.patch("/tables/t/rows/1", {"x": 9})
    await stoa.finish("t", 1, "0190c0de-0000-7000-8000-00000000000a", {"y": 5})
    assert await stoa.status("t") == "stale"
    await stoa.finish("t", 1, "ffffffff-0000-7000-8000-00000000000b", {"y": 5}, version=first)
    assert await stoa.status("t") == "current"
    head = await stoa.head()
    await stoa.post("/tables/t/pin", {"rows": [2], "version": None}, expect=200)
    assert await _statuses(stoa, "t") == ["current", "stale", "stale"]
    assert await _statuses(stoa, "u") == ["stale", "stale", "stale"]
    await stoa.post("/tables/t/pin", {"rows": [2, 3], "version": first[:12]}, expect=200)
    assert await _statuses(stoa, "t") == ["current", "current", "current"]
    told = [(event.name, event.data["rows"]) for event in await stoa.log(head)]
    assert ("rows-pinned", [2]) in told
    assert ("table-invalidated", [2]) in told
    assert ("rows-confirmed", [2, 3]) in told
    await stoa.post("/tables/t/pin", {"rows": [1], "version": "9"}, expect=404)
    await stoa.post("/tables/t/pin", {"rows": [77], "version": "1"}, expect=404)
    assert stoa.rebuilt()[1] == []


async def test_a_pin_lets_go_of_a_job_of_another_version(quick: Harness) -> None:
    await _chain(quick)
    await quick.change_workflow("t", _IN, _OUT, label="Newer")
    job = (await quick.queue("t", 1))[1]
    await quick.start("t", 1, job)
    await quick.post("/tables/t/pin", {"rows": [1], "version": "1"}, expect=200)
    assert await quick.status("t") == "current"
    await quick.finish("t", 1, job, {"y": 77})
    assert (await quick.get("/tables/t/rows/1"))["values"]["y"] == 1
    assert quick.rebuilt()[1] == []


async def test_elements_are_known_by_a_column(stoa: Harness) -> None:
    await stoa.worktable("find", {"image": "string"}, {"id": "int[]", "flux": "double[]", "n": "int"})
    await stoa.worktable("fit", {"flux": "double"}, {"y": "int"})
    await stoa.add("find", {"image": "a"})
    await stoa.run("find", 1, {"id": [1, 2, 3], "flux": [10.0, 20.0, 30.0], "n": 3})
    await stoa.post("/tables/fit/links", {"parent": "find", "per": "element", "mapping": {"flux": "flux"}})
    for row in (1, 2, 3):
        await stoa.run("fit", row, {"y": row})
    head = await stoa.head()
    detail = (await stoa.request("PUT", "/tables/find/element-key", expect=200, json={"column": "id"})).json()
    assert detail["element_key"] == "id"
    assert [event.name for event in await stoa.log(head)] == ["sources-moved", "element-key-set"]
    # Another order, one that is gone, one that is new, and one of which a value changed.
    await stoa.run("find", 1, {"id": [3, 4, 1], "flux": [30.0, 40.0, 11.0], "n": 3})
    rows = {row["row"]: (row["values"]["flux"], row["revision"], row["status"]) for row in await stoa.rows("fit")}
    assert rows == {1: (11.0, 2, "stale"), 3: (30.0, 1, "current"), 4: (40.0, 1, "stale")}
    head = await stoa.head()
    await stoa.request("PUT", "/tables/find/element-key", expect=200, json={"column": "id"})
    assert await stoa.head() == head
    await stoa.request("PUT", "/tables/find/element-key", expect=200, json={"column": None})
    await stoa.run("find", 1, {"id": [3, 4, 1], "flux": [30.0, 40.0, 12.0], "n": 3})
    assert [(row["row"], row["values"]["flux"]) for row in await stoa.rows("fit")] == [(3, 30.0), (4, 40.0), (5, 12.0)]
    for column in ("n", "image", "nothing"):
        problem = (await stoa.request("PUT", "/tables/find/element-key", expect=422, json={"column": column})).json()
        assert "there are id, flux" in problem["detail"]
    assert stoa.rebuilt()[1] == []
