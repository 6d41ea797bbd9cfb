"""What a user types to mark rows, and to take edits back, at a running Stoa."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.client.conftest import Command


@pytest.fixture
def table(at_stoa: Command, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A plain table of three rows."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    file = tmp_path / "rows.csv"
    file.write_text("object,flux\nCen A,1.5\nM 87,9.5\nM 31,4\n")
    assert at_stoa("table", "import", file, "--name", name, "--json").json["rows"] == 3
    return name


def test_rows_are_flagged_and_filtered(at_stoa: Command, table: str) -> None:
    assert "has no flag yet" in at_stoa("flag", "ls", table).output
    assert at_stoa("flag", "define", table, "bright", "--description", "above 3").output == "Defined bright.\n"
    assert at_stoa("flag", "set", table, "bright", "--filter", "flux>3").output == "2 rows got the flag bright.\n"
    assert at_stoa("flag", "set", table, "bright", "2", "--json").json == {"rows": []}
    assert at_stoa("flag", "clear", table, "bright", "3").output == "1 row lost the flag bright.\n"
    assert re.search(r"bright +#d9480f +1 +above 3", at_stoa("flag", "ls", table).output)
    shown = at_stoa("table", "show", table, "--filter", "flag=bright", "--json").json
    assert [row["row"] for row in shown["rows"]] == [2]
    assert at_stoa("flag", "drop", table, "bright").status == 0
    refused = at_stoa("flag", "set", table, "brihgt", "1")
    assert (refused.status, "has no flag 'brihgt'" in refused.errors) == (2, True)
    assert at_stoa("flag", "set", table, "bright").status == 2


def test_comments_are_written_answered_changed_and_withdrawn(at_stoa: Command, table: str) -> None:
    assert at_stoa("comment", "ls", table).output == "Nobody wrote anything yet.\n"
    first = at_stoa("comment", "add", table, "2", "Is it **blended**?", "--column", "flux", "--json").json["comment"]
    assert at_stoa("comment", "add", table, "2", "No", "--reply-to", first).status == 0
    listed = at_stoa("comment", "ls", table, "2").output
    assert re.search(r"2 flux +Is it \*\*blended\*\*\?", listed)
    assert "↳ No" in listed
    at_stoa("comment", "edit", table, first, "Is it?")
    assert at_stoa("comment", "withdraw", table, first).output == "Withdrew the comment.\n"
    told = at_stoa("comment", "show", table, first).output.splitlines()
    assert [line.split("  ", 1)[-1] for line in told[1:]] == ["Is it **blended**?", "Is it?", "(withdrawn)"]
    assert at_stoa("table", "show", table, "--filter", "comments=1", "--json").json["rows"][0]["row"] == 2
    assert at_stoa("comment", "add", table, "9", "?").status == 2


def test_a_locked_row_refuses_edits_until_it_is_unlocked(at_stoa: Command, table: str) -> None:
    assert at_stoa("table", "lock", table, "1", "2", "--reason", "in the paper").output == "Locked 2 rows.\n"
    refused = at_stoa("table", "edit", table, "1", "flux=2")
    assert refused.status == 2
    assert "in the paper" in refused.errors
    assert at_stoa("table", "unlock", table, "--filter", "locked=true").output == "Unlocked 2 rows.\n"
    assert at_stoa("table", "edit", table, "1", "flux=2").status == 0


def test_edits_are_undone_and_redone(at_stoa: Command, table: str) -> None:
    at_stoa("table", "edit", table, "1", "flux=2")
    at_stoa("table", "rm", table, "2")
    assert re.search(r"undo .*Removed 1 row *\n.*undo .*Edited 1 row", at_stoa("steps", table).output)
    assert at_stoa("undo", table).output == "Undone: removed 1 row.\n"
    assert at_stoa("undo", table, "--json").json["rows"] == [1]
    shown = at_stoa("table", "show", table, "--json").json
    assert [row["values"]["flux"] for row in shown["rows"]] == [1.5, 9.5, 4.0]
    assert at_stoa("redo", table).output == "Redone: edited 1 row.\n"
    steps = at_stoa("steps", table, "--json").json
    assert ([step["kind"] for step in steps["redo"]], steps["undo"][0]["kind"]) == (["removed"], "edited")


def test_a_view_is_saved_shown_and_deleted(at_stoa: Command, table: str) -> None:
    options = ("--filter", "flux>3", "--sort", "-flux", "--columns", "flux", "--shared")
    assert at_stoa("view", "save", table, "Bright ones", *options).output.startswith("Saved Bright ones: ")
    assert re.search(r"Bright ones +\S+ +shared +flux>3 +-flux +flux", at_stoa("view", "ls", table).output)
    shown = at_stoa("table", "show", table, "--view", "bright ONES", "--json").json
    assert [row["values"] for row in shown["rows"]] == [{"flux": 9.5}, {"flux": 4.0}]
    assert "Cen A" not in at_stoa("table", "show", table, "--view", "Bright ones").output
    assert at_stoa("table", "show", table, "--view", "Bright ones", "--columns", "object").status == 2
    assert at_stoa("view", "rm", table, "Bright ones").output == "Deleted Bright ones.\n"
    refused = at_stoa("table", "show", table, "--view", "Bright ones")
    assert (refused.status, "has no view" in refused.errors) == (2, True)


def test_a_column_is_described_with_what_others_understand(at_stoa: Command, table: str) -> None:
    refused = at_stoa("table", "describe", table, "flux", "--unit", "Msun")
    assert (refused.status, "did you mean 'solMass'?" in refused.errors) == (2, True)
    said = at_stoa("table", "describe", table, "object", "--display", "link", "--ucd", "meta.id", "--json").json
    assert (said["columns"][0]["display"], said["columns"][0]["ucd"]) == ("link", "meta.id")
