"""Versions, and what a change would do, as a user types it at a running Stoa."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.client.conftest import Command

ADDS = """\
cwlVersion: v1.2
class: CommandLineTool
requirements: {InlineJavascriptRequirement: {}}
baseCommand: ["true"]
inputs:
  a: {type: int}
  b: {type: int, default: 1}
outputs:
  sum: {type: int, outputBinding: {outputEval: "$(inputs.a + inputs.b)"}}
"""


@pytest.fixture
def adding(at_stoa: Command, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A worktable that adds, with a row that was run and one that was not."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    # A workflow of its own: what another test has computed would be taken over, and nothing known of how long it takes.
    (tmp_path / "add.cwl").write_text(f"doc: {name}\n{ADDS}")
    assert at_stoa("table", "create", name, "--cwl", tmp_path / "add.cwl").status == 0
    at_stoa("table", "add", name, "a=1")
    assert at_stoa("table", "run", name, "--watch").status == 0
    at_stoa("table", "add", name, "a=2")
    return name


def test_a_workflow_is_changed_compared_and_restored(at_stoa: Command, adding: str, tmp_path: Path) -> None:
    same = tmp_path / "same" / "add.cwl"
    same.parent.mkdir()
    same.write_text(f"# adds\n{ADDS}doc: {adding}\n")
    assert "has this version already" in at_stoa("table", "set-workflow", adding, same).output

    changed = tmp_path / "add.cwl"
    changed.write_text(changed.read_text().replace("default: 1", "default: 10"))
    told = at_stoa("table", "set-workflow", adding, changed, "--preview")
    assert told.status == 0, told.errors
    assert told.output.startswith(f"1 row of {adding} would have to be computed anew, about ")
    assert len(at_stoa("version", "ls", adding, "--json").json) == 1
    assert "2 of its rows are stale" in at_stoa("table", "set-workflow", adding, changed).output

    newest, oldest = at_stoa("version", "ls", adding, "--json").json
    assert (oldest["number"], oldest["rows"], oldest["present"]) == (1, 1, False)
    assert (newest["number"], newest["rows"], newest["present"]) == (2, 0, True)
    listed = at_stoa("version", "ls", adding).output
    assert newest["version"][:12] in listed
    assert oldest["version"][:12] in listed

    difference = at_stoa("version", "diff", adding, 1)
    assert "input b changed: default from 1 to 10" in difference.output
    assert "add.cwl changed" in difference.output
    assert "+  b: {type: int, default: 10}" in difference.output.splitlines()
    assert at_stoa("version", "diff", adding, 2, newest["version"]).output == "Nothing differs.\n"
    as_json = at_stoa("version", "diff", adding, oldest["version"][:7], 2, "--json").json
    assert [file["name"] for file in as_json["files"]] == ["add.cwl"]

    told = at_stoa("version", "restore", adding, 1, "--preview", "--json").json
    assert told["tables"][0]["current"] == 1
    assert f"has the version {oldest['version'][:12]} again" in at_stoa("version", "restore", adding, 1).output
    assert [row["status"] for row in at_stoa("table", "show", adding, "--json").json["rows"]] == ["current", "stale"]


def test_a_row_is_explained(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "edit", adding, 1, "b=5")
    explained = at_stoa("why", adding, 1)
    first, *chain = explained.output.splitlines()
    assert first.startswith(f"Row 1 of {adding} is stale: input 'b' changed from 1 to 5 (")
    assert any(re.search(rf"{adding} +1 +Changed b from 1 to 5", line) for line in chain)
    found = at_stoa("why", adding, 1, "--json").json
    assert (found["sentence"], found["component"]["name"]) == (first, "b")
    refused = at_stoa("why", adding, 9)
    assert (refused.status, refused.output) == (2, "")
    assert "has no row 9" in refused.errors


def test_rows_are_accepted_and_pinned(at_stoa: Command, adding: str, tmp_path: Path) -> None:
    at_stoa("table", "edit", adding, 1, "b=5")
    told = at_stoa("table", "accept", adding, 1, "-m", "It makes no difference.")
    assert told.output == f"Accepted 1 row of {adding}.\n"
    assert at_stoa("table", "show", adding, "--json").json["rows"][0]["status"] == "current"
    assert at_stoa("table", "pin", adding, 1, 2, "--version", 1).output.startswith(f"2 rows of {adding} stay with ")
    changed = tmp_path / "add.cwl"
    changed.write_text(changed.read_text().replace("default: 1", "default: 10"))
    at_stoa("table", "set-workflow", adding, changed)
    assert at_stoa("table", "show", adding, "--json").json["rows"][0]["status"] == "current"
    assert "follows the workflow" in at_stoa("table", "pin", adding, 1, "--none").output
    assert at_stoa("table", "show", adding, "--json").json["rows"][0]["status"] == "stale"
    refused = at_stoa("table", "accept", adding, 2, "-m", "So.")
    assert (refused.status, refused.output) == (2, "")
    assert "has no outputs" in refused.errors
    assert at_stoa("table", "pin", adding, 1).status == 2


def test_a_change_is_previewed(at_stoa: Command, adding: str, tmp_path: Path) -> None:
    told = at_stoa("table", "preview", "edit", adding, 1, "b=5")
    assert told.output.startswith(f"1 row of {adding} would have to be computed anew")
    assert re.search(rf"{adding} +1 +1 +[\d.e-]+ s", told.output)
    assert at_stoa("table", "preview", "edit", adding, 1, "a=1").output == "Nothing would change.\n"
    assert at_stoa("table", "preview", "rm", adding, 1, 2, "--json").json["removed"] == 2
    assert at_stoa("table", "preview", "restore", adding, 1).output == "Nothing would change.\n"
    changed = tmp_path / "add.cwl"
    changed.write_text(ADDS.replace("default: 1", "default: 10"))
    assert at_stoa("table", "preview", "workflow", adding, changed, "--json").json["stale"] == 1
    at_stoa("table", "create", f"{adding[:50]}-below", "--cwl", tmp_path / "add.cwl")
    below = f"{adding[:50]}-below"
    linking = ("link", below, adding, "a=sum", "--per", "row")
    told = at_stoa("table", "preview", *linking, "--filter", "sum>100", "--json").json
    assert told["added"] == 0
    told = at_stoa("table", "preview", *linking, "--json").json
    assert (told["added"], told["unknown"]) == (1, [below])
    link = at_stoa("table", *linking, "--json").json["link"]["link"]
    assert at_stoa("table", "preview", "unlink", below, link, "--rows", "go", "--json").json["removed"] == 1
    assert [row["values"]["b"] for row in at_stoa("table", "show", adding, "--json").json["rows"]] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("version", "diff", "{}", 7), "never had a workflow version 7"),
        (("version", "restore", "{}", "x"), "names no workflow version"),
        (("version", "ls", "nowhere"), "There is no table"),
        (("table", "preview", "rm", "{}", 9), "has no row 9"),
        (("table", "preview", "link", "{}", "{}", "a"), "INPUT=COLUMN"),
    ],
)
def test_what_cannot_be_is_refused(at_stoa: Command, tmp_path: Path, arguments: tuple[object, ...], said: str) -> None:
    (tmp_path / "add.cwl").write_text(ADDS)
    # The first of these tests makes it.
    at_stoa("table", "create", "refused-here", "--cwl", tmp_path / "add.cwl")
    refused = at_stoa(*(str(argument).replace("{}", "refused-here") for argument in arguments))
    assert (refused.status, refused.output) == (2, "")
    assert said in refused.errors


def test_help_names_what_a_group_has_in_modules_of_their_own(command: Command) -> None:
    shown = command("table", "--help").output
    assert re.search(r"set-workflow +Give a worktable another workflow version", shown)
    assert re.search(r"show +Show a table", shown)
    assert re.search(r"version +List, compare and restore", command("--help").output)
