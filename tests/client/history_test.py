"""What a user types to see the past, at a running Stoa."""

from __future__ import annotations

import re
from pathlib import Path

from tests.client.commands_test import ADDS
from tests.client.conftest import Command


def test_the_past_is_shown_compared_and_told(at_stoa: Command, tmp_path: Path) -> None:
    document = tmp_path / "add.cwl"
    document.write_text(ADDS)
    at_stoa("table", "create", "sums", "--cwl", document)
    first = at_stoa("table", "add", "sums", "a=1", "--json").json["position"]
    assert at_stoa("table", "run", "sums", "--watch").status == 0
    second = at_stoa("table", "edit", "sums", 1, "a=5", "--json").json["position"]
    at_stoa("table", "add", "sums", "a=9")

    then = at_stoa("table", "show", "sums", "--as-of", first, "--json").json
    assert then["table"]["position"] == first
    assert [(row["status"], row["values"]["a"], row["values"]["sum"]) for row in then["rows"]] == [("stale", 1, None)]
    shown = at_stoa("table", "show", "sums", "--as-of", second, "--columns", "a,sum").output
    assert re.search(r"1 +◔ stale +5 +1\b", shown)
    refused = at_stoa("table", "show", "sums", "--as-of", "yesterday")
    assert refused.status == 2
    assert "a position of the log or a time" in refused.errors

    found = at_stoa("table", "diff", "sums", first, second).output
    assert "0 rows added, 0 removed, 1 changed (2 cells, 0 statuses)" in found
    assert re.search(r"1 +a +1 +5\b", found)
    assert re.search(r"1 +sum +· +1\b", found)
    whole = at_stoa("table", "diff", "sums", first, "--json").json
    assert [row["change"] for row in whole["rows"]] == ["changed", "added"]
    one = at_stoa("table", "diff", "sums", first, "--limit", 1)
    assert "Only the first 1 rows are shown" in one.output

    cell = at_stoa("history", "sums", 1, "a").output
    assert re.search(r" 1 +rows-added", cell)
    assert re.search(r" 5 +row-edited", cell)
    made = at_stoa("history", "sums", 1, "sum", "--json").json
    assert [(event["value"], event["shown"]) for event in made] == [(1, True)]
    assert made[0]["job"]
    assert made[0]["workflow_version"]
    assert "workflow" in at_stoa("history", "sums", 1, "sum").output
    assert at_stoa("history", "sums", 1, "--json").json[0]["type"] == "rows-added"
    assert at_stoa("history", "sums", 1, "nothing").status == 2

    at_stoa("table", "delete", "sums", "--yes")
    assert len(at_stoa("table", "show", "sums", "--as-of", second, "--json").json["rows"]) == 1
    assert "The table was deleted." in at_stoa("table", "diff", "sums", second).output
