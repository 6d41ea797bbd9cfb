from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tests.tables.harness import Harness


async def _exposures(stoa: Harness) -> dict[str, Any]:
    """Exposures of fields, whose detections are put together by their object."""
    await stoa.worktable("exposures", {"night": "int"}, {"object": "string[]", "flux": "double[]"})
    await stoa.worktable("objects", {"object": "string?", "fluxes": "double[]", "nights": "int[]"}, {"mean": "double"})
    await stoa.add("exposures", {"night": 1}, {"night": 2})
    await stoa.run("exposures", 1, {"object": ["a", "b"], "flux": [1.0, 2.0]})
    await stoa.run("exposures", 2, {"object": ["b", "a", "b"], "flux": [3.0, 4.0, 5.0]})
    mapping = {"object": "object", "fluxes": "flux", "nights": "night"}
    body = {"parent": "exposures", "per": "group", "mapping": mapping, "keys": ["object"]}
    linked = await stoa.post("/tables/objects/links", body)
    return dict(linked["link"])


async def _groups(stoa: Harness) -> dict[Any, tuple[int, int, list[float], list[int]]]:
    return {
        row["values"]["object"]: (row["row"], row["revision"], row["values"]["fluxes"], row["values"]["nights"])
        for row in await stoa.rows("objects")
    }


async def test_a_group_holds_its_values_in_the_order_of_the_rows(stoa: Harness) -> None:
    await _exposures(stoa)
    assert await _groups(stoa) == {
        "a": (1, 1, [1.0, 4.0], [1, 2]),
        "b": (2, 1, [2.0, 3.0, 5.0], [1, 2, 2]),
    }
    assert {row["status"] for row in await stoa.rows("objects")} == {"stale"}
    # The order within an exposure counts, and another one that gives the same touches nothing.
    head = await stoa.head()
    await stoa.run("exposures", 2, {"object": ["a", "b", "b"], "flux": [4.0, 3.0, 5.0]})
    assert await stoa.log(head, "row-edited") == []
    await stoa.run("exposures", 2, {"object": ["a", "b", "b"], "flux": [4.0, 5.0, 3.0]})
    assert (await _groups(stoa))["b"] == (2, 2, [2.0, 5.0, 3.0], [1, 2, 2])
    assert (await _groups(stoa))["a"][1] == 1
    assert stoa.rebuilt()[1] == []


async def test_members_come_and_go(stoa: Harness) -> None:
    await _exposures(stoa)
    await stoa.run("exposures", 1, {"object": ["c", "b"], "flux": [1.0, 2.0]})
    assert await _groups(stoa) == {
        "a": (1, 2, [4.0], [2]),
        "b": (2, 1, [2.0, 3.0, 5.0], [1, 2, 2]),
        "c": (3, 1, [1.0], [1]),
    }
    head = await stoa.head()
    await stoa.request("DELETE", "/tables/exposures/rows/2", expect=204)
    assert await _groups(stoa) == {"b": (2, 2, [2.0], [1]), "c": (3, 1, [1.0], [1])}
    members = (await stoa.log(head, "group-members-changed"))[0].data["members"]
    assert members == [{"row": 2, "element": number, "key": None} for number in range(3)]
    # An input changes the arrays that it stands in.
    await stoa.patch("/tables/exposures/rows/1", {"night": 9})
    assert (await _groups(stoa))["b"] == (2, 3, [2.0], [9])
    assert stoa.rebuilt()[1] == []


async def test_a_group_tells_from_what_it_is_made(stoa: Harness) -> None:
    await _exposures(stoa)
    exposures = (await stoa.get("/tables/exposures"))["id"]
    row = await stoa.get("/tables/objects/rows/2")
    assert row["derived_from"]["sources"] == []
    told = await stoa.get("/tables/objects/rows/2/sources", limit=2)
    assert told["sources"] == [
        {"table": exposures, "row": 1, "element": 1},
        {"table": exposures, "row": 2, "element": 0},
    ]
    assert (told["total"], told["next"]) == (3, 2)
    rest = await stoa.get("/tables/objects/rows/2/sources", limit=2, offset=2)
    assert (rest["sources"], rest["next"]) == ([{"table": exposures, "row": 2, "element": 2}], None)
    history = (await stoa.get("/tables/objects/rows/2/history"))["events"]
    assert history[0]["summary"] == "Derived from a group of rows"


async def test_rows_of_a_plain_table_are_grouped(stoa: Harness) -> None:
    await stoa.plain("detections", {"object": "string?", "band": "double", "flux": "double?"})
    await stoa.worktable("spectra", {"object": "string?", "band": "int", "fluxes": "double[]"}, {"slope": "double"})
    rows = [("a", 1.0, 5.0), (None, 1.0, 6.0), ("a", 2.0, 7.0), ("a", 1.0, 8.0), (None, 1.0, 9.0)]
    await stoa.add("detections", *({"object": name, "band": band, "flux": flux} for name, band, flux in rows))
    body = {
        "parent": "detections",
        "per": "group",
        "mapping": {"object": "object", "band": "band", "fluxes": "flux"},
        "keys": ["object", "band"],
        "filter": "flux!=7",
    }
    await stoa.post("/tables/spectra/links", body)
    shown = ("object", "band", "fluxes")
    # What is missing is a group, too: it shows what has no key. 1.0 is the band 1.
    assert await stoa.values("spectra", *shown) == [("a", 1, [5.0, 8.0]), (None, 1, [6.0, 9.0])]
    # A value that the array does not take leaves the cell empty, and the row says why.
    await stoa.patch("/tables/detections/rows/4", {"flux": None})
    row = (await stoa.rows("spectra"))[0]
    assert row["values"]["fluxes"] is None
    assert "fluxes" in row["reason"]
    await stoa.patch("/tables/detections/rows/4", {"flux": 7})
    assert await stoa.values("spectra", *shown) == [("a", 1, [5.0]), (None, 1, [6.0, 9.0])]
    assert stoa.rebuilt()[1] == []


async def test_a_group_is_corrected_and_its_link_is_changed(stoa: Harness) -> None:
    link = await _exposures(stoa)
    await stoa.patch("/tables/objects/rows/1", {"fluxes": [0.5]})
    await stoa.run("exposures", 1, {"object": ["a", "b"], "flux": [1.5, 2.0]})
    assert (await _groups(stoa))["a"] == (1, 2, [0.5], [1, 2])
    assert (await stoa.get("/tables/objects/corrections", review=True))["total"] == 1
    path = f"/tables/objects/links/{link['link']}"
    await stoa.patch(path, {"filter": "night=2"})
    assert {name: entry[3] for name, entry in (await _groups(stoa)).items()} == {"a": [2], "b": [2, 2]}
    await stoa.post("/tables/objects/corrections/reset", {"rows": [1]}, expect=200)
    assert (await _groups(stoa))["a"][2] == [4.0]
    # Groups of other columns are other groups, and rows that hold the same key stay.
    await stoa.patch(path, {"filter": None, "mapping": {"object": "object", "fluxes": "flux"}})
    assert {name: entry[0] for name, entry in (await _groups(stoa)).items()} == {"a": 1, "b": 2}
    told = (await stoa.request("DELETE", f"{path}?rows=stay", expect=200)).json()
    assert told["affected"] == 2
    index = stoa.context.events.tables["join_index"]
    assert await stoa.context.database.read(lambda connection: connection.execute(sa.select(index)).all()) == []
    assert stoa.rebuilt()[1] == []


async def test_a_workflow_has_to_keep_the_arrays_of_a_group(quick: Harness) -> None:
    from tests.tables.harness import tool

    await _exposures(quick)
    inputs = {"object": "string?", "fluxes": "double", "nights": "int[]"}
    files = [("files", ("main.cwl", tool(inputs, {"mean": "double"})))]
    problem = (await quick.request("PUT", "/tables/objects/workflow", expect=409, files=files)).json()
    assert "'fluxes' of objects takes no array" in problem["detail"]


async def test_a_group_that_is_too_large_for_a_cell_says_so(quick: Harness) -> None:
    await quick.plain("texts", {"k": "int", "text": "string"})
    await quick.worktable("books", {"k": "int", "texts": "string[]"}, {"n": "int"})
    await quick.add("texts", *({"k": 1, "text": "x" * 100_000} for _ in range(5)))
    body = {"parent": "texts", "per": "group", "mapping": {"k": "k", "texts": "text"}, "keys": ["k"]}
    await quick.post("/tables/books/links", body)
    row = (await quick.rows("books"))[0]
    assert row["values"]["texts"] is None
    assert "the 5 values of the group have more than" in row["reason"]


async def test_a_member_of_a_large_group_costs_no_other_group(quick: Harness) -> None:
    await quick.plain("points", {"k": "int", "v": "int"})
    await quick.worktable("sums", {"k": "int", "vs": "int[]"}, {"sum": "int"})
    await quick.add("points", *({"k": int(number >= 3000), "v": number} for number in range(3300)))
    body = {"parent": "points", "per": "group", "mapping": {"k": "k", "vs": "v"}, "keys": ["k"]}
    await quick.post("/tables/sums/links", body)
    read: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "FROM row" in statement.replace('"', ""):
            read.append(str(len(parameters)))

    head = await quick.head()
    engine = quick.context.database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    await quick.patch("/tables/points/rows/3001", {"v": -1})
    sa.event.remove(engine, "before_cursor_execute", note)
    edited = (await quick.log(head, "row-edited"))[-1].data["rows"]
    assert [row["row"] for row in edited] == [2]
    assert edited[0]["changes"]["vs"][0] == -1
    # Among what was read is the group of 300, and nothing of the other one of 3,000.
    assert 300 <= max(map(int, read)) < 1000
    assert await quick.log(head, "group-members-changed") == []


async def test_a_group_waits_until_all_its_members_are_settled(stoa: Harness) -> None:
    await _exposures(stoa)
    await stoa.run("objects", 1, {"mean": 2.5})
    await stoa.run("objects", 2, {"mean": 3.0})
    assert (await stoa.get("/tables/objects"))["counts"] == {"current": 2}
    await stoa.add("exposures", {"night": 3})
    await stoa.run("exposures", 3, {"object": ["b"], "flux": [9.0]})
    await stoa.run("objects", 2, {"mean": 4.0})
    # Only b has the third exposure.
    await stoa.patch("/tables/exposures/rows/3", {"night": 4})
    statuses = {row["values"]["object"]: row["status"] for row in await stoa.rows("objects")}
    assert statuses == {"a": "current", "b": "stale"}
    await stoa.patch("/tables/exposures/rows/3", {"night": 3})
    assert (await stoa.get("/tables/objects"))["counts"] == {"current": 2}
    # Two members of a are unsettled, and both have to be settled.
    await stoa.queue("exposures", 1, 2)
    assert (await stoa.get("/tables/objects"))["counts"] == {"stale": 2}
    await stoa.run("exposures", 1, {"object": ["a", "b"], "flux": [1.0, 2.0]})
    assert (await stoa.get("/tables/objects"))["counts"] == {"stale": 2}
    await stoa.run("exposures", 2, {"object": ["b", "a", "b"], "flux": [3.0, 4.0, 5.0]})
    assert (await stoa.get("/tables/objects"))["counts"] == {"current": 2}
    # What leaves a group is none of its business any more.
    await stoa.queue("exposures", 3)
    assert (await stoa.get("/tables/objects"))["counts"] == {"current": 1, "stale": 1}
    await stoa.request("DELETE", "/tables/exposures/rows/3", expect=204)
    assert stoa.rebuilt()[1] == []
