"""Triggers, as a user types them at a running Stoa."""

from __future__ import annotations

from tests.client.conftest import Command
from tests.support.stoa import RunningStoa


def test_triggers_are_added_shown_paused_and_removed(at_stoa: Command, stoa: RunningStoa) -> None:
    stoa.create_worktable("nightly")
    assert at_stoa("trigger", "ls", "nightly").output == "nightly runs when somebody asks for it.\n"
    added = at_stoa("trigger", "add", "nightly", "--cron", "30 2 * * *", "--zone", "Europe/Berlin")
    assert "nightly runs by its triggers." in added.output
    at_stoa("trigger", "add", "nightly", "--file", "file:///data", "--scope", "failed")
    triggers = at_stoa("trigger", "ls", "nightly", "--json").json["triggers"]
    assert [(item["kind"], item["scope"], item["next"] is None) for item in triggers] == [
        ("cron", "stale", False),
        ("file", "failed", True),
    ]
    assert "paused" in at_stoa("trigger", "pause", "nightly", "1").output
    assert at_stoa("trigger", "resume", "nightly", "1", "--json").json["triggers"][0]["next"] == triggers[0]["next"]
    assert len(at_stoa("trigger", "rm", "nightly", "1", "--json").json["triggers"]) == 1
    assert at_stoa("trigger", "rm", "nightly", "1", "--json").json == {
        "table": triggers and at_stoa("table", "show", "nightly", "--json").json["table"]["id"],
        "mode": "manual",
        "triggers": [],
    }
    wrong = at_stoa("trigger", "add", "nightly", "--cron", "every night")
    assert (wrong.status, "five fields" in wrong.errors) == (2, True)
    assert at_stoa("trigger", "add", "nightly").status == 2
    assert at_stoa("table", "mode", "nightly", "scheduled").status == 2


def test_watching_rows_that_wait_for_what_nobody_runs_comes_to_an_end(at_stoa: Command, stoa: RunningStoa) -> None:
    above, below = stoa.create_worktable("above"), stoa.create_worktable("below")
    # Which elements there are is not settled before the row above has run.
    link = {"parent": above, "per": "element", "mapping": {"number": "number"}}
    stoa.checked(stoa.client.post(f"/api/tables/{below}/links", json=link))
    stoa.add_rows(above, [{"number": 1}])
    assert at_stoa("table", "run", "above", "--watch").status == 0
    assert at_stoa("table", "run", "below", "--watch").status == 0
    at_stoa("table", "edit", "above", "1", "number=2")
    watched = at_stoa("table", "run", "below", "--watch")
    assert watched.status == 1
    assert "1 row waits for rows upstream that nobody runs" in watched.output
    assert at_stoa("table", "run", "above", "--watch").status == 0
    stoa.settle(above, below)
    assert [row["values"]["number"] for row in stoa.rows(below)] == [2]
