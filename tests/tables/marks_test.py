"""What people say of rows, and that rows stay what they are for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tables.harness import Harness
from tests.tables.people import Person, people


@pytest.fixture
async def table(stoa: Harness) -> Harness:
    """Give a plain table of four rows."""
    await stoa.plain("t", {"x": "int", "name": "string?"})
    await stoa.add("t", *({"x": number, "name": f"n{number}"} for number in range(1, 5)))
    return stoa


async def _rows(stoa: Harness, **parameters: Any) -> list[int]:
    return [row["row"] for row in await stoa.rows("t", **parameters)]


async def _define(stoa: Harness, flag: str = "suspicious", colour: str = "#d9480f", *, expect: int = 200) -> Any:
    response = await stoa.request("PUT", f"/tables/t/flags/{flag}", json={"colour": colour}, expect=expect)
    return response.json()


# --- flags ---


async def test_flags_are_put_on_rows_filtered_counted_and_taken_off(table: Harness) -> None:
    await _define(table)
    await _define(table, "to do", "#1971c2")
    marked = await table.post("/tables/t/flags/suspicious/rows", {"rows": [1, 3]}, expect=200)
    assert marked["rows"] == [1, 3]
    await table.post("/tables/t/flags/to do/rows", {"rows": [3]}, expect=200)
    assert [row["flags"] for row in await table.rows("t")] == [["suspicious"], [], ["suspicious", "to do"], []]
    assert (await table.get("/tables/t/rows/3"))["flags"] == ["suspicious", "to do"]
    assert await _rows(table, filter="flag=suspicious") == [1, 3]
    assert await _rows(table, filter=["flag=suspicious", "flag!=to do"]) == [1]
    assert await _rows(table, filter="flag=null") == [2, 4]
    assert await _rows(table, filter="flag!=null") == [1, 3]
    assert await _rows(table, filter="flag~TO") == [3]
    assert await _rows(table, filter=["flag=suspicious", "x>1"]) == [3]
    problem = (await table.request("GET", "/tables/t/rows", expect=422, params={"filter": "flag>a"})).json()
    assert "no order" in problem["detail"]
    listed = (await table.get("/tables/t/flags"))["flags"]
    assert [(flag["flag"], flag["colour"], flag["rows"]) for flag in listed] == [
        ("suspicious", "#d9480f", 2),
        ("to do", "#1971c2", 1),
    ]
    marked = await table.post("/tables/t/flags/suspicious/rows", {"rows": [2, 3], "flagged": False}, expect=200)
    assert marked["rows"] == [3]
    assert await _rows(table, filter="flag=suspicious") == [1]
    assert table.rebuilt()[1] == []


async def test_a_flag_that_is_given_up_is_on_no_row(table: Harness) -> None:
    await _define(table)
    await table.post("/tables/t/flags/suspicious/rows", {"rows": [1]}, expect=200)
    assert (await table.request("DELETE", "/tables/t/flags/suspicious", expect=200)).json()["flags"] == []
    assert (await table.get("/tables/t/rows/1"))["flags"] == []
    await _define(table)
    assert await _rows(table, filter="flag=suspicious") == []
    assert table.rebuilt()[1] == []


async def test_flags_say_what_is_wrong_and_change_nothing(table: Harness) -> None:
    await _define(table)
    head = await table.head()
    assert "#rrggbb" in (await _define(table, "other", "red", expect=422))["detail"]
    assert "no name" in (await _define(table, "-", expect=422))["detail"]
    assert "already" in (await _define(table, "SUSPICIOUS", expect=409))["detail"]
    problem = await table.post("/tables/t/flags/suspicous/rows", {"rows": [1]}, expect=404)
    assert "did you mean 'suspicious'?" in problem["detail"]
    problem = await table.post("/tables/t/flags/suspicious/rows", {"rows": [1, 9]}, expect=404)
    assert "no row 9" in problem["detail"]
    await _define(table)
    assert await table.head() == head


async def test_a_column_called_flag_is_filtered_as_a_column(quick: Harness) -> None:
    await quick.plain("t", {"flag": "int"})
    await quick.add("t", {"flag": 1}, {"flag": 2})
    assert await _rows(quick, filter="flag>1") == [2]


# --- comments ---


async def test_comments_make_threads_on_rows_cells_and_elements(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int"}, {"flux": "double[]"})
    await stoa.add("t", {"x": 1}, {"x": 2})
    await stoa.run("t", 1, {"flux": [1.0, 2.0]})
    first = await stoa.post(
        "/tables/t/rows/1/comments", {"text": "Is it **blended**? <script>", "column": "flux", "element": 1}
    )
    reply = await stoa.post("/tables/t/rows/1/comments", {"text": "No", "replies_to": first["comment"]})
    again = await stoa.post("/tables/t/rows/1/comments", {"text": "Sure?", "replies_to": reply["comment"]})
    await stoa.post("/tables/t/rows/2/comments", {"text": "Fine"})
    assert (first["text"], first["author"], first["column"], first["element"]) == (
        "Is it **blended**? <script>",
        "ada",
        "flux",
        1,
    )
    assert (reply["replies_to"], again["replies_to"]) == (first["comment"], first["comment"])
    assert (reply["column"], reply["element"]) == ("flux", 1)
    assert [row["comments"] for row in await stoa.rows("t")] == [3, 1]
    assert [row["row"] for row in await stoa.rows("t", filter="comments>1", sort="-comments")] == [1]
    page = await stoa.get("/tables/t/rows/1/comments", limit=2)
    assert [item["text"] for item in page["comments"]] == [first["text"], "No"]
    page = await stoa.get("/tables/t/rows/1/comments", limit=2, after=page["next"])
    assert ([item["text"] for item in page["comments"]], page["next"]) == (["Sure?"], None)
    newest = await stoa.get("/tables/t/comments", limit=3)
    assert [item["text"] for item in newest["comments"]] == ["Fine", "Sure?", "No"]
    newest = await stoa.get("/tables/t/comments", limit=3, after=newest["next"])
    assert ([item["text"] for item in newest["comments"]], newest["next"]) == ([first["text"]], None)
    problem = await stoa.post("/tables/t/rows/2/comments", {"text": "?", "replies_to": first["comment"]}, expect=422)
    assert "belongs to the row" in problem["detail"]
    await stoa.post("/tables/t/rows/1/comments", {"text": "?", "element": 2}, expect=404)
    await stoa.post("/tables/t/rows/1/comments", {"text": "?", "column": "y"}, expect=404)
    await stoa.post("/tables/t/rows/9/comments", {"text": "?"}, expect=404)
    await stoa.post("/tables/t/rows/1/comments", {"text": ""}, expect=422)
    assert stoa.rebuilt()[1] == []


async def test_only_its_author_changes_a_comment_and_what_it_said_stays(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    written = await ada.ask("POST", "/tables/t/rows/1/comments", {"text": "one"}, expect=201)
    path = f"/tables/t/comments/{written['comment']}"
    problem = await bob.ask("PATCH", path, {"text": "mine"}, expect=403)
    assert problem["detail"].startswith("ada wrote this comment")
    await bob.ask("DELETE", path, expect=403)
    edited = await ada.ask("PATCH", path, {"text": "two"})
    assert (edited["text"], edited["edited"] is not None) == ("two", True)
    head = await table.head()
    await ada.ask("PATCH", path, {"text": "two"})
    assert await table.head() == head
    withdrawn = await ada.ask("DELETE", path)
    assert withdrawn["text"] is None
    assert [version["text"] for version in (await table.get(path))["versions"]] == ["one", "two", None]
    assert (await table.get("/tables/t/rows/1"))["comments"] == 0
    await ada.ask("PATCH", path, {"text": "three"}, expect=409)
    told = [event["summary"] for event in (await table.get("/tables/t/rows/1/history"))["events"]]
    assert told[1:] == ["Commented: one", "Changed a comment to: two", "Withdrew a comment"]
    assert table.rebuilt()[1] == []


async def test_marks_hang_on_rows_wherever_their_elements_go(quick: Harness) -> None:
    await quick.worktable("parent", {"x": "int"}, {"name": "string[]"})
    await quick.worktable("t", {"name": "string"}, {"y": "int"})
    await quick.add("parent", {"x": 1})
    await quick.run("parent", 1, {"name": ["a", "b"]})
    await quick.post("/tables/t/links", {"parent": "parent", "mapping": {"name": "name"}})
    await _define(quick)
    await quick.post("/tables/t/flags/suspicious/rows", {"rows": [2]}, expect=200)
    await quick.post("/tables/t/rows/2/comments", {"text": "this one"})
    await quick.run("parent", 1, {"name": ["b", "c", "a"]})
    marked = {row["values"]["name"]: (row["flags"], row["comments"]) for row in await quick.rows("t")}
    assert marked == {"a": ([], 0), "b": (["suspicious"], 1), "c": ([], 0)}


async def test_a_comment_of_another_table_is_not_found(table: Harness) -> None:
    await table.plain("u", {"x": "int"})
    written = await table.post("/tables/t/rows/1/comments", {"text": "one"})
    await table.request("GET", f"/tables/u/comments/{written['comment']}", expect=404)
    await table.request("DELETE", "/tables/u", expect=204)
    await table.request("DELETE", "/tables/t", expect=204)
    assert table.rebuilt()[1] == []


# --- locks ---


async def _lock(stoa: Harness, *rows: int, locked: bool = True, expect: int = 200) -> Any:
    body = {"rows": rows, "locked": locked, "reason": "published" if locked else None}
    return await stoa.post("/tables/t/locks", body, expect=expect)


async def test_a_locked_row_is_neither_edited_nor_removed(table: Harness) -> None:
    assert (await _lock(table, 2, 3))["rows"] == [2, 3]
    assert (await _lock(table, 3))["rows"] == []
    row = await table.get("/tables/t/rows/2")
    assert (row["locked"]["by"], row["locked"]["reason"]) == ("ada", "published")
    head = await table.head()
    problem = await table.patch("/tables/t/rows/2", {"x": 9}, expect=423)
    assert problem["detail"] == "Row 2 of t was locked by ada (published) and cannot be edited: unlock first"
    assert problem["type"] == "urn:stoa:problem:row-locked"
    await table.patch(
        "/tables/t/rows", {"edits": [{"row": 1, "values": {"x": 9}}, {"row": 3, "values": {}}]}, expect=423
    )
    await table.request("DELETE", "/tables/t/rows/2", expect=423)
    await table.request("DELETE", "/tables/t/rows", expect=423, json={"rows": [1, 2]})
    await table.request("DELETE", "/tables/t", expect=423)
    assert await table.head() == head
    assert await _rows(table, filter="locked=true") == [2, 3]
    assert await _rows(table, filter="locked!=true") == [1, 4]
    page = await table.get("/tables/t/locks", limit=1)
    assert ([lock["row"] for lock in page["locks"]], page["next"]) == ([2], 2)
    page = await table.get("/tables/t/locks", limit=1, after=2)
    assert ([lock["row"] for lock in page["locks"]], page["next"]) == ([3], None)
    assert (await _lock(table, 1, 2, locked=False))["rows"] == [2]
    assert (await table.patch("/tables/t/rows/2", {"x": 9}))["locked"] is None
    assert table.rebuilt()[1] == []


async def test_a_row_that_runs_is_not_locked(quick: Harness) -> None:
    await quick.worktable("t", {"x": "int"}, {"y": "int"})
    await quick.add("t", {"x": 1}, {"x": 2})
    await quick.queue("t", 2)
    problem = await _lock(quick, 1, 2, expect=409)
    assert problem["detail"].startswith("Row 2 of t is queued or running")
    assert (await quick.get("/tables/t/locks"))["locks"] == []


async def test_a_locked_derived_row_follows_upstream_when_it_is_unlocked(stoa: Harness) -> None:
    await stoa.plain("parent", {"name": "string", "x": "int"})
    await stoa.worktable("t", {"name": "string", "x": "int"}, {"y": "int"})
    await stoa.worktable("below", {"x": "int"}, {"z": "int"})
    await stoa.add("parent", {"name": "a", "x": 1}, {"name": "b", "x": 2}, {"name": "c", "x": 3})
    mapping = {"name": "name", "x": "x"}
    await stoa.post("/tables/t/links", {"parent": "parent", "per": "row", "mapping": mapping, "keys": ["name"]})
    await stoa.post("/tables/below/links", {"parent": "t", "per": "row", "mapping": {"x": "x"}})
    await _lock(stoa, 1, 2)
    await stoa.patch("/tables/parent/rows/1", {"x": 10})
    await stoa.patch("/tables/parent/rows/3", {"x": 30})
    await stoa.request("DELETE", "/tables/parent/rows/2", expect=204)
    assert await stoa.values("t", "name", "x") == [("a", 1), ("b", 2), ("c", 30)]
    assert await stoa.values("below", "x") == [(1,), (2,), (30,)]
    locks = (await stoa.get("/tables/t/locks"))["locks"]
    assert [(lock["withheld"], lock["gone"]) for lock in locks] == [({"x": 10}, False), ({}, True)]
    # What upstream says again is withheld no longer, and told once.
    await stoa.patch("/tables/parent/rows/1", {"x": 1})
    assert (await stoa.get("/tables/t/rows/1"))["locked"]["withheld"] == {}
    await stoa.patch("/tables/parent/rows/1", {"x": 11})
    assert len(await stoa.log(0, "updates-withheld")) == 4
    await _lock(stoa, 1, 2, locked=False)
    assert await stoa.values("t", "name", "x") == [("a", 11), ("c", 30)]
    assert await stoa.values("below", "x") == [(11,), (30,)]
    assert stoa.rebuilt()[1] == []


async def test_a_locked_row_of_a_join_keeps_its_values(quick: Harness) -> None:
    await quick.plain("left", {"name": "string", "x": "int"})
    await quick.plain("right", {"name": "string", "y": "int"})
    await quick.add("left", {"name": "a", "x": 1}, {"name": "b", "x": 2})
    await quick.add("right", {"name": "a", "y": 1}, {"name": "b", "y": 2})
    await quick.join("t", "left", "right", [("name", "name")])
    await _lock(quick, 1)
    await quick.patch("/tables/right/rows/1", {"y": 10})
    await quick.patch("/tables/right/rows/2", {"y": 20})
    assert await quick.values("t", "name", "y") == [("a", 1), ("b", 20)]
    await quick.request("DELETE", "/tables/left/rows/1", expect=204)
    assert (await quick.get("/tables/t/rows/1"))["locked"]["gone"] is True
    await _lock(quick, 1, locked=False)
    assert await quick.values("t", "name", "y") == [("b", 20)]
    assert quick.rebuilt()[1] == []


async def test_the_locked_row_of_a_group_keeps_its_values(quick: Harness) -> None:
    await quick.plain("parent", {"name": "string", "x": "int"})
    await quick.add(
        "parent", {"name": "a", "x": 1}, {"name": "a", "x": 2}, {"name": "b", "x": 3}, {"name": "c", "x": 4}
    )
    await quick.worktable("t", {"name": "string", "x": "int[]"}, {"y": "int"})
    mapping = {"name": "name", "x": "x"}
    await quick.post("/tables/t/links", {"parent": "parent", "per": "group", "mapping": mapping, "keys": ["name"]})
    before = [("a", [1, 2]), ("b", [3]), ("c", [4])]
    assert await quick.values("t", "name", "x") == before
    await _lock(quick, 1, 2, 3)
    await quick.patch("/tables/parent/rows/1", {"x": 10})
    await quick.request("DELETE", "/tables/parent/rows/3", expect=204)
    assert await quick.values("t", "name", "x") == before
    locks = (await quick.get("/tables/t/locks"))["locks"]
    assert [(lock["withheld"], lock["gone"]) for lock in locks] == [({"x": [10, 2]}, False), ({}, True), ({}, False)]
    await _lock(quick, 1, 2, 3, locked=False)
    assert await quick.values("t", "name", "x") == [("a", [10, 2]), ("c", [4])]
    assert quick.rebuilt()[1] == []


async def test_marks_are_shown_as_they_were(quick: Harness) -> None:
    await quick.plain("t", {"x": "int"})
    await quick.add("t", {"x": 1})
    await _define(quick)
    await quick.post("/tables/t/flags/suspicious/rows", {"rows": [1]}, expect=200)
    await quick.post("/tables/t/rows/1/comments", {"text": "Why?"})
    then = await quick.head()
    await quick.post("/tables/t/flags/suspicious/rows", {"rows": [1], "flagged": False}, expect=200)
    await _lock(quick, 1)
    (before,) = await quick.rows("t", as_of=then)
    (now,) = await quick.rows("t")
    assert (before["flags"], before["comments"], before["locked"]) == (["suspicious"], 1, None)
    assert (now["flags"], now["comments"], now["locked"]["by"]) == ([], 1, "ada")
    assert await _rows(quick, as_of=then, filter=["flag=suspicious", "comments>0"]) == [1]


# --- views ---


async def test_a_saved_view_narrows_orders_and_shows_columns(table: Harness) -> None:
    await _define(table)
    await table.post("/tables/t/flags/suspicious/rows", {"rows": [1, 2, 4]}, expect=200)
    view = {"name": "Odd ones", "filters": ["flag=suspicious", "x>1"], "sort": "-x", "columns": ["name"]}
    saved = await table.post("/tables/t/views", view)
    rows = await table.rows("t", view=saved["view"])
    assert [(row["row"], row["values"]) for row in rows] == [(4, {"name": "n4"}), (2, {"name": "n2"})]
    assert await _rows(table, view=saved["view"], sort="x", filter="x<4") == [2]
    page = await table.get("/tables/t/rows", view=saved["view"], limit=1)
    page = await table.get("/tables/t/rows", view=saved["view"], limit=1, after=page["next"])
    assert ([row["row"] for row in page["rows"]], page["next"], page["total"]) == ([2], None, 2)
    elements = await table.get("/tables/t/elements", view=saved["view"])
    assert [item["values"] for item in elements["elements"]] == [{"name": "n4"}, {"name": "n2"}]
    changed = {**view, "status": "stale", "sort": None}
    await table.request("PUT", f"/tables/t/views/{saved['view']}", json=changed, expect=200)
    assert await _rows(table, view=saved["view"]) == []
    assert await _rows(table, view=saved["view"], status="current") == [2, 4]
    await table.request("DELETE", f"/tables/t/views/{saved['view']}", expect=204)
    await table.request("GET", "/tables/t/rows", expect=404, params={"view": saved["view"]})
    assert table.rebuilt()[1] == []


async def test_a_view_is_private_until_it_is_shared(table: Harness) -> None:
    ada, bob = people(table, "ada", "bob")
    mine = await ada.ask("POST", "/tables/t/views", {"name": "mine", "sort": "-x"}, expect=201)
    path = f"/tables/t/views/{mine['view']}"
    assert await _names(bob) == []
    for method, body in (("GET", None), ("PUT", {"name": "his"}), ("DELETE", None)):
        await bob.ask(method, path, body, expect=404)
    await bob.ask("GET", "/tables/t/rows", expect=404, view=mine["view"])
    await bob.ask("POST", "/tables/t/views", {"name": "mine"}, expect=201)
    problem = await ada.ask("POST", "/tables/t/views", {"name": "MINE"}, expect=409)
    assert "already" in problem["detail"]
    await ada.ask("PUT", path, {"name": "ours", "shared": True, "sort": "-x"})
    assert await _names(bob) == ["ours", "mine"]
    assert [row["row"] for row in (await bob.ask("GET", "/tables/t/rows", view=mine["view"]))["rows"]] == [4, 3, 2, 1]
    await bob.ask("PUT", path, {"name": "his"}, expect=403)
    await bob.ask("DELETE", path, expect=403)


async def _names(person: Person) -> list[str]:
    return [view["name"] for view in (await person.ask("GET", "/tables/t/views"))["views"]]


@pytest.mark.parametrize(
    "view", [{"filters": ["y>1"]}, {"filters": ["x>abc"]}, {"sort": "y"}, {"filters": ["flag<a"]}, {"status": "odd"}]
)
async def test_a_view_that_cannot_be_applied_is_not_saved(quick: Harness, view: dict[str, Any]) -> None:
    await quick.plain("t", {"x": "int"})
    await quick.post("/tables/t/views", {"name": "v", **view}, expect=422)
    assert (await quick.get("/tables/t/views"))["views"] == []
