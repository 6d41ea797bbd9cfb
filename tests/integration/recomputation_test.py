"""Editing one cell reruns exactly that row and what depends on it: counted from the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from tests.support.stoa import RunningStoa, running_stoa

#: Yields one element per number below the input.
COUNT = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [python3, -c, 'import json, sys; n = int(sys.argv[1]); json.dump({"item": [i for i in range(n)], "total": n // 2}, open("cwl.output.json", "w"))']
inputs:
  upto: {type: int, inputBinding: {position: 1}}
outputs:
  item: {type: 'int[]'}
  total: {type: int}
"""

#: Rounds, so that different inputs give equal outputs.
HALVE = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [python3, -c, 'import json, sys; json.dump({"half": int(sys.argv[1]) // 2}, open("cwl.output.json", "w"))']
inputs:
  item: {type: int, inputBinding: {position: 1}}
outputs:
  half: {type: int}
"""

#: The last of the chain.
SQUARE = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [python3, -c, 'import json, sys; json.dump({"square": int(sys.argv[1]) ** 2}, open("cwl.output.json", "w"))']
inputs:
  half: {type: int, inputBinding: {position: 1}}
outputs:
  square: {type: int}
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stoa(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoa]:
    environment = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        for service in ("TABLES", "SCHEDULER", "EXECUTOR"):
            environment[f"STOA_{service}_DATABASE_URL"] = server.create_database()
    with running_stoa(tmp_path_factory.mktemp("stoa") / "data", environment=environment) as stoa:
        yield stoa


def jobs_since(stoa: RunningStoa, position: int) -> Counter[tuple[str, int]]:
    """Count the jobs that were started since a position of the executor's log, by table and row."""
    return Counter((e.subject, e.data["row"]) for e in stoa.events("executor", position) if e.name == "job-started")


def automatic(stoa: RunningStoa, *tables: str) -> None:
    position = stoa.head("tables")
    for table in tables:
        stoa.checked(stoa.client.put(f"/api/triggers/{table}", json={"mode": "automatic", "after": position}))


def link(stoa: RunningStoa, child: str, parent: str, per: str, mapping: dict[str, str]) -> None:
    stoa.checked(
        stoa.client.post(f"/api/tables/{child}/links", json={"parent": parent, "per": per, "mapping": mapping})
    )


def edit(stoa: RunningStoa, table: str, row: int, **values: Any) -> None:
    stoa.checked(stoa.client.patch(f"/api/tables/{table}/rows/{row}", json=values))


def settled(stoa: RunningStoa, *tables: str) -> None:
    # Each step may make the next table stale, and the scheduler hears of it a moment later.
    import time

    quiet = 0
    while quiet < 3:
        before = [stoa.head(service) for service in ("tables", "scheduler", "executor")]
        stoa.settle(*tables)
        time.sleep(0.3)
        quiet = quiet + 1 if before == [stoa.head(service) for service in ("tables", "scheduler", "executor")] else 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_exactly_what_depends_on_an_edit_is_run_again(stoa: RunningStoa) -> None:
    count, halve, square = (
        stoa.create_worktable(name, cwl) for name, cwl in [("count", COUNT), ("halve", HALVE), ("square", SQUARE)]
    )
    link(stoa, halve, count, "element", {"item": "item"})
    link(stoa, square, halve, "row", {"half": "half"})
    automatic(stoa, count, halve, square)
    stoa.add_rows(count, [{"upto": 4}, {"upto": 3}])
    settled(stoa, count, halve, square)
    assert stoa.counts(halve) == {"current": 7}
    assert sorted(row["values"]["square"] for row in stoa.rows(square)) == [0, 0, 0, 0, 1, 1, 1]

    # One more element upstream: one row of `count`, one new row of `halve` and of `square`. The others stay untouched.
    position, revisions = stoa.head("executor"), {row["row"]: row["revision"] for row in stoa.rows(halve)}
    edit(stoa, count, 1, upto=5)
    settled(stoa, count, halve, square)
    assert jobs_since(stoa, position) == Counter([(count, 1), (halve, 8), (square, 8)])
    assert {row["row"]: row["revision"] for row in stoa.rows(halve)} == {**revisions, 8: 1}

    # Fewer elements: rows go, nothing below runs.
    position = stoa.head("executor")
    edit(stoa, count, 1, upto=2)
    settled(stoa, count, halve, square)
    assert jobs_since(stoa, position) == Counter([(count, 1)])
    assert sorted(row["values"]["item"] for row in stoa.rows(halve)) == [0, 0, 1, 1, 2]
    assert stoa.counts(square) == {"current": 5}

    # A person corrects a derived input: that row runs, and because 2 // 2 == 3 // 2 nothing below it does.
    position = stoa.head("executor")
    (corrected,) = [row["row"] for row in stoa.rows(halve) if row["values"]["item"] == 2]
    edit(stoa, halve, corrected, item=3)
    settled(stoa, count, halve, square)
    assert jobs_since(stoa, position) == Counter([(halve, corrected)])

    # The correction survives upstream recomputation.
    position = stoa.head("executor")
    stoa.run_to_end(count, "rows", rows=[2])
    settled(stoa, count, halve, square)
    assert jobs_since(stoa, position) == Counter([(count, 2)])
    assert [row["values"]["item"] for row in stoa.rows(halve) if row["row"] == corrected] == [3]


def test_a_link_that_would_close_a_cycle_is_refused_with_its_path(stoa: RunningStoa) -> None:
    first, second = stoa.create_worktable("first", HALVE), stoa.create_worktable("second", HALVE)
    link(stoa, second, first, "row", {"item": "half"})
    head = stoa.head("tables")
    answer = stoa.client.post(
        f"/api/tables/{first}/links", json={"parent": second, "per": "row", "mapping": {"item": "half"}}
    )
    assert answer.status_code == 409
    assert "first" in answer.json()["detail"]
    assert "second" in answer.json()["detail"]
    assert stoa.head("tables") == head


def test_a_restart_recomputes_nothing(tmp_path: Path) -> None:
    stoa = RunningStoa(tmp_path / "data")
    try:
        stoa.start()
        table = stoa.create_worktable("kept", SQUARE)
        automatic(stoa, table)
        stoa.add_rows(table, [{"half": number} for number in range(5)])
        settled(stoa, table)
        heads = [stoa.head(service) for service in ("tables", "scheduler", "executor")]
        rows = stoa.rows(table)
        assert stoa.stop() == 0
        stoa.start()
        settled(stoa, table)
        assert [stoa.head(service) for service in ("tables", "scheduler", "executor")] == heads
        assert stoa.rows(table) == rows
    finally:
        stoa.close()
