"""What a change would do, before it is made."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from stoa_tables.preview import PreviewTable, duration, summary
from tests.tables.harness import Harness, tool
from tests.tables.versions_test import create, upload

FIND = tool({"image": "string", "sigma": "float"}, {"x": "int[]", "flux": "float[]"})
FIT = tool({"x": "int", "flux": "float"}, {"mass": "float"})


async def linked(stoa: Harness) -> None:
    """An image, and a fit for each source that is found in it."""
    await create(stoa, "sources", {"main.cwl": FIND})
    await create(stoa, "fits", {"main.cwl": FIT})
    await stoa.post("/tables/fits/links", {"parent": "sources", "mapping": {"x": "x", "flux": "flux"}, "keys": ["x"]})
    await stoa.add("sources", {"image": "a", "sigma": 3.0})


async def survey(stoa: Harness) -> None:
    """Two images with two sources each, a fit for each source, and a catalogue of the fits."""
    await linked(stoa)
    await stoa.plain("names", {"x": "int", "name": "string"})
    await stoa.add("names", *({"x": x, "name": f"S{x}"} for x in (1, 2, 3, 4)))
    await stoa.join("catalogue", "fits", "names", [("x", "x")])
    await stoa.add("sources", {"image": "b", "sigma": 3.0})
    await stoa.run("sources", 1, {"x": [1, 2], "flux": [1.0, 2.0]}, wall_s=10.0)
    await stoa.run("sources", 2, {"x": [3, 4], "flux": [3.0, 4.0]}, wall_s=30.0)
    for row in (1, 2, 3, 4):
        await stoa.run("fits", row, {"mass": row / 2}, wall_s=float(row))


async def state(stoa: Harness) -> dict[str, Any]:
    """Everything that may not change in a preview."""
    tables = (await stoa.get("/tables"))["tables"]
    return {
        "head": await stoa.head(),
        "tables": tables,
        "rows": {table["name"]: await stoa.rows(table["name"]) for table in tables},
        "graph": await stoa.get("/graph"),
    }


async def preview(stoa: Harness, table: str, body: Any) -> Any:
    """Preview a change, and see that nothing changed."""
    before = await state(stoa)
    answer = await stoa.request("POST", f"/tables/{table}/preview", expect=200, json=body)
    assert await state(stoa) == before
    found = answer.json()
    assert found["position"] == before["head"] == int(answer.headers["Stoa-Position"])
    return found


def by_name(found: Any, *fields: str) -> dict[str, tuple[Any, ...]]:
    return {table["name"]: tuple(table[name] for name in fields) for table in found["tables"]}


# --- commands ----------------------------------------------------------------------------------------------------------


async def test_an_edit_says_which_rows_it_makes_stale_and_how_long_they_took(stoa: Harness) -> None:
    await survey(stoa)
    found = await preview(stoa, "sources", {"edits": [{"row": 2, "values": {"sigma": 5.0}}]})
    assert by_name(found, "stale", "added", "removed", "edited")["sources"] == (1, 0, 0, 1)
    (sources,) = [table for table in found["tables"] if table["name"] == "sources"]
    assert (sources["seconds"], sources["runs"], sources["basis"]) == (30.0, 1, "rows")
    assert found["stale"] == 1
    assert found["seconds"] == 30.0
    assert found["unknown"] == []
    assert found["changes"]


async def test_what_is_below_an_edited_row_is_only_suspected(stoa: Harness) -> None:
    await survey(stoa)
    found = await preview(stoa, "sources", {"edits": [{"row": 2, "values": {"sigma": 5.0}}]})
    assert by_name(found, "stale", "suspected", "seconds", "seconds_suspected", "runs") == {
        "sources": (1, 0, 30.0, 0.0, 1),
        "fits": (0, 2, 0.0, 7.0, 2),
    }
    assert (found["stale"], found["suspected"], found["seconds"]) == (1, 2, 30.0)
    assert found["summary"] == (
        "1 row of sources would have to be computed anew, about 30 s one after the other. 2 rows of fits would wait for what they "
        "depend on, and be computed only if that comes out otherwise."
    )


async def test_the_change_itself_does_what_its_preview_said(stoa: Harness) -> None:
    await survey(stoa)
    edits = {"edits": [{"row": row, "values": {"sigma": 5.0}} for row in (1, 2)]}
    found = await preview(stoa, "sources", edits)
    before = {name: _statuses(rows) for name, rows in (await state(stoa))["rows"].items()}
    await stoa.request("PATCH", "/tables/sources/rows", expect=200, json=edits)
    after = {name: _statuses(rows) for name, rows in (await state(stoa))["rows"].items()}
    for name, rows in after.items():
        expected = sum(rows[row] == "stale" and before[name].get(row) != "stale" for row in rows)
        assert sum(by_name(found, "stale", "suspected").get(name, (0, 0))) == expected


def _statuses(rows: list[Any]) -> dict[int, str]:
    return {row["row"]: row["status"] for row in rows}


async def test_removing_rows_removes_what_comes_from_them(stoa: Harness) -> None:
    await survey(stoa)
    found = await preview(stoa, "sources", {"remove": [1]})
    assert by_name(found, "removed", "stale") == {"sources": (1, 0), "fits": (2, 0), "catalogue": (2, 0)}
    assert found["removed"] == 5
    assert "1 row of sources, 2 rows of fits and 2 rows of catalogue would be removed." in found["summary"]


async def test_a_workflow_says_how_many_rows_it_makes_stale(stoa: Harness) -> None:
    await survey(stoa)
    await stoa.add("sources", {"image": "c", "sigma": 3.0})
    before = await state(stoa)
    form = [("files", ("main.cwl", FIND)), ("files", ("run.py", b"1\n"))]
    found = (await stoa.request("POST", "/tables/sources/preview", expect=200, files=form)).json()
    assert await state(stoa) == before
    # The third row was stale before.
    assert by_name(found, "stale", "seconds", "runs")["sources"] == (2, 40.0, 2)
    assert found["summary"].startswith(
        "2 rows of sources would have to be computed anew, about 40 s one after the other."
    )
    assert [item["number"] for item in (await stoa.get("/tables/sources/versions"))["versions"]] == [1]


async def test_a_restored_version_says_what_is_current_again(stoa: Harness) -> None:
    await survey(stoa)
    await upload(stoa, "sources", {"main.cwl": FIND, "run.py": b"1\n"})
    await stoa.run("sources", 1, {"x": [1, 2], "flux": [1.0, 2.0]})
    found = await preview(stoa, "sources", {"restore": "1"})
    assert by_name(found, "stale", "current")["sources"] == (1, 1)
    assert "1 row of sources and 2 rows of fits would be current without a run" in found["summary"]


async def test_a_link_says_which_rows_it_gives(stoa: Harness) -> None:
    await survey(stoa)
    await create(stoa, "plots", {"main.cwl": tool({"flux": "float"}, {"plot": "File"})})
    link = {"parent": "sources", "mapping": {"flux": "flux"}}
    found = await preview(stoa, "plots", {"link": link})
    assert by_name(found, "added", "stale", "seconds", "basis") == {"plots": (4, 4, None, None)}
    assert found["unknown"] == ["plots"]
    assert found["summary"].endswith("Nothing is known of how long a run of plots takes.")
    # What is linked later is new, too: nothing of the preview is left behind.
    linked = await stoa.post("/tables/plots/links", link)
    assert linked["position"] > found["position"]
    assert len(await stoa.rows("plots")) == 4
    _, different = stoa.rebuilt()
    assert different == []


async def test_a_link_that_changes_or_goes_says_what_becomes_of_rows(stoa: Harness) -> None:
    await survey(stoa)
    (link,) = (await stoa.get("/tables/fits"))["links"]
    found = await preview(stoa, "fits", {"change_link": {"link": link["link"], "filter": "x>1"}})
    assert by_name(found, "removed", "stale") == {"fits": (1, 0), "catalogue": (1, 0)}
    found = await preview(stoa, "fits", {"change_link": {"link": link["link"], "mapping": {"x": "x", "flux": "sigma"}}})
    # The flux of one of them is 3 as it is.
    assert by_name(found, "edited", "stale", "removed")["fits"] == (3, 3, 0)
    found = await preview(stoa, "fits", {"unlink": {"link": link["link"], "rows": "go"}})
    assert by_name(found, "removed") == {"fits": (4,), "catalogue": (4,)}
    found = await preview(stoa, "fits", {"unlink": {"link": link["link"], "rows": "stay"}})
    assert (found["changes"], found["tables"]) == (True, [])


async def test_what_changes_nothing_says_so(quick: Harness) -> None:
    await linked(quick)
    found = await preview(quick, "sources", {"edits": [{"row": 1, "values": {"sigma": 3.0}}]})
    assert (found["changes"], found["summary"], found["tables"]) == (False, "Nothing would change.", [])
    found = await preview(quick, "sources", {"restore": "1"})
    assert not found["changes"]


async def test_rows_that_never_ran_are_estimated_by_others_of_their_table(quick: Harness) -> None:
    await survey(quick)
    await quick.run("sources", 1, {"x": [1, 2, 5], "flux": [1.0, 2.0, 5.0]}, wall_s=10.0)
    assert [row["status"] for row in await quick.rows("fits")] == ["current"] * 4 + ["stale"]
    await quick.patch("/tables/fits/rows/5", {"flux": 6.0})
    job = (await quick.queue("fits", 5))[5]
    # It is queued: an edit makes it stale, and it never ran.
    found = await preview(quick, "fits", {"edits": [{"row": 5, "values": {"flux": 7.0}}]})
    assert by_name(found, "stale", "seconds", "runs", "basis") == {"fits": (1, 2.5, 4, "table")}
    await quick.cancel("fits", 5, job)


async def _do(stoa: Harness, table: str, body: Any) -> None:
    """Make the change that a preview was asked for."""
    if "edits" in body:
        await stoa.request("PATCH", f"/tables/{table}/rows", expect=200, json=body)
    elif "remove" in body:
        await stoa.request("DELETE", f"/tables/{table}/rows", expect=200, json={"rows": body["remove"]})
    elif "restore" in body:
        await stoa.request("POST", f"/tables/{table}/versions/{body['restore']}/restore", expect=200)
    else:
        change = dict(body["change_link"])
        await stoa.request("PATCH", f"/tables/{table}/links/{change.pop('link')}", expect=200, json=change)


async def _random_change(stoa: Harness, random: Random) -> tuple[str, Any] | None:
    """Choose a change, or let a row run and choose none."""
    kind = random.choice(["edit", "edit", "edit", "fit", "remove", "restore", "filter", "run", "run", "run"])
    rows = {table: await stoa.rows(table) for table in ("sources", "fits")}
    if kind == "edit" or not rows["fits"]:
        edited = random.sample(rows["sources"], k=random.randint(1, len(rows["sources"])))
        edits = [{"row": row["row"], "values": {"sigma": random.choice([1.0, 2.0, 3.0])}} for row in edited]
        return "sources", {"edits": edits}
    if kind == "fit":
        return "fits", {
            "edits": [{"row": random.choice(rows["fits"])["row"], "values": {"flux": random.choice([1.0, 9.0])}}]
        }
    if kind == "remove" and len(rows["sources"]) > 1:
        return "sources", {"remove": [random.choice(rows["sources"])["row"]]}
    if kind == "restore":
        return "sources", {"restore": random.choice(["1", "2"])}
    if kind == "filter":
        (link,) = (await stoa.get("/tables/fits"))["links"]
        return "fits", {"change_link": {"link": link["link"], "filter": random.choice([None, "x>1", "x>2"])}}
    table = random.choice(["sources", "fits"])
    ready = [row for row in rows[table] if row["status"] == "stale" and not row["suspected"]]
    if ready:
        size = random.randint(0, 3)
        outputs = (
            {"mass": 1.0} if table == "fits" else {"x": list(range(size)), "flux": [float(n) for n in range(size)]}
        )
        await stoa.run(table, random.choice(ready)["row"], outputs)
    return None


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_preview_is_what_then_happens(quick: Harness, seed: int) -> None:
    await survey(quick)
    await upload(quick, "sources", {"main.cwl": FIND, "run.py": b"1\n"})
    random = Random(seed)
    for _ in range(12):
        change = await _random_change(quick, random)
        if change is None:
            continue
        before = {name: {row["row"]: row for row in rows} for name, rows in (await state(quick))["rows"].items()}
        found = by_name(await preview(quick, *change), "stale", "suspected", "current", "added", "removed")
        await _do(quick, *change)
        for name, rows in (await state(quick))["rows"].items():
            after = {row["row"]: row for row in rows}
            assert found.get(name, (0, 0, 0, 0, 0)) == _what_happened(before[name], after), (change, name)
    _, different = quick.rebuilt()
    assert different == []


def _what_happened(before: dict[int, Any], after: dict[int, Any]) -> tuple[int, ...]:
    def waits(row: Any) -> bool | None:
        return bool(row["suspected"]) if row is not None and row["status"] == "stale" else None

    kinds = [(waits(before.get(number)), waits(row)) for number, row in after.items()]
    return (
        sum(new is False and old is not False for old, new in kinds),
        sum(new is True and old is None for old, new in kinds),
        sum(new is None and old is not None for old, new in kinds),
        len(after.keys() - before.keys()),
        len(before.keys() - after.keys()),
    )


# --- refusals ----------------------------------------------------------------------------------------------------------


_REFUSED: list[tuple[Any, int, str]] = [
    ({"edits": [{"row": 9, "values": {"sigma": 5.0}}]}, 404, "has no row 9"),
    ({"edits": [{"row": 1, "values": {"sigma": "much"}}]}, 422, "sigma"),
    ({"edits": [{"row": 1, "values": {"sigma": 5.0}, "revision": 7}]}, 412, "not at 7"),
    ({"remove": [9]}, 404, "has no row 9"),
    ({"restore": "9"}, 404, "never had a workflow version 9"),
    ({"link": {"parent": "fits", "mapping": {"sigma": "mass"}}}, 409, "sources"),
    ({"unlink": {"link": "nothing", "rows": "go"}}, 404, "nothing"),
    ({"change_link": {"link": "nothing", "filter": "x>1"}}, 404, "nothing"),
    ({}, 422, "not none"),
    ({"remove": [1], "restore": "1"}, 422, "not remove and restore"),
    ({"everything": True}, 422, "everything"),
]


async def test_what_would_be_refused_is_refused(quick: Harness) -> None:
    await linked(quick)
    before = await state(quick)
    for body, status, said in _REFUSED:
        problem = await quick.request("POST", "/tables/sources/preview", expect=status, json=body)
        assert said in problem.text
    assert await state(quick) == before


async def test_a_preview_of_what_is_no_workflow_is_refused(quick: Harness) -> None:
    await linked(quick)
    form = [("files", ("main.cwl", b"class: Workflow\n"))]
    problem = (await quick.request("POST", "/tables/sources/preview", expect=422, files=form)).json()
    assert problem["type"] == "urn:stoa:problem:invalid-workflow"
    form = [("files", ("main.cwl", tool({"z": "int"}, {"x": "int[]"})))]
    assert "flux" in (await quick.request("POST", "/tables/sources/preview", expect=409, files=form)).text
    await quick.request(
        "POST", "/tables/sources/preview", expect=415, content=b"a,b\n", headers={"Content-Type": "text/csv"}
    )


# --- words -------------------------------------------------------------------------------------------------------------


def shown(name: str, **numbers: Any) -> PreviewTable:
    nothing = dict.fromkeys(("stale", "suspected", "current", "added", "removed", "edited", "runs"), 0)
    more = {"seconds": 0.0, "seconds_suspected": 0.0, "basis": "rows", **numbers}
    return PreviewTable.model_validate({"table": name, "name": name, **nothing, **more})


def test_the_summary_is_a_sentence_or_two() -> None:
    assert summary([], changes=False) == "Nothing would change."
    assert summary([], changes=True) == "No row would become stale."
    tables = [
        shown("sources", stale=1, seconds=4000.0),
        shown("fits", suspected=1200),
        shown("plots", stale=2, seconds=None, basis=None),
    ]
    assert summary(tables, changes=True) == (
        "1 row of sources and 2 rows of plots would have to be computed anew, at least 1 h 6 min one after the other. "
        "1,200 rows of fits would wait for what they depend on, and be computed only if that comes out otherwise. "
        "Nothing is known of how long a run of plots takes."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (59.4, "59 s"),
        (60.0, "1 min"),
        (61.4, "1 min 1 s"),
        (3600.0, "1 h"),
        (7265.0, "2 h 1 min"),
        (86_400.0 * 3 + 3600, "3 d 1 h"),
    ],
)
def test_a_time_is_said_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
