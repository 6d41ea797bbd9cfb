from __future__ import annotations

from typing import Any

import pytest

from tests.tables.harness import Harness


async def _observations(stoa: Harness) -> dict[str, Any]:
    """Images of objects, from which cutouts are derived, one per element, keyed on the object."""
    await stoa.worktable("images", {"field": "string"}, {"object": "string[]", "snr": "double[]", "band": "int[]"})
    await stoa.worktable("cutouts", {"object": "string", "snr": "double?", "note": "string?"}, {"flux": "double"})
    await stoa.add("images", {"field": "f"}, {"field": "g"})
    await stoa.run("images", 1, {"object": ["a", "b", "c"], "snr": [3.0, 6.0, 9.0], "band": [1, 2, 3]})
    await stoa.run("images", 2, {"object": ["d"], "snr": [12.0], "band": [4]})
    mapping = {"object": "object", "snr": "snr"}
    body = {"parent": "images", "mapping": mapping, "keys": ["object"]}
    linked = await stoa.post("/tables/cutouts/links", body)
    return dict(linked["link"])


async def _cutouts(stoa: Harness) -> dict[str, tuple[int, int, Any]]:
    found = await stoa.rows("cutouts")
    return {row["values"]["object"]: (row["row"], row["revision"], row["values"]["snr"]) for row in found}


async def _change(stoa: Harness, link: dict[str, Any], *, expect: int = 200, **changes: Any) -> Any:
    return await stoa.patch(f"/tables/cutouts/links/{link['link']}", changes, expect=expect)


# --- filters -----------------------------------------------------------------------------------------------------------


async def test_only_what_the_filter_holds_for_gives_rows(stoa: Harness) -> None:
    await _observations(stoa)
    await stoa.worktable("bright", {"object": "string"}, {"flux": "double"})
    link = {"parent": "images", "mapping": {"object": "object"}, "filter": "snr>5 and not (object=b or field=g)"}
    await stoa.post("/tables/bright/links", link)
    assert await stoa.values("bright", "object") == [("c",)]
    await stoa.run("images", 1, {"object": ["a", "b", "c"], "snr": [13.0, 6.0, 9.0], "band": [1, 2, 3]})
    assert await stoa.values("bright", "object") == [("c",), ("a",)]
    await stoa.run("images", 1, {"object": ["a", "b", "c"], "snr": [13.0, 6.0, 1.0], "band": [1, 2, 3]})
    assert await stoa.values("bright", "object") == [("a",)]
    # Inputs alone are filtered before the parent has run, and a filter over outputs waits for them.
    await stoa.worktable("fields", {"field": "string"}, {"o": "int"})
    await stoa.add("images", {"field": "h"})
    await stoa.post(
        "/tables/fields/links", {"parent": "images", "per": "row", "mapping": {"field": "field"}, "filter": "field!=f"}
    )
    assert await stoa.values("fields", "field") == [("g",), ("h",)]
    await stoa.patch("/tables/images/rows/1", {"field": "z"})
    assert await stoa.values("fields", "field") == [("g",), ("h",), ("z",)]
    assert stoa.rebuilt()[1] == []


async def test_a_filter_that_cannot_be_read_is_refused_with_its_place(quick: Harness) -> None:
    link = await _observations(quick)
    body = {"parent": "images", "mapping": {"object": "object"}, "filter": "snr>5 and flix<1"}
    problem = await quick.post("/tables/cutouts/links", body, expect=422)
    assert problem["type"] == "urn:stoa:problem:invalid-filter"
    assert "at character 11, before 'flix<1': there is no column 'flix'" in problem["detail"]
    assert problem["character"] == 11
    assert (await _change(quick, link, expect=422, filter="snr>>5"))["character"] == 5


async def test_a_workflow_has_to_keep_what_a_filter_needs(quick: Harness) -> None:
    from tests.tables.harness import tool

    link = await _observations(quick)
    await _change(quick, link, filter="band>1")
    files = [("files", ("main.cwl", tool({"field": "string"}, {"object": "string[]", "snr": "double[]"})))]
    problem = (await quick.request("PUT", "/tables/images/workflow", expect=409, files=files)).json()
    assert "no column 'band', from which cutouts is filled" in problem["detail"]
    outputs = {"object": "string[]", "snr": "double[]", "band": "string[]"}
    files = [("files", ("main.cwl", tool({"field": "string"}, outputs)))]
    await quick.request("PUT", "/tables/images/workflow", expect=200, files=files)
    await _change(quick, link, filter="band>1")
    outputs["band"] = "File[]"
    files = [("files", ("main.cwl", tool({"field": "string"}, outputs)))]
    problem = (await quick.request("PUT", "/tables/images/workflow", expect=409, files=files)).json()
    assert "does not fit the link that fills cutouts" in problem["detail"]


# --- changes -----------------------------------------------------------------------------------------------------------


async def test_a_changed_mapping_edits_the_cells_that_become_others(stoa: Harness) -> None:
    link = await _observations(stoa)
    before = await _cutouts(stoa)
    await stoa.patch("/tables/cutouts/rows/1", {"note": "mine"})
    head = await stoa.head()
    changed = await _change(stoa, link, mapping={"object": "object", "snr": "band"})
    assert changed["link"] == {**link, "mapping": {"object": "object", "snr": "band"}}
    event = (await stoa.log(head, "link-changed"))[0]
    assert (event.data["previous"], event.data["link"]) == (link, changed["link"])
    after = await _cutouts(stoa)
    assert {name: entry[0] for name, entry in after.items()} == {name: entry[0] for name, entry in before.items()}
    assert {name: entry[2] for name, entry in after.items()} == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert (await stoa.get("/tables/cutouts/rows/1"))["values"]["note"] == "mine"
    causes = [envelope.data["cause"]["kind"] for envelope in await stoa.log(head, "row-edited")]
    assert set(causes) == {"link"}
    # The new mapping is followed from now on, and the old one is not.
    await stoa.run("images", 2, {"object": ["d"], "snr": [1.0], "band": [5]})
    assert (await _cutouts(stoa))["d"][2] == 5.0
    assert stoa.rebuilt()[1] == []


async def test_what_is_no_longer_filled_stays_as_an_ordinary_value(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.patch("/tables/cutouts/rows/1", {"snr": 100})
    await stoa.patch("/tables/cutouts/rows/2", {"object": "B"})
    before = await stoa.rows("cutouts")
    head = await stoa.head()
    await _change(stoa, link, mapping={"object": "object"})
    assert {envelope.name for envelope in await stoa.log(head)} == {"link-changed"}
    after = await stoa.rows("cutouts")
    assert [row["values"] for row in after] == [row["values"] for row in before]
    assert [list(row["derived_from"]["corrected"]) for row in after] == [[], ["object"], [], []]
    await stoa.patch("/tables/cutouts/rows/3", {"snr": 50})
    assert (await stoa.get("/tables/cutouts/rows/3"))["derived_from"]["corrected"] == {}
    # Filled again, the cells hold what is derived.
    await _change(stoa, link, mapping={"object": "object", "snr": "snr"})
    assert [row["values"]["snr"] for row in await stoa.rows("cutouts")] == [3.0, 6.0, 9.0, 12.0]
    assert (await stoa.get("/tables/cutouts/rows/2"))["values"]["object"] == "B"
    assert stoa.rebuilt()[1] == []


async def test_rows_keep_their_ids_where_other_columns_are_the_key(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.run("cutouts", 1, {"flux": 1.0})
    before = await _cutouts(stoa)
    head = await stoa.head()
    assert (await _change(stoa, link, keys=["object", "snr"]))["link"]["keys"] == ["object", "snr"]
    assert {envelope.name for envelope in await stoa.log(head)} == {"link-changed", "sources-moved"}
    assert await _cutouts(stoa) == before
    assert (await stoa.get("/tables/cutouts/rows/1"))["status"] == "current"
    # The key comes from another column: the same elements give the same rows.
    await _change(stoa, link, mapping={"object": "band", "snr": "snr"}, expect=200)
    rows = await stoa.rows("cutouts")
    assert [row["row"] for row in rows] == [1, 2, 3, 4]
    assert stoa.rebuilt()[1] == []


async def test_a_changed_filter_adds_and_removes_what_it_says(stoa: Harness) -> None:
    link = await _observations(stoa)
    before = await _cutouts(stoa)
    await _change(stoa, link, filter="snr>5")
    assert await _cutouts(stoa) == {name: before[name] for name in "bcd"}
    await _change(stoa, link, filter="snr<10")
    assert await _cutouts(stoa) == {"b": before["b"], "c": before["c"], "a": (5, 1, 3.0)}
    changed = await _change(stoa, link, filter=None)
    assert changed["link"]["filter"] is None
    assert set(await _cutouts(stoa)) == set("abcd")
    assert stoa.rebuilt()[1] == []


async def test_corrections_survive_a_change_of_the_link(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.patch("/tables/cutouts/rows/1?reason=Wrong", {"snr": 100})
    await _change(stoa, link, keys=["object", "snr"])
    await _change(stoa, link, mapping={"object": "object", "snr": "band"})
    row = await stoa.get("/tables/cutouts/rows/1")
    assert row["values"]["snr"] == 100
    correction = row["derived_from"]["corrected"]["snr"]
    assert (correction["derived"], correction["seen"], correction["review"], correction["reason"]) == (
        1.0,
        3.0,
        True,
        "Wrong",
    )
    assert stoa.rebuilt()[1] == []


async def test_rows_per_element_become_rows_per_row_and_per_group(stoa: Harness) -> None:
    link = await _observations(stoa)
    await _change(stoa, link, per="row", keys=[], mapping={"object": "field"})
    assert await stoa.values("cutouts", "object") == [("f",), ("g",)]
    assert [row["row"] for row in await stoa.rows("cutouts")] == [1, 4]
    await _change(stoa, link, per="group", keys=["object"], mapping={"object": "object"})
    assert sorted(await stoa.values("cutouts", "object")) == [("a",), ("b",), ("c",), ("d",)]
    await _change(stoa, link, per="element", mapping={"object": "object", "snr": "snr"})
    assert {name: entry[2] for name, entry in (await _cutouts(stoa)).items()} == {
        "a": 3.0,
        "b": 6.0,
        "c": 9.0,
        "d": 12.0,
    }
    await stoa.run("images", 2, {"object": ["e"], "snr": [12.0], "band": [4]})
    assert set(await _cutouts(stoa)) == set("abce")
    assert stoa.rebuilt()[1] == []


async def test_a_change_that_changes_nothing_is_none(quick: Harness) -> None:
    link = await _observations(quick)
    head = await quick.head()
    assert (await _change(quick, link, mapping=link["mapping"]))["link"] == link
    assert await quick.head() == head


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"mapping": {"nothing": "snr"}}, 422, "no column 'nothing'"),
        ({"mapping": {"snr": "snr"}}, 422, "key 'object'"),
        ({"mapping": {"object": "objekt"}}, 422, "did you mean 'object'"),
        ({"mapping": {}}, 422, "mapping"),
        ({"keys": ["note"]}, 422, "key 'note'"),
        ({"per": "group"}, 422, "takes no array"),
        ({"per": "group", "keys": []}, 422, "need keys"),
        ({"on": [["snr", "snr"]]}, 422, "no 'on'"),
        ({}, 422, "Nothing is to change"),
        ({"parent": "images"}, 422, "parent"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(quick: Harness, changes: Any, status: int, words: str) -> None:
    link = await _observations(quick)
    head = await quick.head()
    problem = await _change(quick, link, expect=status, **changes)
    assert words in problem["detail"]
    assert await quick.head() == head
    other = await quick.patch("/tables/cutouts/links/none", {"filter": None}, expect=404)
    assert "not filled through a link 'none'" in other["detail"]


async def _catalogue(stoa: Harness) -> Any:
    await stoa.plain("fluxes", {"object": "string", "band": "int", "flux": "double"})
    await stoa.plain("places", {"object": "string", "band": "int", "ra": "double"})
    await stoa.add("fluxes", *({"object": name, "band": band, "flux": 1.0} for name in "ab" for band in (1, 2)))
    await stoa.add("places", *({"object": name, "band": 1, "ra": 5.0} for name in "ac"))
    return await stoa.join("catalogue", "fluxes", "places", [("object", "object")])


async def test_a_join_is_changed(stoa: Harness) -> None:
    catalogue = await _catalogue(stoa)
    link = catalogue["links"][0]
    path = f"/tables/catalogue/links/{link['link']}"
    assert list(link["mapping"]) == ["object", "band", "flux", "places_band", "ra"]
    assert await stoa.values("catalogue", "object", "band") == [("a", 1), ("a", 2)]
    await stoa.patch(path, {"on": [["object", "object"], ["band", "band"]]})
    assert [row["row"] for row in await stoa.rows("catalogue")] == [1]
    await stoa.patch(path, {"kind": "left"})
    assert len(await stoa.rows("catalogue")) == 4
    await stoa.patch("/tables/places/rows/2", {"object": "b", "band": 2})
    found = await stoa.values("catalogue", "object", "band", "ra")
    assert sorted(found) == [("a", 1, 5.0), ("a", 2, None), ("b", 1, None), ("b", 2, 5.0)]
    await stoa.patch("/tables/catalogue/columns/ra", {"description": "Right ascension"})
    await stoa.patch(path, {"columns": {"ra": "1.ra", "name": "0.object"}})
    detail = await stoa.get("/tables/catalogue")
    assert [column["name"] for column in detail["columns"]] == ["ra", "name"]
    assert detail["columns"][0]["description"] == "Right ascension"
    assert sorted(await stoa.values("catalogue", "name", "ra"), key=str) == [
        ("a", 5.0),
        ("a", None),
        ("b", 5.0),
        ("b", None),
    ]
    await stoa.worktable("plots", {"ra": "double?"}, {"plot": "string"})
    await stoa.post("/tables/plots/links", {"parent": "catalogue", "per": "row", "mapping": {"ra": "ra"}})
    problem = await stoa.patch(path, {"columns": {"name": "0.object"}}, expect=409)
    assert "cannot lose its column 'ra', because plots is filled from it" in problem["detail"]
    problem = await stoa.patch(path, {"keys": ["ra"]}, expect=422)
    assert "no 'keys'" in problem["detail"]
    assert stoa.rebuilt()[1] == []


# --- several parents ---------------------------------------------------------------------------------------------------


async def test_each_of_several_links_has_rows_of_its_own(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.plain("extra", {"name": "string", "snr": "double"})
    await stoa.add("extra", {"name": "a", "snr": 1.0}, {"name": "z", "snr": 2.0})
    mapping = {"object": "name", "snr": "snr"}
    other = await stoa.post("/tables/cutouts/links", {"parent": "extra", "per": "row", "mapping": mapping})
    assert await stoa.values("cutouts", "object", "snr") == [
        ("a", 3.0), ("b", 6.0), ("c", 9.0), ("d", 12.0), ("a", 1.0), ("z", 2.0)
    ]  # fmt: skip
    head = await stoa.head()
    await stoa.patch("/tables/extra/rows/1", {"snr": 1.5})
    assert [row["row"] for row in (await stoa.log(head, "row-edited"))[-1].data["rows"]] == [5]
    await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}?rows=go", expect=200)
    assert await stoa.values("cutouts", "object", "snr") == [("a", 1.5), ("z", 2.0)]
    assert [found["link"] for found in (await stoa.get("/tables/cutouts"))["links"]] == [other["link"]["link"]]
    assert stoa.rebuilt()[1] == []


# --- unlink ------------------------------------------------------------------------------------------------------------


async def test_rows_stay_as_ordinary_rows(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.patch("/tables/cutouts/rows/1", {"snr": 100})
    await stoa.worktable("plots", {"snr": "double?"}, {"plot": "string"})
    await stoa.post("/tables/plots/links", {"parent": "cutouts", "per": "row", "mapping": {"snr": "snr"}})
    before = await stoa.rows("cutouts")
    told = (await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}?rows=stay", expect=200)).json()
    assert (told["affected"], told["rows"], told["link"]) == (4, "stay", link)
    after = await stoa.rows("cutouts")
    assert [row["values"] for row in after] == [row["values"] for row in before]
    assert {row["derived_from"] for row in after} == {None}
    assert (await stoa.get("/tables/cutouts"))["links"] == []
    assert (await stoa.get("/tables/cutouts/corrections"))["total"] == 0
    # They are nobody's but their own now.
    await stoa.run("images", 1, {"object": [], "snr": [], "band": []})
    assert len(await stoa.rows("cutouts")) == 4
    await stoa.request("DELETE", "/tables/cutouts/rows/2", expect=204)
    assert await stoa.add("cutouts", {"object": "new"}) == [5]
    assert await stoa.values("plots", "snr") == [(100.0,), (9.0,), (12.0,), (None,)]
    history = (await stoa.get("/tables/cutouts/rows/1/history"))["events"]
    assert "The table is no longer filled from images" in {event["summary"] for event in history}
    await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}?rows=stay", expect=404)
    assert stoa.rebuilt()[1] == []


async def test_rows_go_and_what_depends_on_them(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.worktable("plots", {"snr": "double?"}, {"plot": "string"})
    await stoa.post("/tables/plots/links", {"parent": "cutouts", "per": "row", "mapping": {"snr": "snr"}})
    await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}", expect=422)
    told = (await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}?rows=go", expect=200)).json()
    assert told["affected"] == 4
    assert await stoa.rows("cutouts") == []
    assert await stoa.rows("plots") == []
    # The images may depend on the cutouts now.
    await stoa.post("/tables/images/links", {"parent": "cutouts", "per": "row", "mapping": {"field": "object"}})
    assert stoa.rebuilt()[1] == []


async def test_locked_rows_neither_go_nor_follow(stoa: Harness) -> None:
    link = await _observations(stoa)
    await stoa.post("/tables/cutouts/locks", {"rows": [1], "locked": True}, expect=200)
    problem = (await stoa.request("DELETE", f"/tables/cutouts/links/{link['link']}?rows=go", expect=423)).json()
    assert "cannot be removed" in problem["detail"]
    problem = (await stoa.request("DELETE", "/tables/images?children=delete", expect=423)).json()
    assert "Row 1 of cutouts was locked" in problem["detail"]
    await _change(stoa, link, mapping={"object": "object", "snr": "band"})
    assert await stoa.values("cutouts", "snr") == [(3.0,), (2.0,), (3.0,), (4.0,)]
    assert stoa.rebuilt()[1] == []


async def test_a_join_that_is_unlinked_is_a_plain_table(stoa: Harness) -> None:
    catalogue = await _catalogue(stoa)
    before = await stoa.values("catalogue", "object", "band", "ra")
    await stoa.request("DELETE", f"/tables/catalogue/links/{catalogue['links'][0]['link']}?rows=stay", expect=200)
    assert (await stoa.get("/tables/catalogue"))["kind"] == "plain"
    await stoa.patch("/tables/places/rows/1", {"ra": 50.0})
    assert await stoa.values("catalogue", "object", "band", "ra") == before
    await stoa.patch("/tables/catalogue/rows/1", {"ra": 6.0})
    await stoa.add("catalogue", {"object": "q"})
    assert {row["status"] for row in await stoa.rows("catalogue")} == {"current"}
    assert stoa.rebuilt()[1] == []


# --- tables that depend on others --------------------------------------------------------------------------------------


async def _chain(stoa: Harness) -> None:
    """Tables a -> b -> c, and d, which is filled from b and from e; the join j of a and e."""
    await stoa.plain("a", {"x": "int"})
    await stoa.plain("e", {"x": "int"})
    for name in ("b", "c", "d"):
        await stoa.worktable(name, {"x": "int"}, {"y": "int"})
    for child, parent in (("b", "a"), ("c", "b"), ("d", "b"), ("d", "e")):
        await stoa.post(f"/tables/{child}/links", {"parent": parent, "per": "row", "mapping": {"x": "x"}})
    await stoa.add("a", {"x": 1}, {"x": 2}, {"x": 3})
    await stoa.add("e", {"x": 1}, {"x": 9})
    await stoa.join("j", "a", "e", [("x", "x")])


async def test_a_parent_is_not_deleted_unless_asked(stoa: Harness) -> None:
    await _chain(stoa)
    problem = (await stoa.request("DELETE", "/tables/a", expect=409)).json()
    assert "because b and j are filled from it" in problem["detail"]
    await stoa.patch("/tables/a", {"name": "renamed"})
    await stoa.patch("/tables/renamed/rows/1", {"x": 11})
    assert await stoa.values("c", "x") == [(11,), (2,), (3,)]


async def test_what_depends_on_a_table_is_told_before(stoa: Harness) -> None:
    await _chain(stoa)
    told = await stoa.get("/tables/a/dependents")
    found = {
        item["name"]: (item["kind"], item["rows"], item["direct"], len(item["links"])) for item in told["dependents"]
    }
    assert found == {
        "b": ("worktable", 3, True, 1),
        "c": ("worktable", 3, False, 1),
        "d": ("worktable", 5, False, 1),
        "j": ("join", 1, True, 1),
    }
    names = [item["name"] for item in told["dependents"]]
    assert names.index("b") < min(names.index("c"), names.index("d"))
    assert [item["name"] for item in told["unlink"]["deleted"]] == ["a"]
    unlinked = {(item["name"], item["rows"], item["becomes"]) for item in told["unlink"]["unlinked"]}
    assert unlinked == {("b", 3, "stay"), ("j", 1, "stay")}
    assert told["unlink"]["rows_removed"] == 3
    assert {item["name"]: item["rows"] for item in told["delete"]["deleted"]} == {"a": 3, "b": 3, "c": 3, "j": 1}
    assert [(item["name"], item["rows"], item["becomes"]) for item in told["delete"]["unlinked"]] == [("d", 3, "go")]
    assert told["delete"]["rows_removed"] == 13
    assert (await stoa.get("/tables/c/dependents"))["dependents"] == []


async def test_a_parent_is_deleted_and_its_children_stay(stoa: Harness) -> None:
    await _chain(stoa)
    before = await stoa.rows("b")
    await stoa.request("DELETE", "/tables/a?children=unlink", expect=204)
    await stoa.request("GET", "/tables/a", expect=404)
    after = await stoa.rows("b")
    assert [row["values"] for row in after] == [row["values"] for row in before]
    await stoa.add("b", {"x": 9})
    assert await stoa.values("c", "x") == [(1,), (2,), (3,), (9,)]
    assert await stoa.values("j", "x") == [(1,)]
    assert (await stoa.get("/tables/j"))["kind"] == "plain"
    assert stoa.rebuilt()[1] == []


async def test_a_parent_is_deleted_and_all_that_came_from_it(stoa: Harness) -> None:
    await _chain(stoa)
    told = await stoa.get("/tables/a/dependents")
    await stoa.request("DELETE", "/tables/a?children=delete", expect=204)
    left = {table["name"]: table["rows"] for table in (await stoa.get("/tables"))["tables"]}
    assert left == {"e": 2, "d": 2}
    assert told["delete"]["rows_removed"] == 3 + 3 + 3 + 1 + 3
    assert await stoa.values("d", "x") == [(1,), (9,)]
    await stoa.patch("/tables/e/rows/1", {"x": 4})
    assert await stoa.values("d", "x") == [(4,), (9,)]
    assert len((await stoa.get("/graph"))["links"]) == 1
    assert stoa.rebuilt()[1] == []


async def test_text_that_is_no_unicode_is_refused(quick: Harness) -> None:
    await _observations(quick)
    body = b'{"parent": "images", "mapping": {"object": "object"}, "filter": "object=\\ud800"}'
    headers = {"Content-Type": "application/json"}
    problem = await quick.request("POST", "/tables/cutouts/links", expect=422, content=body, headers=headers)
    assert "half of a surrogate pair" in problem.json()["detail"]
