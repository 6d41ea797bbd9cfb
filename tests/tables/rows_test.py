from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.tables.harness import Harness, running


async def test_rows_get_ids_in_order_and_defaults(stoa: Harness) -> None:
    await stoa.worktable(
        "t", {"x": "int", "threshold": {"type": "double", "default": 5}, "note": "string?"}, {"y": "int"}
    )
    assert await stoa.add("t", {"x": 1}, {"x": 2, "threshold": 3}) == [1, 2]
    assert await stoa.add("t", {"note": "later"}) == [3]
    rows = await stoa.rows("t")
    assert [row["values"] for row in rows] == [
        {"x": 1, "threshold": 5.0, "note": None, "y": None},
        {"x": 2, "threshold": 3.0, "note": None, "y": None},
        {"x": None, "threshold": 5.0, "note": "later", "y": None},
    ]
    assert {row["status"] for row in rows} == {"stale"}
    assert [row["reason"] for row in rows] == [None, None, "A value is missing: x"]


async def test_ids_are_never_used_again(stoa: Harness) -> None:
    await stoa.plain("t", {"x": "int"})
    await stoa.add("t", {"x": 1}, {"x": 2})
    await stoa.request("DELETE", "/tables/t/rows/2", expect=204)
    assert await stoa.add("t", {"x": 3}) == [3]
    await stoa.request("GET", "/tables/t/rows/2", expect=404)
    await stoa.request("DELETE", "/tables/t/rows/2", expect=404)
    assert (await stoa.get("/tables/t"))["rows"] == 2


async def test_a_bad_cell_adds_no_row_and_every_one_is_named(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int", "s": "string"}, {"y": "int"})
    bad = {"rows": [{"x": 1}, {"x": "one", "s": 5}, {"y": 3}, {"z": 1}]}
    problem = await stoa.post("/tables/t/rows", bad, expect=422)
    assert [(error["index"], error["column"]) for error in problem["errors"]] == [
        (1, "x"),
        (1, "s"),
        (2, "y"),
        (3, "z"),
    ]
    assert problem["type"] == "urn:stoa:problem:invalid-values"
    assert await stoa.rows("t") == []


async def test_large_integers_and_odd_text_come_back_as_they_were(stoa: Harness) -> None:
    await stoa.plain("t", {"source id": "long", "µ.x": "string", 'a"b': "double"})
    values = {"source id": 4295806720_123456789, "µ.x": "é\U0001f30c\\ \"'", 'a"b': 0.1}
    await stoa.add("t", values)
    assert (await stoa.rows("t"))[0]["values"] == values
    assert len(await stoa.rows("t", filter=["source id=4295806720123456789", "µ.x~É", 'a"b>=0.1'])) == 1
    assert await stoa.rows("t", filter=["source id>4295806720123456789"]) == []


async def test_csv_adds_rows(stoa: Harness) -> None:
    await stoa.worktable("t", {"object": "string", "ra": "double", "n": {"type": "int", "default": 3}}, {"y": "int"})
    text = 'object,ra\n"Cen A, core",201.365\nM 87,\n'
    headers = {"content-type": "text/csv"}
    response = await stoa.request("POST", "/tables/t/rows", expect=201, content=text, headers=headers)
    assert response.json()["rows"] == [1, 2]
    assert [row["values"] for row in await stoa.rows("t")] == [
        {"object": "Cen A, core", "ra": 201.365, "n": 3, "y": None},
        {"object": "M 87", "ra": None, "n": 3, "y": None},
    ]


async def test_csv_with_bad_cells_is_refused_with_lines(quick: Harness) -> None:
    await quick.worktable("t", {"object": "string", "ra": "double"}, {})
    text = "object,ra\nCen A,201\nM 87,abc\nM 31,nan\n"
    headers = {"content-type": "text/csv"}
    problem = (await quick.request("POST", "/tables/t/rows", expect=422, content=text, headers=headers)).json()
    assert [(item["line"], item["column"]) for item in problem["problems"]] == [(3, "ra"), (4, "ra")]
    assert await quick.rows("t") == []


async def test_an_edit_raises_the_revision_and_keeps_the_outputs(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    await stoa.add("t", {"x": 1})
    await stoa.run("t", 1, {"y": 2})
    edited = await stoa.patch("/tables/t/rows/1", {"x": 5})
    assert (edited["revision"], edited["status"], edited["outdated"]) == (2, "stale", True)
    assert edited["values"] == {"x": 5, "y": 2}
    assert (await stoa.get("/tables/t"))["counts"] == {"stale": 1}


async def test_an_edit_that_changes_nothing_is_none(quick: Harness) -> None:
    await quick.worktable("t", {"x": "int"}, {"y": "int"})
    await quick.add("t", {"x": 1})
    head = await quick.head()
    assert (await quick.patch("/tables/t/rows/1", {"x": 1.0}))["revision"] == 1
    assert await quick.head() == head


async def test_of_two_who_edit_a_row_one_is_told_and_nothing_is_lost(stoa: Harness) -> None:
    await stoa.plain("t", {"x": "int", "y": "int"})
    await stoa.add("t", {"x": 0, "y": 0})
    seen = await stoa.request("GET", "/tables/t/rows/1", expect=200)
    tag = {"If-Match": seen.headers["ETag"]}
    answers = await asyncio.gather(
        stoa.request("PATCH", "/tables/t/rows/1", json={"x": 1}, headers=tag),
        stoa.request("PATCH", "/tables/t/rows/1", json={"y": 2}, headers=tag),
    )
    refused = next(answer for answer in answers if answer.status_code == 412)
    taken = next(answer for answer in answers if answer.status_code == 200)
    problem = refused.json()
    assert problem["row"]["values"] == taken.json()["values"]
    assert refused.headers["ETag"] == taken.headers["ETag"] == '"2"'
    # The one who was refused does it again, on what is there now.
    mine = {"x": 1} if taken.json()["values"]["x"] == 0 else {"y": 2}
    again = await stoa.patch("/tables/t/rows/1", mine, headers={"If-Match": refused.headers["ETag"]})
    assert again["values"] == {"x": 1, "y": 2}


async def test_many_edits_are_made_together_or_not_at_all(stoa: Harness) -> None:
    await stoa.plain("t", {"x": "int"})
    await stoa.add("t", {"x": 1}, {"x": 2}, {"x": 3})
    edits = [{"row": 1, "revision": 1, "values": {"x": 10}}, {"row": 2, "values": {"x": 20}}]
    edited = await stoa.patch("/tables/t/rows", {"edits": edits})
    assert edited["rows"] == [{"row": 1, "revision": 2}, {"row": 2, "revision": 2}]
    assert len(await stoa.log(0, "row-edited")) == 1
    for wrong, status in [
        ({"row": 2, "revision": 1, "values": {"x": 0}}, 412),
        ({"row": 9, "values": {"x": 0}}, 404),
        ({"row": 2, "values": {"x": "no"}}, 422),
        ({"row": 3, "values": {"x": 0}}, 422),
    ]:
        await stoa.patch("/tables/t/rows", {"edits": [{"row": 3, "values": {"x": 30}}, wrong]}, expect=status)
    assert await stoa.values("t", "x") == [(10,), (20,), (3,)]


async def test_what_is_no_etag_is_refused(quick: Harness) -> None:
    await quick.plain("t", {"x": "int"})
    await quick.add("t", {"x": 1})
    await quick.patch("/tables/t/rows/1", {"x": 2}, expect=422, headers={"If-Match": "1"})
    await quick.patch("/tables/t/rows/1", {"x": 2}, headers={"If-Match": "*"})
    await quick.request("DELETE", "/tables/t/rows/1", expect=412, headers={"If-Match": '"1"'})
    await quick.request("DELETE", "/tables/t/rows/1", expect=204, headers={"If-Match": '"2"'})


async def test_rows_are_filtered_and_sorted(stoa: Harness) -> None:
    await stoa.plain("t", {"name": "string", "snr": "double?", "n": "long", "ok": "boolean", "file": "File?"})
    rows = [("Cen A", 7.5, 1, True), ("cen b", None, 2, False), ("M 87", 5, 10, True), ("%_\\", -1.0, 9, False)]
    await stoa.add("t", *({"name": name, "snr": snr, "n": n, "ok": ok} for name, snr, n, ok in rows))

    async def ids(*filters: str, **more: Any) -> list[int]:
        return [row["row"] for row in await stoa.rows("t", filter=list(filters), **more)]

    assert await ids("snr>5") == [1]
    assert await ids("snr >= 5", "n!=1") == [3]
    assert await ids("snr=null") == [2]
    assert await ids("snr!=null") == [1, 3, 4]
    assert await ids("name~CEN") == [1, 2]
    assert await ids("name=Cen A") == [1]
    assert await ids("name~%") == [4]
    assert await ids("ok=true") == [1, 3]
    assert await ids("file=null", "n<10") == [1, 2, 4]
    assert await ids("row>2") == [3, 4]
    assert await ids(status="stale") == []
    assert await ids(sort="snr") == [4, 3, 1, 2]
    assert await ids(sort="-snr") == [1, 3, 4, 2]
    assert await ids(sort="-n") == [3, 4, 2, 1]
    assert await ids(sort="ok,-row") == [4, 2, 3, 1]
    assert await ids(sort="name") == [4, 1, 3, 2]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("filter", "nothing=1"),
        ("filter", "n"),
        ("filter", "n=abc"),
        ("filter", "n=inf"),
        ("filter", "ok=perhaps"),
        ("filter", "file=x"),
        ("sort", "nothing"),
        ("after", "nonsense"),
    ],
)
async def test_what_cannot_be_filtered_or_sorted_is_refused(quick: Harness, parameter: str, value: str) -> None:
    await quick.plain("t", {"n": "int", "ok": "boolean", "file": "File?"})
    response = await quick.request("GET", "/tables/t/rows", params={parameter: value})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:stoa:problem:invalid-filter"


@pytest.mark.parametrize("sort", [None, "-x", "x"])
async def test_pages_show_every_row_once(stoa: Harness, sort: str | None) -> None:
    await stoa.plain("t", {"x": "int"})
    await stoa.add("t", *({"x": number % 3} for number in range(25)))
    parameters: dict[str, Any] = {"limit": 10, "filter": "x<2"} | ({"sort": sort} if sort else {})
    seen: list[int] = []
    after: dict[str, str] = {}
    while True:
        page = await stoa.get("/tables/t/rows", **parameters, **after)
        assert page["total"] == 17
        seen += [row["row"] for row in page["rows"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    expected = sorted(
        (number for number in range(25) if number % 3 < 2),
        key=lambda n: (n % 3 if sort == "x" else -(n % 3) if sort else 0, n),
    )
    assert seen == [number + 1 for number in expected]
    offset = await stoa.get("/tables/t/rows", **parameters, offset=10)
    assert [row["row"] for row in offset["rows"]] == seen[10:]


async def test_elements_are_listed_flat(stoa: Harness) -> None:
    await stoa.worktable("t", {"image": "string"}, {"ra": "double[]", "snr": "float[]", "tool": "string"})
    await stoa.add("t", {"image": "a"}, {"image": "b"}, {"image": "c"}, {"image": "d"})
    await stoa.run("t", 1, {"ra": [1.5, 2.5, 3.5], "snr": [5.0, 9.0, 7.0], "tool": "sep"})
    await stoa.run("t", 2, {"ra": [], "snr": [], "tool": "sep"})
    await stoa.run("t", 3, {"ra": [9.0], "snr": [6.0, 7.0], "tool": "sep"})
    page = await stoa.get("/tables/t/elements")
    assert page["total"] == 4
    assert [(item["row"], item["element"], item["values"]["ra"]) for item in page["elements"]] == [
        (1, 0, 1.5),
        (1, 1, 2.5),
        (1, 2, 3.5),
        (3, None, [9.0]),
    ]
    assert page["elements"][0]["values"] == {"image": "a", "ra": 1.5, "snr": 5.0, "tool": "sep"}
    assert [row["elements"] for row in await stoa.rows("t")] == [3, 0, None, None]
    bright = await stoa.get("/tables/t/elements", filter=["snr>5", "image=a"], sort="-snr")
    assert [item["element"] for item in bright["elements"]] == [1, 2]
    first = await stoa.get("/tables/t/elements", limit=2)
    second = await stoa.get("/tables/t/elements", limit=2, after=first["next"])
    assert [item["element"] for item in first["elements"] + second["elements"]] == [0, 1, 2, None]
    # Other outputs take the place of the old elements.
    await stoa.run("t", 1, {"ra": [8.0], "snr": [8.0], "tool": "sep"})
    page = await stoa.get("/tables/t/elements", filter="image=a")
    assert [(item["element"], item["values"]["ra"]) for item in page["elements"]] == [(0, 8.0)]
    assert stoa.rebuilt()[1] == []


async def test_a_row_tells_its_history(stoa: Harness) -> None:
    await stoa.worktable("t", {"x": "int"}, {"y": "int"})
    await stoa.add("t", {"x": 1}, {"x": 2})
    job = await stoa.run("t", 1, {"y": 2})
    await stoa.patch("/tables/t/rows/1", {"x": 5})
    failing = (await stoa.queue("t", 1))[1]
    await stoa.finish("t", 1, failing, None, outcome="permanentFail", error="The file is missing.")
    await stoa.request("DELETE", "/tables/t/rows/1", expect=204)
    history = await stoa.get("/tables/t/rows/1/history")
    assert [(event["type"], event["summary"]) for event in history["events"]] == [
        ("rows-added", "Added"),
        ("row-status-changed", "Queued"),
        ("row-status-changed", "Started"),
        ("outputs-recorded", "New outputs for revision 1, after 0.5 s"),
        ("row-edited", "Changed x from 1 to 5"),
        ("row-status-changed", "Queued"),
        ("row-status-changed", "Failed: The file is missing."),
        ("rows-removed", "Removed"),
    ]
    assert history["events"][3]["details"]["job"] == job
    assert history["events"][4]["actor"] == "ada"
    newest = await stoa.get("/tables/t/rows/1/history", limit=2)
    assert newest["events"] == history["events"][-2:]
    before = await stoa.get("/tables/t/rows/1/history", limit=2, before=newest["events"][0]["position"])
    assert before["events"] == history["events"][-4:-2]
    await stoa.request("GET", "/tables/t/rows/99/history", expect=404)


async def test_what_is_too_large_is_refused_before_it_is_read(sqlite_url: str, tmp_path: Any) -> None:
    async with running(sqlite_url, tmp_path, max_body_bytes=1000) as stoa:
        await stoa.plain("t", {"x": "string"})
        problem = await stoa.post("/tables/t/rows", {"rows": [{"x": "a" * 1000}]}, expect=413)
        assert "1,000 are taken" in problem["detail"]

        async def pieces() -> Any:
            for _ in range(20):
                yield b" " * 100

        headers = {"content-type": "application/json"}
        response = await stoa.request("POST", "/tables/t/rows", content=pieces(), headers=headers)
        assert response.status_code == 413
        response = await stoa.request("POST", "/tables/t/rows", content=b"x", headers={"content-type": "text/html"})
        assert response.status_code == 415


async def test_a_row_that_no_message_could_carry_is_refused(quick: Harness) -> None:
    await quick.plain("t", {"x": "string"})
    problem = await quick.post("/tables/t/rows", {"rows": [{"x": "a" * 600_000}]}, expect=422)
    assert "Large data belongs into files" in problem["detail"]


async def test_many_rows_are_several_events_of_a_bounded_size(quick: Harness) -> None:
    await quick.plain("t", {"x": "string"})
    await quick.add("t", *({"x": "a" * 1000} for _ in range(600)))
    added = await quick.log(0, "rows-added")
    assert len(added) > 2
    assert max(len(envelope.to_bytes()) for envelope in added) < 300_000
    assert [row["row"] for envelope in added for row in envelope.data["rows"]] == list(range(1, 601))


async def test_what_no_database_could_keep_is_refused(stoa: Harness) -> None:
    await stoa.plain("t", {"x": "string", "n": "long"})
    await stoa.add("t", {"x": "a"})
    await stoa.post("/tables/t/rows", {"rows": [{"x": "a\0b"}]}, expect=422)
    await stoa.post("/tables/t/rows", {"rows": [{"n": 2**63}]}, expect=422)
    await stoa.post("/tables", {"name": "u", "description": "\0", "columns": []}, expect=422)
    await stoa.patch("/tables/t/columns/x", {"unit": "\0"}, expect=422)
    await stoa.patch("/tables/t/rows", {"edits": [{"row": 2**70, "values": {}}]}, expect=422)
    await stoa.request("DELETE", "/tables/t/rows", json={"rows": [2**70]}, expect=422)
    await stoa.request("GET", f"/tables/t/rows/{2**70}", expect=422)
    await stoa.request("GET", "/tables/t/rows", params={"filter": "x=a\0"}, expect=422)
    await stoa.request("GET", "/tables/t/rows", params={"filter": f"n<{10**400}"}, expect=422)
    assert len(await stoa.rows("t", filter=f"row<{10**30}")) == 1
    await stoa.request("GET", "/tables/a%00b", expect=404)
    bad = await stoa.request(
        "POST", "/tables/t/rows", content=b'{"rows": [{"n": NaN}]}', headers={"content-type": "application/json"}
    )
    assert bad.status_code == 422
    assert len(await stoa.rows("t")) == 1
