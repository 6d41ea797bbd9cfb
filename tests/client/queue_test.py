"""The queue on the command line: whose jobs wait, limits, cancelling, and how fast it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from stoa.api import Stoa
from stoa.watching import Progress
from tests.client.conftest import Command
from tests.support.stoa import TRIVIAL_TOOL


@pytest.fixture
def held(at_stoa: Command, tmp_path: Path) -> str:
    """Give a table of three rows, in a project of its own, of which nothing may run."""
    name = f"held-{tmp_path.name[-12:].replace('_', '-')}"
    document = tmp_path / "echo.cwl"
    document.write_text(TRIVIAL_TOOL)
    assert at_stoa("table", "create", name, "--cwl", document, "--project", name).status == 0
    assert at_stoa("table", "add", name, "--csv", "-", input="number\n1\n2\n3\n").status == 0
    assert at_stoa("queue", "limit", 0, "--table", name).output == f"{name} runs at most 0 at once.\n"
    return name


def test_the_queue_tells_whose_jobs_wait_and_what_is_limited(at_stoa: Command, held: str) -> None:
    assert at_stoa("table", "run", held, "--priority", 7, "--force").output == "Queued 3 jobs.\n"
    shown = at_stoa("queue").output
    line = next(line for line in shown.splitlines() if line.split()[:1] == [held])
    assert line.split()[-2:] == ["7", "3"]
    assert f"At most 0 jobs of table {held} run at once." in shown
    told = at_stoa("queue", "show", "--json").json
    (group,) = (group for group in told["groups"] if group["name"] == held)
    assert (group["priority"], group["waiting"], group["running"]) == (7, 3, 0)
    (status,) = at_stoa("status", "--project", held, "--json").json
    assert (status["table"], status["estimated_end"]) == (held, None)
    assert at_stoa("cancel", held).output == "3 jobs were cancelled.\n"
    assert at_stoa("queue", "limit", "none", "--table", held).output == f"{held} has no limit of its own.\n"
    assert held not in at_stoa("queue").output


def test_a_project_is_run_and_a_run_or_everything_of_mine_is_cancelled(at_stoa: Command, held: str) -> None:
    started = at_stoa("queue", "run", held, "--json").json
    assert (started["jobs"], len(started["runs"])) == (3, 1)
    assert at_stoa("cancel", "--run", started["runs"][0]["run"], "--json").json == {"cancelled": 3}
    assert at_stoa("queue", "run", held).output == "Queued 3 jobs in 1 tables; 0 rows wait for others.\n"
    assert at_stoa("cancel", "--mine").output == "3 jobs were cancelled.\n"
    assert at_stoa("queue", "run", held, "--failed").output.startswith("Queued 0 jobs")


def test_what_is_meant_has_to_be_said(command: Command) -> None:
    assert command("cancel").status == 2
    assert command("cancel", "sources", "--mine").status == 2
    assert command("queue", "limit", 3).status == 2
    refused = command("queue", "limit", "many", "--table", "sources")
    assert (refused.status, "'many' is neither a number nor 'none'" in refused.errors) == (2, True)


class Told:
    """A server that tells how fast tables are computed."""

    def __init__(self, **reports: dict[str, Any]) -> None:
        self.reports = reports

    def progress(self, *, table: str | None = None) -> dict[str, Any]:
        return self.reports[table or ""]


def test_the_rest_takes_as_long_as_the_slowest_table_does() -> None:
    soon, late = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (30, 600.4))
    quiet = {"rate": None, "estimated_end": None, "waiting": 0, "running": 0}
    told = Told(
        a={"rate": 2.5, "estimated_end": soon.isoformat(), "waiting": 1, "running": 0},
        b={"rate": 5.0, "estimated_end": late.isoformat(), "waiting": 9, "running": 1},
        c=quiet,
        unknown={**quiet, "waiting": 4},
    )
    progress = Progress()
    progress.total = 20
    assert progress.line() == "0 of 20 rows"
    progress.look(cast("Stoa", told), ["a", "b", "c"])
    assert progress.line().startswith("0 of 20 rows, 7.5 rows/min, about ")
    assert progress.remaining.endswith("left")
    other = Progress()
    other.total = 20
    other.look(cast("Stoa", told), ["a", "unknown"])
    assert other.line() == "0 of 20 rows, 2.5 rows/min"
