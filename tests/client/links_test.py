"""Links and corrections, as a user types them at a running Stoa."""

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
  a: {type: "int?"}
  b: {type: "int?"}
outputs:
  sum: {type: int, outputBinding: {outputEval: "$(inputs.a + inputs.b)"}}
"""


@pytest.fixture
def tables(at_stoa: Command, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """A plain table with two rows, and a worktable."""
    name = re.sub(r"\W", "-", request.node.name)[:40]
    parent, child = f"{name}-p", f"{name}-c"
    points = tmp_path / "points.csv"
    points.write_text("x,y\n1,10\n2,20\n3,30\n")
    assert at_stoa("table", "import", points, "--name", parent).status == 0
    document = tmp_path / "add.cwl"
    document.write_text(ADDS)
    assert at_stoa("table", "create", child, "--cwl", document).status == 0
    return parent, child


def test_links_are_added_changed_and_given_up(at_stoa: Command, tables: tuple[str, str]) -> None:
    parent, child = tables
    assert at_stoa("link", "ls", child).output == f"{child} is filled from no other table.\n"
    added = at_stoa("link", "add", child, parent, "a=x", "--per", "row", "--filter", "x>1")
    assert added.output.startswith(f"{child} is filled from {parent}")
    listed = at_stoa("link", "ls", child, "--json").json
    assert [(item["mapping"], item["filter"]) for item in listed] == [({"a": "x"}, "x>1")]
    assert "x>1" in at_stoa("link", "ls").output
    changed = at_stoa("link", "change", child, parent, "a=x", "b=y", "--filter", "", "--json").json
    assert (changed["link"]["mapping"], changed["link"]["filter"]) == ({"a": "x", "b": "y"}, None)
    shown = at_stoa("table", "show", child, "--json").json
    assert sorted((row["values"]["a"], row["values"]["b"]) for row in shown["rows"]) == [(1, 10), (2, 20), (3, 30)]
    refused = at_stoa("link", "change", child, parent, "--filter", "z>1")
    assert refused.status == 2
    assert "at character 1" in refused.errors
    assert at_stoa("link", "change", child, parent).status == 2
    assert at_stoa("link", "rm", child, "nothing", "--rows", "go").status == 2
    told = at_stoa("table", "dependents", parent)
    assert f"--children delete' deletes {child}, {parent}; 6 rows are gone in all." in told.output
    assert at_stoa("table", "delete", parent, "--yes").status == 2
    given_up = at_stoa("link", "rm", child, parent, "--rows", "stay")
    assert given_up.output == f"{child} is no longer filled through the link; 3 rows stay.\n"
    assert at_stoa("table", "dependents", parent).output == f"Nothing depends on {parent}.\n"


def test_cells_are_corrected_reviewed_and_reset(at_stoa: Command, tables: tuple[str, str]) -> None:
    parent, child = tables
    at_stoa("link", "add", child, parent, "a=x", "b=y", "--per", "row")
    assert at_stoa("table", "corrections", child).output == "Nothing is corrected.\n"
    corrected = at_stoa("table", "correct", child, "1", "b=11", "--reason", "misread")
    assert corrected.output == "Row 1 has revision 2; corrected: b.\n"
    assert "misread" in at_stoa("table", "corrections", child).output
    assert at_stoa("table", "corrections", child, "--review").output == "Nothing is to be reviewed.\n"
    at_stoa("table", "edit", parent, "1", "y=12")
    waiting = at_stoa("table", "corrections", child, "--review", "--json").json
    assert [(row["row"], row["values"], row["corrected"]["b"]["derived"]) for row in waiting] == [(1, {"b": 11}, 12)]
    kept = at_stoa("table", "corrections", child, "confirm", "1", "--reason", "still")
    assert kept.output == "Kept corrections of 1 row.\n"
    assert at_stoa("table", "corrections", child, "--review").output == "Nothing is to be reviewed.\n"
    assert at_stoa("table", "corrections", child, "reset", "1").output == "1 row holds again what is derived.\n"
    assert at_stoa("table", "corrections", child, "reset", "1").status == 2
    assert at_stoa("table", "corrections", child, "reset").status == 2
