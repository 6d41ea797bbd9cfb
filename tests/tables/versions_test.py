"""The workflow versions of a table: listed, compared, restored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stoa_contracts.types import Column
from stoa_tables.bundle import Bundle
from stoa_tables.version_difference import (
    MAX_LINES,
    MAX_LINES_IN_ALL,
    MAX_TEXT,
    FileDifference,
    compare_columns,
    compare_files,
)
from tests.tables.harness import Harness, tool

FIRST = tool({"x": "int"}, {"y": "int"})
SECOND = tool({"x": "int", "sigma": {"type": "float", "default": 3.0}}, {"y": "float"})
THIRD = tool({"x": "int"}, {"y": "int"}, label="Third")


async def upload(stoa: Harness, table: str, *contents: Mapping[str, bytes]) -> Any:
    """Give a table several workflow versions, one after the other."""
    detail = None
    for files in contents:
        form = [("files", (name, content)) for name, content in files.items()]
        detail = (await stoa.request("PUT", f"/tables/{table}/workflow", expect=200, files=form)).json()
    return detail


async def create(stoa: Harness, table: str, files: Mapping[str, bytes]) -> Any:
    form = [("files", (name, content)) for name, content in files.items()]
    described = json.dumps({"name": table})
    return (await stoa.request("POST", "/tables", expect=201, files=form, data={"table": described})).json()


async def versions(stoa: Harness, table: str) -> list[Any]:
    listed: list[Any] = (await stoa.get(f"/tables/{table}/versions"))["versions"]
    return listed


# --- listed ------------------------------------------------------------------------------------------------------------


async def test_every_version_a_table_had_is_listed_with_when_by_whom_and_what_it_computed(stoa: Harness) -> None:
    first = await create(stoa, "t", {"main.cwl": FIRST, "run.py": b"1\n"})
    await stoa.add("t", {"x": 1}, {"x": 2}, {"x": 3})
    for row in (1, 2):
        await stoa.run("t", row, {"y": row})
    second = await upload(stoa, "t", {"main.cwl": SECOND})
    await stoa.run("t", 2, {"y": 2.5})

    newest, oldest = await versions(stoa, "t")
    assert (oldest["number"], oldest["version"], oldest["present"]) == (1, first["workflow"]["version"], False)
    assert (newest["number"], newest["version"], newest["present"]) == (2, second["workflow"]["version"], True)
    assert (oldest["rows"], newest["rows"], newest["pinned"]) == (1, 1, 0)
    assert (oldest["files"], oldest["size"]) == (2, len(FIRST) + 2)
    changed = await stoa.log(0, "workflow-changed")
    for shown, envelope in zip((oldest, newest), changed, strict=True):
        assert shown["first"] == shown["last"]
        assert shown["first"]["actor"] == "ada"
        assert shown["first"]["position"] == envelope.log_position


async def test_a_version_that_comes_back_keeps_its_number(stoa: Harness) -> None:
    await create(stoa, "t", {"main.cwl": FIRST})
    await upload(stoa, "t", {"main.cwl": SECOND}, {"main.cwl": FIRST}, {"main.cwl": THIRD})
    listed = await versions(stoa, "t")
    assert [(item["number"], item["label"]) for item in listed] == [(3, "Third"), (2, None), (1, None)]
    assert listed[2]["first"]["position"] < listed[1]["first"]["position"] < listed[2]["last"]["position"]
    _, different = stoa.rebuilt()
    assert different == []


async def test_versions_come_in_pages(quick: Harness) -> None:
    await create(quick, "t", {"main.cwl": FIRST})
    await upload(quick, "t", {"main.cwl": SECOND}, {"main.cwl": THIRD})
    page = await quick.get("/tables/t/versions", limit=2)
    assert ([item["number"] for item in page["versions"]], page["next"]) == ([3, 2], 2)
    page = await quick.get("/tables/t/versions", limit=2, before=page["next"])
    assert ([item["number"] for item in page["versions"]], page["next"]) == ([1], None)


async def test_tables_of_one_workflow_count_their_own_rows(quick: Harness) -> None:
    for table in ("t", "u"):
        await create(quick, table, {"main.cwl": FIRST})
        await quick.add(table, {"x": 1})
    await quick.run("u", 1, {"y": 1})
    assert [[item["rows"] for item in await versions(quick, table)] for table in ("t", "u")] == [[0], [1]]


async def test_a_plain_table_has_no_versions(quick: Harness) -> None:
    await quick.plain("p", {"ra": "double"})
    problem = (await quick.request("GET", "/tables/p/versions", expect=404)).json()
    assert problem["detail"] == "p is a plain table; it has no workflow"


# --- the same version --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(b"# by somebody else\n" + FIRST, id="comment"),
        pytest.param(json.dumps(dict(reversed(json.loads(FIRST).items())), indent=4).encode(), id="order of keys"),
        pytest.param(
            b"cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: 'true'\n"
            b"outputs: {y: int} # one\ninputs:\n  x: int\n",
            id="YAML",
        ),
    ],
)
async def test_another_writing_of_the_same_workflow_changes_nothing(quick: Harness, same: bytes) -> None:
    before = await create(quick, "t", {"main.cwl": FIRST, "run.py": b"1\n"})
    await quick.add("t", {"x": 1})
    await quick.run("t", 1, {"y": 1})
    head = await quick.head()
    after = await upload(quick, "t", {"main.cwl": same, "run.py": b"1\n"})
    assert after["workflow"] == before["workflow"]
    assert await quick.head() == head
    assert [row["status"] for row in await quick.rows("t")] == ["current"]
    changed = await upload(quick, "t", {"main.cwl": same, "run.py": b"1 \n"})
    assert changed["workflow"]["version"] != before["workflow"]["version"]
    assert [row["status"] for row in await quick.rows("t")] == ["stale"]


# --- compared ----------------------------------------------------------------------------------------------------------


async def test_two_versions_are_compared_by_files_and_columns(stoa: Harness) -> None:
    await create(stoa, "t", {"main.cwl": FIRST, "bin/find.py": b"import sys\nprint(1)\n", "old.txt": b"old\n"})
    # What a person says of a column is no difference of the workflows.
    await stoa.patch("/tables/t/columns/x", {"unit": "Jy"})
    changed = {"main.cwl": SECOND, "bin/find.py": b"import sys\nprint(2)", "new.bin": b"\0\1"}
    second = await upload(stoa, "t", changed)

    found = await stoa.get("/tables/t/versions/1/diff/2")
    assert (found["table"], found["main"], found["process_class"]) == (second["id"], None, None)
    files = {file["name"]: file for file in found["files"]}
    assert {name: file["change"] for name, file in files.items()} == {
        "bin/find.py": "changed",
        "main.cwl": "changed",
        "new.bin": "added",
        "old.txt": "removed",
    }
    assert files["bin/find.py"]["text"] == (
        "--- a/bin/find.py\n+++ b/bin/find.py\n@@ -1,2 +1,2 @@\n import sys\n-print(1)\n+print(2)\n"
        "\\ No newline at end of file\n"
    )
    assert files["old.txt"]["text"] == "--- a/old.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-old\n"
    assert (files["new.bin"]["text"], files["new.bin"]["left_out"]) == (None, "The file is no text.")
    assert files["new.bin"]["after"]["size"] == 2
    columns = found["columns"]
    assert [column["name"] for column in columns["added"]] == ["sigma"]
    assert columns["removed"] == []
    assert [(column["name"], column["fields"]) for column in columns["changed"]] == [("y", ["type"])]
    assert (columns["changed"][0]["before"]["type"], columns["changed"][0]["after"]["type"]) == ("int", "float")

    back = await stoa.get(f"/tables/t/versions/{found['after']}/diff/{found['before'][:7]}")
    assert (back["before"], back["after"]) == (found["after"], found["before"])
    assert [column["name"] for column in back["columns"]["removed"]] == ["sigma"]
    same = await stoa.get("/tables/t/versions/2/diff/2")
    assert (same["files"], same["columns"]) == ([], {"added": [], "removed": [], "changed": []})


async def test_a_version_that_a_table_never_had_is_refused(quick: Harness) -> None:
    await create(quick, "t", {"main.cwl": FIRST})
    other = await create(quick, "u", {"main.cwl": SECOND})
    unknown = ["3", "0" * 64, "abcdefa", other["workflow"]["version"]]
    cases = [(version, 404) for version in unknown] + [(version, 422) for version in ("0", "abc", "HEAD", "%2500")]
    for version, status in cases:
        await quick.request("GET", f"/tables/t/versions/{version}/diff/1", expect=status)
        problem = (await quick.request("POST", f"/tables/t/versions/{version}/restore", expect=status)).json()
        assert version.replace("%25", "%") in problem["detail"]


def bundles(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> tuple[Bundle, Bundle]:
    return Bundle("main.cwl", {"main.cwl": FIRST, **before}), Bundle("main.cwl", {"main.cwl": FIRST, **after})


def only(differences: list[FileDifference]) -> FileDifference:
    (difference,) = differences
    return difference


def test_a_document_that_says_the_same_is_marked() -> None:
    one = Bundle("main.cwl", {"main.cwl": FIRST})
    other = Bundle("main.cwl", {"main.cwl": b"# comment\n" + FIRST})
    difference = only(compare_files(one, other))
    assert (difference.change, difference.same_meaning) == ("changed", True)
    assert difference.text is not None
    assert "+# comment\n" in difference.text
    assert not only(compare_files(*bundles({"a.py": b"1"}, {"a.py": b"1 "}))).same_meaning


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"x"),
        (b"a\nb", b"a\nc"),
        (b"a\r\nb\n", b"a\nb\n"),
        (b"a\x0cb\n", b"a\x0cc\n"),
        (b"\n\n", b"\n"),
        (b"x\n", b""),
    ],
)
def test_the_difference_of_lines_is_what_patch_understands(before: bytes, after: bytes, tmp_path: Path) -> None:
    difference = only(compare_files(*bundles({"a.txt": before}, {"a.txt": after})))
    assert difference.text is not None
    assert _patched(before.decode(), difference.text) == after.decode()


def _patched(text: str, difference: str) -> str:
    """Apply a unified difference of one hunk, as patch does."""
    made: list[str] = []
    last = ""
    for line in difference.split("\n")[3:-1]:
        if line == "\\ No newline at end of file":
            if last.startswith(("+", " ")):
                made[-1] = made[-1].removesuffix("\n")
            continue
        last = line
        if not line.startswith("-"):
            made.append(f"{line[1:]}\n")
        if not line.startswith("+"):
            taken = line[1:]
            assert text.startswith(taken)
            text = text[len(taken) :].removeprefix("\n")
    assert text == ""
    return "".join(made)


def test_long_differences_are_cut_and_said_to_be() -> None:
    before = b"\n".join(b"%d" % number for number in range(4000))
    after = b"\n".join(b"%d and so on, for a long line" % number for number in range(4000))
    difference = only(compare_files(*bundles({"a.txt": before}, {"a.txt": after})))
    assert difference.text is not None
    assert 0 < len(difference.text) <= MAX_TEXT
    assert difference.left_out is not None
    assert f"Only the first {len(difference.text):,} characters" in difference.left_out


def test_files_of_very_many_lines_are_not_compared_line_by_line() -> None:
    difference = only(compare_files(*bundles({"a.txt": b"\n" * MAX_LINES}, {"a.txt": b"x"})))
    assert (difference.text, difference.left_out) == (None, "The file has 5,001 lines, too many to compare here.")


def test_so_many_lines_are_compared_in_all() -> None:
    names = [f"{number}.txt" for number in range(MAX_LINES_IN_ALL // MAX_LINES + 1)]
    content = b"\n" * (MAX_LINES - 1)
    found = compare_files(*bundles(dict.fromkeys(names, content), dict.fromkeys(names, content + b"x")))
    assert [difference.text is None for difference in found] == [False] * (len(names) - 1) + [True]


def test_columns_are_compared_by_what_the_workflow_says() -> None:
    x = Column(name="x", role="input", type="int")
    y = Column(name="y", role="output", type="float", unit="Jy")
    difference = compare_columns([x, y], [y.model_copy(update={"unit": "mJy", "label": "Flux"}), x])
    assert (difference.added, difference.removed) == ([], [])
    assert [(item.name, item.fields) for item in difference.changed] == [("y", ["label", "unit"])]
    assert compare_columns([x, y], [x, y]).changed == []


# --- restored ----------------------------------------------------------------------------------------------------------


async def test_a_restored_version_is_the_tables_again_and_its_rows_are_current(stoa: Harness) -> None:
    first = await create(stoa, "t", {"main.cwl": FIRST, "bin/run.py": b"1\n"})
    await stoa.add("t", {"x": 1}, {"x": 2})
    await stoa.run("t", 1, {"y": 1})
    await upload(stoa, "t", {"main.cwl": SECOND})
    assert [row["status"] for row in await stoa.rows("t")] == ["stale", "stale"]

    answer = await stoa.request("POST", "/tables/t/versions/1/restore", expect=200)
    restored = answer.json()
    assert restored["workflow"] == first["workflow"]
    assert restored["columns"] == first["columns"]
    assert [row["status"] for row in await stoa.rows("t")] == ["current", "stale"]
    changed = (await stoa.log(0, "workflow-changed"))[-1]
    assert changed.data["workflow_version"] == first["workflow"]["version"]
    assert int(answer.headers["Stoa-Position"]) == await stoa.head()
    assert [item["present"] for item in await versions(stoa, "t")] == [False, True]


async def test_restoring_the_present_version_changes_nothing(quick: Harness) -> None:
    detail = await create(quick, "t", {"main.cwl": FIRST})
    head = await quick.head()
    restored = (await quick.request("POST", "/tables/t/versions/1/restore", expect=200)).json()
    assert {**restored, "position": 0} == {**detail, "position": 0}
    assert await quick.head() == head


async def test_what_people_said_of_columns_comes_back_with_the_version(stoa: Harness) -> None:
    await create(stoa, "t", {"main.cwl": FIRST})
    await stoa.patch("/tables/t/columns/x", {"unit": "Jy", "ucd": "phot.flux"})
    await upload(stoa, "t", {"main.cwl": tool({"z": "int"}, {"y": "int"})})
    await stoa.patch("/tables/t/columns/y", {"description": "Said later."})
    restored = (await stoa.request("POST", "/tables/t/versions/1/restore", expect=200)).json()
    columns = {column["name"]: column for column in restored["columns"]}
    assert (columns["x"]["unit"], columns["x"]["ucd"]) == ("Jy", "phot.flux")
    assert columns["y"]["description"] == "Said later."
    _, different = stoa.rebuilt()
    assert different == []


async def test_a_version_without_a_column_that_a_link_needs_is_not_restored(quick: Harness) -> None:
    await create(quick, "t", {"main.cwl": FIRST})
    await upload(quick, "t", {"main.cwl": SECOND})
    await quick.plain("p", {"s": "float"})
    await quick.post("/tables/t/links", {"parent": "p", "per": "row", "mapping": {"sigma": "s"}})
    head = await quick.head()
    problem = (await quick.request("POST", "/tables/t/versions/1/restore", expect=409)).json()
    assert "no input 'sigma', which a link fills" in problem["detail"]
    assert await quick.head() == head


async def test_a_version_is_restored_once_for_one_key(quick: Harness) -> None:
    await create(quick, "t", {"main.cwl": FIRST})
    await upload(quick, "t", {"main.cwl": SECOND})
    answers = [
        (
            await quick.request("POST", "/tables/t/versions/1/restore", expect=200, headers={"Idempotency-Key": "k"})
        ).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(await quick.log(0, "workflow-changed")) == 3
