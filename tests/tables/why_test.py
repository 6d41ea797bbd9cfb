"""Why a row is what it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stoa_contracts.events.executor import FileChanged
from tests.tables.harness import Harness, tool
from tests.tables.versions_test import create, upload

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"

FIND = tool({"image": "string", "sigma": {"type": "float", "default": 3.0}}, {"x": "int[]"})
FIT = tool({"x": "int", "order": "int?"}, {"mass": "float"})


async def why(stoa: Harness, table: str, row: int) -> Any:
    return await stoa.get(f"/tables/{table}/rows/{row}/why")


def sentence(found: Any) -> str:
    """Give the sentence without its times."""
    text: str = re.sub(WHEN, "NOW", found["sentence"])
    return text


def chain(found: Any) -> list[tuple[str, str, int | None]]:
    return [(event["type"], event["name"], event["row"]) for event in found["chain"]]


async def found_row(stoa: Harness, *, sigma: float = 3.0) -> None:
    """A table with a row that was run."""
    await create(stoa, "sources", {"main.cwl": FIND, "bin/find.py": b"1\n", "notes.txt": b""})
    await stoa.add("sources", {"image": "a.fits", "sigma": sigma})
    await stoa.run("sources", 1, {"x": [1, 2]})


async def survey(stoa: Harness) -> None:
    """A table of images, a fit for each source in them, and a catalogue; all of it current."""
    await found_row(stoa)
    await create(stoa, "fits", {"main.cwl": FIT})
    await stoa.plain("names", {"x": "int", "name": "string"})
    await stoa.add("names", {"x": 1, "name": "Cen A"})
    await stoa.post("/tables/fits/links", {"parent": "sources", "mapping": {"x": "x"}, "keys": ["x"]})
    await stoa.join("catalogue", "fits", "names", [("x", "x")])
    for row in (1, 2):
        await stoa.run("fits", row, {"mass": row / 2})


# --- stale -------------------------------------------------------------------------------------------------------------


async def test_an_edited_input_is_named_with_who_and_when(stoa: Harness) -> None:
    await found_row(stoa)
    await stoa.patch("/tables/sources/rows/1", {"sigma": 4.0})
    await stoa.patch("/tables/sources/rows/1", {"sigma": 5.0})
    found = await why(stoa, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is stale: input 'sigma' changed from 3.0 to 5.0 (ada, NOW), after the run that made its outputs."
    )
    assert found["component"] == {"kind": "input", "name": "sigma", "before": 3.0, "after": 5.0}
    assert (found["status"], found["suspected"]) == ("stale", False)
    assert chain(found) == [("outputs-recorded", "sources", 1), ("row-edited", "sources", 1)]
    assert [event["position"] for event in found["chain"]] == sorted(event["position"] for event in found["chain"])
    assert found["chain"][-1]["what"] == "Changed sigma from 4.0 to 5.0"
    assert found["position"] == await stoa.head()


async def test_the_first_input_that_differs_is_named_and_no_other(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    await quick.patch("/tables/sources/rows/1", {"image": "b.fits"})
    assert "input 'image' changed from a.fits to b.fits" in sentence(await why(quick, "sources", 1))
    await quick.patch("/tables/sources/rows/1", {"image": "a.fits"})
    assert "input 'sigma' changed from 3.0 to 5.0" in sentence(await why(quick, "sources", 1))


async def test_a_value_and_its_default_are_the_same(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": None})
    await quick.patch("/tables/sources/rows/1", {"image": "b.fits"})
    assert (await why(quick, "sources", 1))["component"]["name"] == "image"


async def test_a_changed_script_is_named(stoa: Harness) -> None:
    await found_row(stoa)
    before, after = (
        await stoa.get("/tables/sources/workflow"),
        {
            "main.cwl": b"# comment\n" + FIND,
            "bin/find.py": b"2\n",
            "new.py": b"",
        },
    )
    after_version = (await upload(stoa, "sources", after))["workflow"]["version"]
    # The workflow comes before the inputs.
    await stoa.patch("/tables/sources/rows/1", {"sigma": 5.0})
    found = await why(stoa, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is stale: the workflow changed: bin/find.py and 2 more files (ada, NOW), after the run that made "
        "its outputs."
    )
    assert found["component"] == {
        "kind": "workflow",
        "name": "bin/find.py",
        "before": before["version"],
        "after": after_version,
    }
    assert chain(found) == [("outputs-recorded", "sources", 1), ("workflow-changed", "sources", None)]


async def test_a_pinned_row_names_its_version(quick: Harness) -> None:
    await found_row(quick)
    await upload(quick, "sources", {"main.cwl": FIND, "bin/find.py": b"2\n", "notes.txt": b""})
    await quick.post("/tables/sources/pin", {"rows": [1], "version": "1"}, expect=200)
    found = await why(quick, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is current: its outputs were made by a run with its present inputs and workflow version (NOW), to which "
        "ada pinned it (NOW)."
    )
    assert ("rows-pinned", "sources", 1) in chain(found)
    await quick.post("/tables/sources/pin", {"rows": [1], "version": "2"}, expect=200)
    found = await why(quick, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is stale: it was pinned to another version of the workflow: bin/find.py (ada, NOW), after the run that "
        "made its outputs."
    )
    assert [version["pinned"] for version in (await quick.get("/tables/sources/versions"))["versions"]] == [1, 0]


@pytest.mark.parametrize(("present", "said"), [("2" * 64, "changed"), (None, "is gone")])
async def test_a_file_that_changed_is_named(quick: Harness, present: str | None, said: str) -> None:
    read = "1" * 64
    location = "file:///archive/a.fits"
    await create(quick, "fluxes", {"main.cwl": tool({"image": "File"}, {"flux": "float"})})
    await quick.add("fluxes", {"image": {"class": "File", "location": location}})
    await quick.run("fluxes", 1, {"flux": 1.0}, files={location: read})
    changed = FileChanged(location=location, previous=read, sha256=present)
    await quick.tell("executor", "files", changed)
    found = await why(quick, "fluxes", 1)
    assert sentence(found) == (
        f"Row 1 of fluxes is stale: the file {location} {said} (NOW), after the run that made its outputs."
    )
    assert found["component"] == {"kind": "file", "name": location, "before": read, "after": present}
    assert chain(found) == [("outputs-recorded", "fluxes", 1), ("table-invalidated", "fluxes", 1)]


async def test_a_row_that_was_never_run_says_so(quick: Harness) -> None:
    await create(quick, "fits", {"main.cwl": FIT})
    await quick.add("fits", {"x": 1}, {})
    found = await why(quick, "fits", 1)
    assert sentence(found) == "Row 1 of fits is stale: it was not run since ada added it (NOW)."
    assert chain(found) == [("rows-added", "fits", 1)]
    found = await why(quick, "fits", 2)
    assert sentence(found) == "Row 2 of fits is stale: a value is missing: x."
    await quick.patch("/tables/fits/rows/2", {"x": 7})
    found = await why(quick, "fits", 2)
    assert chain(found) == [("rows-added", "fits", 2), ("row-edited", "fits", 2)]


async def test_a_derived_row_names_what_it_comes_from(quick: Harness) -> None:
    await found_row(quick)
    await create(quick, "fits", {"main.cwl": FIT})
    await quick.post("/tables/fits/links", {"parent": "sources", "mapping": {"x": "x"}, "keys": ["x"]})
    found = await why(quick, "fits", 2)
    assert sentence(found) == "Row 2 of fits is stale: it was not run since it was derived from row 1 of sources (NOW)."
    assert chain(found)[-1] == ("rows-added", "fits", 2)
    assert ("table-linked", "fits", None) in chain(found)


async def test_what_changed_upstream_is_followed_to_the_first_event(quick: Harness) -> None:
    await survey(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 2.0})
    await quick.run("sources", 1, {"x": [1, 3]})
    found = await why(quick, "fits", 3)
    assert sentence(found) == "Row 3 of fits is stale: it was not run since it was derived from row 1 of sources (NOW)."
    assert chain(found) == [
        ("row-edited", "sources", 1),
        ("outputs-recorded", "sources", 1),
        ("rows-added", "fits", 3),
    ]
    assert found["chain"][0]["what"] == "Changed sigma from 3.0 to 2.0"


async def test_a_derived_value_that_came_out_otherwise_is_named(quick: Harness) -> None:
    await found_row(quick)
    await create(quick, "plots", {"main.cwl": tool({"xs": "int[]"}, {"size": "int"})})
    await quick.post("/tables/plots/links", {"parent": "sources", "per": "row", "mapping": {"xs": "x"}})
    await quick.run("plots", 1, {"size": 2})
    await quick.patch("/tables/sources/rows/1", {"sigma": 2.0})
    await quick.run("sources", 1, {"x": [1, 2, 3]})
    found = await why(quick, "plots", 1)
    assert sentence(found) == (
        "Row 1 of plots is stale: input 'xs' changed from [1, 2] to [1, 2, 3], as row 1 of sources gives it now (NOW), "
        "after the run that made its outputs."
    )
    assert found["component"]["before"] == [1, 2]
    assert chain(found) == [
        ("outputs-recorded", "plots", 1),
        ("row-edited", "sources", 1),
        ("outputs-recorded", "sources", 1),
        ("row-edited", "plots", 1),
    ]


async def test_a_locked_row_says_that_it_is_not_run(quick: Harness) -> None:
    await create(quick, "fits", {"main.cwl": FIT})
    await quick.add("fits", {"x": 1})
    await quick.post("/tables/fits/locks", {"rows": [1], "locked": True, "reason": "published"}, expect=200)
    found = await why(quick, "fits", 1)
    assert sentence(found) == (
        "Row 1 of fits is stale: it was not run since ada added it (NOW); and ada locked it, so that it is not run: published."
    )
    assert chain(found)[-1] == ("row-locked", "fits", 1)


# --- suspected ---------------------------------------------------------------------------------------------------------


async def test_a_suspected_row_names_the_row_for_which_it_waits_and_why(quick: Harness) -> None:
    await survey(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    found = await why(quick, "fits", 2)
    assert (found["status"], found["suspected"]) == ("stale", True)
    assert sentence(found) == (
        "Row 2 of fits is suspected: it waits for row 1 of sources, which is stale because input 'sigma' changed from 3.0 to 5.0 "
        "(ada, NOW), after the run that made its outputs."
    )
    assert found["component"]["name"] == "sigma"
    assert ("row-edited", "sources", 1) in chain(found)
    assert chain(found)[-1][:2] == ("table-invalidated", "fits")


async def test_suspicion_is_followed_through_several_tables(stoa: Harness) -> None:
    await survey(stoa)
    await create(stoa, "plots", {"main.cwl": tool({"mass": "float"}, {"plot": "string"})})
    await stoa.post("/tables/plots/links", {"parent": "catalogue", "per": "row", "mapping": {"mass": "mass"}})
    await stoa.run("plots", 1, {"plot": "a"})
    assert sentence(await why(stoa, "plots", 1)).startswith("Row 1 of plots is current:")
    await upload(stoa, "sources", {"main.cwl": FIND, "bin/find.py": b"2\n", "notes.txt": b""})
    found = await why(stoa, "plots", 1)
    assert sentence(found) == (
        "Row 1 of plots is suspected: it waits for row 1 of catalogue, which waits for row 1 of fits, which waits for row 1 of "
        "sources, which is stale because the workflow changed: bin/find.py (ada, NOW), after the run that made its outputs."
    )
    assert found["component"]["name"] == "bin/find.py"
    joined = await why(stoa, "catalogue", 1)
    assert sentence(joined).startswith(
        "Row 1 of catalogue is current, but suspected: it waits for row 1 of fits, which waits"
    )


async def test_a_row_of_a_group_names_the_member_for_which_it_waits(stoa: Harness) -> None:
    await found_row(stoa)
    await stoa.add("sources", {"image": "b.fits", "sigma": 3.0})
    await stoa.run("sources", 2, {"x": [3]})
    await create(stoa, "means", {"main.cwl": tool({"sigma": "float", "xs": "int[]"}, {"mean": "float"})})
    mapping = {"sigma": "sigma", "xs": "x"}
    await stoa.post("/tables/means/links", {"parent": "sources", "per": "group", "mapping": mapping, "keys": ["sigma"]})
    found = await why(stoa, "means", 1)
    assert sentence(found) == "Row 1 of means is stale: it was not run since it was derived from rows of sources (NOW)."
    await stoa.run("means", 1, {"mean": 2.0})
    await stoa.patch("/tables/sources/rows/2", {"image": "c.fits"})
    found = await why(stoa, "means", 1)
    assert sentence(found) == (
        "Row 1 of means is suspected: it waits for row 2 of sources, which is stale because input 'image' changed from b.fits to "
        "c.fits (ada, NOW), after the run that made its outputs."
    )
    await stoa.run("sources", 2, {"x": [4]})
    found = await why(stoa, "means", 1)
    assert sentence(found) == (
        "Row 1 of means is stale: input 'xs' changed from [1, 2, 3] to [1, 2, 4], as rows of sources give it now (NOW), after the "
        "run that made its outputs."
    )
    assert chain(found) == [
        ("outputs-recorded", "means", 1),
        ("row-edited", "sources", 2),
        ("outputs-recorded", "sources", 2),
        ("row-edited", "means", 1),
    ]


async def test_a_row_may_be_stale_and_wait(quick: Harness) -> None:
    await survey(quick)
    await quick.patch("/tables/fits/rows/1", {"order": 2})
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    assert sentence(await why(quick, "fits", 1)) == (
        "Row 1 of fits is stale: input 'order' changed from nothing to 2 (ada, NOW), after the run that made its outputs; and it "
        "waits for row 1 of sources, which is stale because input 'sigma' changed from 3.0 to 5.0 (ada, NOW), after the run that "
        "made its outputs."
    )


async def test_a_row_waits_for_one_that_failed(quick: Harness) -> None:
    await survey(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    job = (await quick.queue("sources", 1))[1]
    await quick.finish("sources", 1, job, None, outcome="permanentFail", error="The disk is full.")
    assert sentence(await why(quick, "fits", 1)) == (
        "Row 1 of fits is suspected: it waits for row 1 of sources, which failed: The disk is full (NOW)."
    )


# --- what is no longer, or not yet, stale ------------------------------------------------------------------------------


async def test_a_current_row_names_the_run(quick: Harness) -> None:
    await found_row(quick)
    found = await why(quick, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is current: its outputs were made by a run with its present inputs and workflow version (NOW)."
    )
    assert (found["component"], chain(found)) == (None, [("outputs-recorded", "sources", 1)])


async def test_a_row_that_is_current_again_says_what_happened_since(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    await quick.patch("/tables/sources/rows/1", {"sigma": 3.0})
    found = await why(quick, "sources", 1)
    assert found["status"] == "current"
    assert chain(found) == [("outputs-recorded", "sources", 1), ("row-edited", "sources", 1)]


async def test_a_row_that_a_person_accepted_says_who_and_why(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    await quick.post("/tables/sources/accept", {"rows": [1], "reason": "No source is that faint."}, expect=200)
    found = await why(quick, "sources", 1)
    assert sentence(found) == (
        "Row 1 of sources is current: ada accepted its outputs as they are (NOW): No source is that faint."
    )
    assert chain(found) == [("rows-accepted", "sources", 1)]


async def test_outputs_that_were_taken_over_are_said_to_be(quick: Harness) -> None:
    await create(quick, "sources", {"main.cwl": FIND})
    await quick.add("sources", {"image": "a"}, {"image": "a"})
    job = await quick.run("sources", 1, {"x": [1]})
    await quick.run("sources", 2, {"x": [1]}, reused_from=job)
    assert "were taken over from an earlier run" in sentence(await why(quick, "sources", 2))


async def test_a_row_on_its_way_says_why_it_has_to_be_run(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    job = (await quick.queue("sources", 1))[1]
    expected = "because input 'sigma' changed from 3.0 to 5.0 (ada, NOW), after the run that made its outputs."
    found = await why(quick, "sources", 1)
    assert sentence(found) == f"Row 1 of sources is queued (scheduler, NOW), {expected}"
    assert chain(found)[-1] == ("row-status-changed", "sources", 1)
    await quick.start("sources", 1, job)
    assert sentence(await why(quick, "sources", 1)) == f"Row 1 of sources is running (executor, NOW), {expected}"


async def test_a_row_that_failed_or_was_cancelled_says_why(quick: Harness) -> None:
    await found_row(quick)
    await quick.patch("/tables/sources/rows/1", {"sigma": 5.0})
    job = (await quick.queue("sources", 1))[1]
    await quick.finish("sources", 1, job, None, outcome="permanentFail", error="The disk is full.")
    found = await why(quick, "sources", 1)
    assert sentence(found) == "Row 1 of sources failed: The disk is full (NOW)."
    assert chain(found) == [("row-edited", "sources", 1), ("row-status-changed", "sources", 1)]
    job = (await quick.queue("sources", 1))[1]
    await quick.cancel("sources", 1, job)
    assert sentence(await why(quick, "sources", 1)) == "Row 1 of sources was cancelled: ada cancelled it (NOW)."


async def test_rows_that_are_never_run_are_current(quick: Harness) -> None:
    await survey(quick)
    plain, joined = await why(quick, "names", 1), await why(quick, "catalogue", 1)
    assert sentence(plain) == "Row 1 of names is current: names is a plain table, whose rows are never run."
    assert chain(plain) == [("rows-added", "names", 1)]
    assert sentence(joined).startswith("Row 1 of catalogue is current: catalogue is a join, ")


async def test_a_row_that_is_not_there_is_refused(quick: Harness) -> None:
    await create(quick, "sources", {"main.cwl": FIND})
    problem = (await quick.request("GET", "/tables/sources/rows/2/why", expect=404)).json()
    assert problem["detail"] == "The table sources has no row 2"
