from __future__ import annotations

from typing import Any

import pytest

from tests.tables.harness import Harness, tool


async def _survey(stoa: Harness) -> None:
    """Products, whose elements are folders, and coordinates, which are keyed on them."""
    await stoa.worktable("products", {"archive": "string"}, {"path": "string[]", "band": "int[]"})
    await stoa.worktable("coords", {"product": "Directory", "band": "int", "note": "string?"}, {"ra": "double"})
    await stoa.add("products", {"archive": "a"})
    mapping = {"product": "path", "band": "band"}
    await stoa.post("/tables/coords/links", {"parent": "products", "mapping": mapping, "keys": ["product"]})


def _name(row: Any) -> str:
    location: str = row["values"]["product"]["location"]
    return location.rstrip("/").rsplit("/", 1)[1]


async def _children(stoa: Harness) -> dict[str, tuple[int, int, int, str]]:
    return {
        _name(row): (row["row"], row["values"]["band"], row["revision"], row["status"])
        for row in await stoa.rows("coords")
    }


async def test_new_elements_give_new_rows_and_vanished_ones_remove_theirs(stoa: Harness) -> None:
    await _survey(stoa)
    assert await stoa.rows("coords") == []
    await stoa.run("products", 1, {"path": ["/d/x", "/d/y"], "band": [3, 6]})
    assert await _children(stoa) == {"x": (1, 3, 1, "stale"), "y": (2, 6, 1, "stale")}
    row = await stoa.get("/tables/coords/rows/2")
    products = await stoa.get("/tables/products")
    assert row["derived_from"]["sources"] == [{"table": products["id"], "row": 1, "element": 1}]
    assert row["values"]["product"]["class"] == "Directory"
    await stoa.run("coords", 1, {"ra": 1.5})
    await stoa.run("coords", 2, {"ra": 2.5})
    head = await stoa.head()
    # Other order, one more, and another band for y.
    await stoa.run("products", 1, {"path": ["/d/z", "/d/y", "/d/x"], "band": [7, 9, 3]})
    assert await _children(stoa) == {"x": (1, 3, 1, "current"), "y": (2, 9, 2, "stale"), "z": (3, 7, 1, "stale")}
    told = {envelope.name: envelope for envelope in await stoa.log(head) if envelope.actor}
    assert told["rows-added"].data["rows"][0]["row"] == 3
    edited = told["row-edited"].data["rows"][0]
    assert (edited["row"], edited["revision"], edited["changes"], edited["previous"]) == (
        2,
        2,
        {"band": 9},
        {"band": 6},
    )
    assert told["rows-confirmed"].data["rows"] == [1]
    assert told["table-invalidated"].data["cause"]["kind"] == "upstream"
    assert told["table-invalidated"].data["cause"]["table"] == products["id"]
    assert told["table-invalidated"].data["cause"]["rows"] == [1]
    assert told["table-invalidated"].data["rows"] == [2, 3]
    # What follows names what it follows from.
    outputs = [envelope for envelope in await stoa.log(head) if envelope.name == "outputs-recorded"]
    assert told["table-invalidated"].causationid == outputs[-1].id
    # Rows that only moved know where they come from now.
    moved = await stoa.get("/tables/coords/rows/1")
    assert moved["derived_from"]["sources"][0]["element"] == 2
    assert moved["status"] == "current"
    await stoa.run("products", 1, {"path": ["/d/z"], "band": [7]})
    assert set(await _children(stoa)) == {"z"}
    assert stoa.rebuilt()[1] == []


async def test_the_same_outputs_touch_nothing_downstream(stoa: Harness) -> None:
    await _survey(stoa)
    outputs = {"path": ["/d/x", "/d/y"], "band": [3, 6]}
    await stoa.run("products", 1, outputs)
    children = await _children(stoa)
    head = await stoa.head()
    await stoa.run("products", 1, outputs)
    assert await _children(stoa) == children
    # They were suspected for a moment, and have to be run as before.
    told = {"row-status-changed", "table-invalidated", "outputs-recorded"}
    assert {envelope.name for envelope in await stoa.log(head)} == told
    # An edit of an input that no link takes edits nothing below.
    await stoa.patch("/tables/products/rows/1", {"archive": "b"})
    assert await _children(stoa) == children
    # Old outputs feed the children until there are new ones.
    assert (await stoa.get("/tables/products/rows/1"))["status"] == "stale"


async def test_equal_elements_are_told_apart_by_their_number(stoa: Harness) -> None:
    await _survey(stoa)
    await stoa.run("products", 1, {"path": ["/d/x", "/d/x"], "band": [3, 6]})
    rows = await stoa.rows("coords")
    assert [(row["row"], row["values"]["band"]) for row in rows] == [(1, 3), (2, 6)]
    await stoa.run("products", 1, {"path": ["/d/x"], "band": [3]})
    assert [row["row"] for row in await stoa.rows("coords")] == [1]


async def test_an_edit_reaches_exactly_what_depends_on_it(stoa: Harness) -> None:
    await stoa.plain("targets", {"name": "string", "ra": "double", "note": "string?"})
    await stoa.worktable("cut", {"object": "string", "ra": "double"}, {"image": "string", "n": "int"})
    await stoa.worktable("measure", {"image": "string"}, {"flux": "double"})
    await stoa.add("targets", *({"name": f"t{number}", "ra": number} for number in range(5)))
    link = {"parent": "targets", "per": "row", "mapping": {"object": "name", "ra": "ra"}}
    await stoa.post("/tables/cut/links", link)
    await stoa.post("/tables/measure/links", {"parent": "cut", "per": "row", "mapping": {"image": "image"}})
    assert await stoa.values("cut", "object", "ra") == [(f"t{number}", float(number)) for number in range(5)]
    for row in range(1, 6):
        await stoa.run("cut", row, {"image": f"i{row}", "n": 1})
    for row in range(1, 6):
        await stoa.run("measure", row, {"flux": row * 1.0})
    head = await stoa.head()
    await stoa.patch("/tables/targets/rows/3", {"ra": 30.0})
    assert (await stoa.get("/tables/cut"))["counts"] == {"current": 4, "stale": 1}
    # What takes the outputs of a stale row is stale by suspicion.
    assert (await stoa.get("/tables/measure"))["counts"] == {"current": 4, "stale": 1}
    names = [envelope.name for envelope in await stoa.log(head)]
    assert names == ["row-edited", "row-edited", "table-invalidated", "table-invalidated"]
    await stoa.run("cut", 3, {"image": "i3", "n": 2})
    assert (await stoa.get("/tables/measure"))["counts"] == {"current": 5}
    await stoa.patch("/tables/targets/rows/3", {"note": "Nobody asks."})
    await stoa.patch("/tables/targets/rows/3", {"ra": 31.0})
    await stoa.run("cut", 3, {"image": "i3b", "n": 2})
    assert (await stoa.get("/tables/measure"))["counts"] == {"current": 4, "stale": 1}
    assert (await stoa.get("/tables/measure/rows/3"))["revision"] == 2
    await stoa.request("DELETE", "/tables/targets/rows/3", expect=204)
    assert [row["row"] for row in await stoa.rows("measure")] == [1, 2, 4, 5]
    assert stoa.rebuilt()[1] == []


async def test_a_correction_survives_what_comes_from_upstream(stoa: Harness) -> None:
    await _survey(stoa)
    await stoa.run("products", 1, {"path": ["/d/x"], "band": [3]})
    await stoa.run("coords", 1, {"ra": 1.5})
    corrected = await stoa.patch("/tables/coords/rows/1", {"band": 4, "note": "It says 3, but it is 4."})
    assert (corrected["status"], corrected["values"]["band"]) == ("stale", 4)
    position = await stoa.head()
    correction = corrected["derived_from"]["corrected"].pop("band")
    assert (correction["by"], correction["position"], correction["derived"]) == ("ada", position, 3)
    assert corrected["derived_from"]["corrected"] == {}
    await stoa.run("coords", 1, {"ra": 1.6})
    head = await stoa.head()
    await stoa.run("products", 1, {"path": ["/d/x"], "band": [5]})
    row = await stoa.get("/tables/coords/rows/1")
    assert (row["status"], row["values"]["band"], row["revision"]) == ("current", 4, 2)
    assert not [event for event in await stoa.log(head, "table-invalidated") if not event.data["suspected"]]
    assert stoa.rebuilt()[1] == []


async def test_a_value_that_does_not_fit_leaves_its_cell_empty_and_says_why(stoa: Harness) -> None:
    await stoa.plain("targets", {"name": "string", "size": "double"})
    await stoa.worktable("cut", {"object": "string", "size": "int"}, {"image": "string"})
    await stoa.add("targets", {"name": "a", "size": 2.5}, {"name": "b", "size": 3})
    mapping = {"object": "name", "size": "size"}
    await stoa.post("/tables/cut/links", {"parent": "targets", "per": "row", "mapping": mapping})
    rows = await stoa.rows("cut")
    assert [row["values"]["size"] for row in rows] == [None, 3]
    assert "size: 2.5 is no whole number" in rows[0]["reason"]
    await stoa.patch("/tables/targets/rows/1", {"size": 4})
    row = (await stoa.rows("cut"))[0]
    assert (row["values"]["size"], row["reason"]) == (4, None)
    await stoa.patch("/tables/targets/rows/2", {"size": 0.5})
    assert "0.5 is no whole number" in (await stoa.rows("cut"))[1]["reason"]
    assert stoa.rebuilt()[1] == []


async def test_derived_rows_are_neither_added_nor_removed_by_hand(quick: Harness) -> None:
    await _survey(quick)
    await quick.run("products", 1, {"path": ["/d/x"], "band": [3]})
    problem = await quick.post("/tables/coords/rows", {"rows": [{}]}, expect=409)
    assert "cannot be added by hand" in problem["detail"]
    problem = (await quick.request("DELETE", "/tables/coords/rows/1", expect=409)).json()
    assert "cannot be removed by hand" in problem["detail"]


async def test_a_cycle_is_refused_with_the_path_that_would_close_it(quick: Harness) -> None:
    for name in ("a", "b", "c"):
        await quick.worktable(name, {"x": "int"}, {"y": "int"})
    await quick.post("/tables/b/links", {"parent": "a", "mapping": {"x": "y"}})
    await quick.post("/tables/c/links", {"parent": "b", "mapping": {"x": "y"}})
    problem = await quick.post("/tables/a/links", {"parent": "c", "mapping": {"x": "y"}}, expect=409)
    assert problem["type"] == "urn:stoa:problem:cycle"
    assert problem["path"] == ["a", "b", "c", "a"]
    assert "a -> b -> c -> a" in problem["detail"]
    itself = await quick.post("/tables/a/links", {"parent": "a", "mapping": {"x": "y"}}, expect=409)
    assert itself["path"] == ["a", "a"]
    graph = await quick.get("/graph")
    assert len(graph["links"]) == 2


@pytest.mark.parametrize(
    ("link", "status", "words"),
    [
        ({"parent": "nobody", "mapping": {"x": "y"}}, 404, "no table 'nobody'"),
        ({"parent": "a", "mapping": {"z": "y"}}, 422, "no column 'z'"),
        ({"parent": "a", "mapping": {"x": "yy"}}, 422, "did you mean 'y'"),
        ({"parent": "a", "mapping": {"y": "y"}}, 422, "computed by its workflow"),
        ({"parent": "a", "mapping": {"x": "y"}, "keys": ["y"]}, 422, "key 'y'"),
        ({"parent": "a", "mapping": {}}, 422, "mapping"),
    ],
)
async def test_a_link_that_makes_no_sense_is_refused(quick: Harness, link: Any, status: int, words: str) -> None:
    for name in ("a", "b"):
        await quick.worktable(name, {"x": "int"}, {"y": "int"})
    problem = await quick.post("/tables/b/links", link, expect=status)
    assert words in problem["detail"]


async def test_a_link_over_existing_rows_derives_them_at_once(stoa: Harness) -> None:
    await stoa.worktable("a", {"x": "int"}, {"y": "int"})
    await stoa.add("a", {"x": 1}, {"x": 2})
    await stoa.run("a", 1, {"y": 10})
    await stoa.worktable("b", {"z": "int", "x": "int"}, {"w": "int"})
    linked = await stoa.post("/tables/b/links", {"parent": "a", "per": "row", "mapping": {"z": "y", "x": "x"}})
    assert await stoa.values("b", "z", "x") == [(10, 1)]
    assert (await stoa.get("/tables/b"))["links"] == [linked["link"]]
    assert (await stoa.log(0, "table-invalidated"))[-1].data["cause"]["kind"] == "link"
    graph = await stoa.get("/graph")
    assert graph["links"][0]["table"] == linked["table"]
    assert graph["tables"][1]["parents"] == linked["link"]["parents"]
    # A child that takes inputs alone has its rows before the parent has run.
    await stoa.worktable("c", {"x": "int"}, {"w": "int"})
    await stoa.post("/tables/c/links", {"parent": "a", "per": "row", "mapping": {"x": "x"}})
    assert await stoa.values("c", "x") == [(1,), (2,)]


# --- joins -------------------------------------------------------------------------------------------------------------


async def _catalogue(stoa: Harness, kind: str) -> Any:
    await stoa.worktable("sources", {"product": "string"}, {"flux": "double[]", "ra": "double[]"})
    await stoa.worktable("coords", {"product": "string"}, {"ra": "double", "object": "string"})
    await stoa.add("sources", {"product": "p"}, {"product": "q"})
    await stoa.patch("/tables/sources/columns/flux", {"unit": "Jy", "ucd": "phot.flux"})
    return await stoa.join("catalogue", "sources", "coords", [("product", "product")], kind)


async def test_a_join_has_the_columns_of_both_parents(quick: Harness) -> None:
    catalogue = await _catalogue(quick, "inner")
    columns = {column["name"]: column for column in catalogue["columns"]}
    assert list(columns) == ["product", "flux", "ra", "coords_ra", "object"]
    assert {column["role"] for column in columns.values()} == {"key"}
    assert (columns["flux"]["type"], columns["flux"]["unit"], columns["flux"]["ucd"]) == ("double", "Jy", "phot.flux")
    assert catalogue["links"][0]["mapping"]["coords_ra"] == "1.ra"
    problem = await quick.post("/tables/catalogue/rows", {"rows": [{}]}, expect=409)
    assert "come from other tables" in problem["detail"]


@pytest.mark.parametrize("kind", ["inner", "left"])
async def test_a_join_is_kept_up_to_date(stoa: Harness, kind: str) -> None:
    await _catalogue(stoa, kind)
    shown = ("product", "flux", "coords_ra", "object")
    assert await stoa.values("catalogue", *shown) == []
    await stoa.run("sources", 1, {"flux": [1.0, 2.0], "ra": [10.0, 20.0]})
    lonely = [("p", 1.0, None, None), ("p", 2.0, None, None)]
    assert await stoa.values("catalogue", *shown) == (lonely if kind == "left" else [])
    await stoa.add("coords", {"product": "p"})
    await stoa.run("coords", 1, {"ra": 5.0, "object": "Cen A"})
    full = [("p", 1.0, 5.0, "Cen A"), ("p", 2.0, 5.0, "Cen A")]
    assert await stoa.values("catalogue", *shown) == full
    rows = await stoa.rows("catalogue")
    assert {row["status"] for row in rows} == {"current"}
    # A value that arrived late filled its cell.
    assert [row["row"] for row in rows] == [1, 2]
    await stoa.run("coords", 1, {"ra": 6.0, "object": "Cen A"})
    assert await stoa.values("catalogue", "coords_ra") == [(6.0,), (6.0,)]
    # Another order upstream changes nothing here.
    head = await stoa.head()
    await stoa.run("sources", 1, {"flux": [2.0, 1.0], "ra": [20.0, 10.0]})
    assert [row["row"] for row in await stoa.rows("catalogue", sort="flux")] == [1, 2]
    assert {envelope.name for envelope in await stoa.log(head)} == {
        "row-status-changed",
        "table-invalidated",
        "outputs-recorded",
        "sources-moved",
        "rows-confirmed",
    }
    # The right side goes to another product.
    await stoa.patch("/tables/coords/rows/1", {"product": "q"})
    gone = [("p", 1.0, None, None), ("p", 2.0, None, None)]
    assert sorted(await stoa.values("catalogue", *shown), key=str) == (gone if kind == "left" else [])
    await stoa.run("sources", 2, {"flux": [3.0], "ra": [1.0]})
    assert ("q", 3.0, 6.0, "Cen A") in await stoa.values("catalogue", *shown)
    await stoa.request("DELETE", "/tables/coords/rows/1", expect=204)
    assert {row[3] for row in await stoa.values("catalogue", *shown)} == ({None} if kind == "left" else set())
    assert stoa.rebuilt()[1] == []


async def test_a_join_looks_at_what_changed_alone(stoa: Harness) -> None:
    await stoa.plain("left", {"k": "int", "v": "int"})
    await stoa.plain("right", {"k": "int", "w": "int"})
    await stoa.add("left", *({"k": number % 50, "v": number} for number in range(500)))
    await stoa.add("right", *({"k": number, "w": number} for number in range(50)))
    await stoa.join("both", "left", "right", [("k", "k")])
    assert (await stoa.get("/tables/both"))["rows"] == 500
    head = await stoa.head()
    await stoa.patch("/tables/right/rows/8", {"w": 1000})
    edited = (await stoa.log(head, "row-edited"))[-1]
    assert len(edited.data["rows"]) == 10
    head = await stoa.head()
    await stoa.patch("/tables/left/rows/8", {"v": 1000})
    edited = (await stoa.log(head, "row-edited"))[-1]
    assert [row["changes"] for row in edited.data["rows"]] == [{"v": 1000}]


async def test_a_worktable_is_filled_from_a_join(stoa: Harness) -> None:
    await _catalogue(stoa, "inner")
    await stoa.worktable("plot", {"object": "string", "flux": "double"}, {"image": "string"})
    link = {"parent": "catalogue", "per": "row", "mapping": {"object": "object", "flux": "flux"}}
    await stoa.post("/tables/plot/links", link)
    await stoa.run("sources", 1, {"flux": [1.0, 2.0], "ra": [10.0, 20.0]})
    await stoa.add("coords", {"product": "p"})
    head = await stoa.head()
    await stoa.run("coords", 1, {"ra": 5.0, "object": "Cen A"})
    assert await stoa.values("plot", "object", "flux") == [("Cen A", 1.0), ("Cen A", 2.0)]
    coords = await stoa.get("/tables/coords")
    invalidated = await stoa.log(head, "table-invalidated")
    assert [envelope.data["cause"]["table"] for envelope in invalidated] == [coords["id"]]
    problem = await stoa.post("/tables/coords/links", {"parent": "plot", "mapping": {"product": "image"}}, expect=409)
    assert problem["path"] == ["coords", "catalogue", "plot", "coords"]


async def test_a_table_is_joined_with_itself(stoa: Harness) -> None:
    await stoa.plain("t", {"a": "int", "b": "int"})
    await stoa.join("pairs", "t", "t", [("a", "b")])
    await stoa.add("t", {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 3, "b": 3})
    assert sorted(await stoa.values("pairs", "a", "t_a")) == [(1, 2), (2, 1), (3, 3)]
    await stoa.patch("/tables/t/rows/3", {"b": 1})
    assert sorted(await stoa.values("pairs", "a", "t_a")) == [(1, 2), (1, 3), (2, 1)]
    assert stoa.rebuilt()[1] == []


async def test_derived_values_take_the_types_of_a_new_workflow(stoa: Harness) -> None:
    await stoa.plain("targets", {"name": "string", "size": "double"})
    await stoa.worktable("cut", {"object": "string", "size": "int"}, {"image": "string"})
    await stoa.add("targets", {"name": "a", "size": 2.5})
    mapping = {"object": "name", "size": "size"}
    await stoa.post("/tables/cut/links", {"parent": "targets", "per": "row", "mapping": mapping})
    assert await stoa.values("cut", "size") == [(None,)]
    files = [("files", ("main.cwl", tool({"object": "string", "size": "double"}, {"image": "string"})))]
    await stoa.request("PUT", "/tables/cut/workflow", expect=200, files=files)
    assert await stoa.values("cut", "size") == [(2.5,)]
    assert (await stoa.rows("cut"))[0]["reason"] is None
