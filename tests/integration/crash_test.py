"""Whatever is killed while rows run: afterwards every row is current, and no outcome was applied twice."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa
from hypothesis import settings

from stoa_chassis.administration import load_service
from stoa_chassis.database import Database
from tests.support.stoa import SERVICES, RunningStoa, running_stoa

ROWS = 200

#: Long enough that something is always running, short enough for a bounded test.
SLOW_TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [/bin/sh, -c, 'sleep 0.05; echo "$0"']
inputs:
  number: {type: int, inputBinding: {position: 1}}
outputs:
  text: {type: stdout}
stdout: text.txt
"""


def verify(stoa: RunningStoa) -> None:
    """Walk every log's chain, with the command that an operator uses."""
    command = [str(Path(sys.executable).with_name("stoa")), "log", "verify", "--data", str(stoa.data)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def read_model(stoa: RunningStoa, service: str) -> dict[str, list[tuple[object, ...]]]:
    """Read every row of a service's read model."""
    database = Database(f"sqlite:///{stoa.data / f'{service}.sqlite'}")
    try:
        with database.reading() as connection:
            return {
                name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]
                for name, table in load_service(service).projection().metadata.tables.items()
            }
    finally:
        database.engine.dispose()


def check_rebuild(stoa: RunningStoa) -> None:
    """Rebuild every read model while Stoa runs: the result is equal row by row."""
    for service in SERVICES:
        before = read_model(stoa, service)
        command = [str(Path(sys.executable).with_name("stoa")), "log", "rebuild", service, "--data", str(stoa.data)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        after = read_model(stoa, service)
        assert after == before, service
        assert any(after.values())


def check_history(stoa: RunningStoa, table: str) -> None:
    """Each row got the outputs of its revision exactly once, from a job that finished exactly once."""
    recorded = Counter(
        (e.data["row"], e.data["revision"]) for e in stoa.events("tables") if e.name == "outputs-recorded"
    )
    assert recorded == Counter({(row, 1): 1 for row in range(1, ROWS + 1)})
    final = Counter(e.data["job"] for e in stoa.events("executor") if e.name == "job-finished" and e.data["final"])
    assert set(final.values()) == {1}
    queued = [job["row"] for e in stoa.events("scheduler") if e.name == "job-queued" for job in e.data["jobs"]]
    assert sorted(queued) == list(range(1, ROWS + 1))
    for row in stoa.rows(table):
        assert row["status"] == "current"
        assert not row["outdated"]


def victims(stoa: RunningStoa) -> list[psutil.Process]:
    """List what may be killed: every process under the supervisor."""
    assert stoa.process is not None
    return [process for process in stoa.processes() if process.pid != stoa.process.pid]


#: The nightly profile kills at more moments.
SEEDS = range(1, 2 + settings().max_examples // 100)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_any_process_may_be_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    with running_stoa(tmp_path / "data", "--workers", "2") as stoa:
        table = stoa.create_worktable("killed", SLOW_TOOL)
        position = stoa.add_rows(table, [{"number": number} for number in range(ROWS)])
        stoa.run(table, after=position)
        killed = []
        for _ in range(6):
            time.sleep(draw.uniform(0.2, 1.5))
            if choices := victims(stoa):
                victim = draw.choice(choices)
                with contextlib.suppress(psutil.NoSuchProcess):
                    killed.append(" ".join(victim.cmdline())[-60:])
                    victim.kill()
        assert len(killed) >= 5
        counts = stoa.settle(table, timeout=150)[table]
        reasons = [row["reason"] for row in stoa.rows(table) if row["status"] != "current"]
        assert counts == {"current": ROWS}, (reasons, killed)
        check_history(stoa, table)
        verify(stoa)
        time.sleep(1)
        check_rebuild(stoa)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_everything_may_be_killed_at_once(tmp_path: Path) -> None:
    stoa = RunningStoa(tmp_path / "data", "--workers", "2")
    try:
        stoa.start()
        table = stoa.create_worktable("killed", SLOW_TOOL)
        position = stoa.add_rows(table, [{"number": number} for number in range(ROWS)])
        stoa.run(table, after=position)
        for _ in range(2):
            time.sleep(1.5)
            processes = stoa.processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _, alive = psutil.wait_procs(processes, timeout=20)
            assert not alive
            stoa.start()
        assert stoa.settle(table, timeout=150)[table] == {"current": ROWS}
        check_history(stoa, table)
        verify(stoa)
    finally:
        stoa.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_is_left_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    stoa = RunningStoa(tmp_path / "data")
    try:
        stoa.start()
        processes = stoa.processes()
        assert len(processes) >= len(SERVICES) + 3  # the web service, NATS, the supervisor itself
        processes[0].kill()
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive
        with pytest.raises(httpx.TransportError):
            stoa.client.get("/")
    finally:
        stoa.close()
