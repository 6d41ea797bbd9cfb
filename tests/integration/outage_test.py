"""What goes away says so, keeps the state intact, and work goes on when it is back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.postgres import PostgresServer
from tests.support.stoa import RunningStoa, running_stoa

STOA = str(Path(sys.executable).with_name("stoa"))

READS_A_FILE = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [python3, -c, 'import sys; from astropy.io import fits; print(fits.getheader(sys.argv[1])["OBJECT"])']
inputs:
  image: {type: File, inputBinding: {position: 1}}
outputs:
  object: {type: stdout}
stdout: object.txt
"""

PROMISES_TOO_MUCH = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [/bin/true]
inputs:
  number: int
outputs:
  image: {type: File, outputBinding: {glob: image.fits}}
"""


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STOA, "up", *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = up("--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = up("--port", "0", "--data", str(tmp_path / "file" / "data"))
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def stoa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoa]:
    data = tmp_path_factory.mktemp("stoa") / "data"
    environment = {"STOA_EXECUTOR_INPUT_ROOTS": f'["{data.parent}"]'}
    with running_stoa(data, environment=environment) as stoa:
        yield stoa


def failed_reason(stoa: RunningStoa, table: str) -> str:
    stoa.run(table, "stale")
    assert stoa.settle(table)[table] == {"failed": 1}
    reason: str = stoa.rows(table)[0]["reason"]
    return reason


def test_a_workflow_that_is_invalid_is_refused_with_its_place(stoa: RunningStoa) -> None:
    head = stoa.head("tables")
    answer = stoa.client.post(
        "/api/tables",
        data={"table": '{"name": "invalid"}'},
        files={
            "files": ("tool.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {a: nonsense}\noutputs: {}\n")
        },
    )
    assert answer.status_code == 422
    assert "nonsense" in answer.text
    assert "Traceback" not in answer.text
    assert stoa.head("tables") == head


def test_a_corrupt_file_fails_its_row_and_the_next_run_succeeds(stoa: RunningStoa) -> None:
    from astropy.io import fits

    file = stoa.data.parent / "image.fits"
    file.write_bytes(b"SIMPLE  =                    T" + b"\0" * 3000)
    table = stoa.create_worktable("corrupt", READS_A_FILE)
    stoa.add_rows(table, [{"image": str(file)}])
    time.sleep(0.5)
    reason = failed_reason(stoa, table)
    assert reason
    assert "Traceback" not in reason
    fits.PrimaryHDU(header=fits.Header({"OBJECT": "Cen A"})).writeto(file, overwrite=True)
    stoa.run_to_end(table, "failed")
    assert stoa.counts(table) == {"current": 1}


def test_a_missing_input_and_a_missing_output_are_told_in_a_sentence(stoa: RunningStoa) -> None:
    table = stoa.create_worktable("missing-input", READS_A_FILE)
    stoa.add_rows(table, [{"image": str(stoa.data.parent / "nowhere.fits")}])
    time.sleep(0.5)
    assert "nowhere.fits" in failed_reason(stoa, table)
    table = stoa.create_worktable("missing-output", PROMISES_TOO_MUCH)
    stoa.add_rows(table, [{"number": 1}])
    time.sleep(0.5)
    assert "image" in failed_reason(stoa, table)


def test_a_file_outside_the_allowed_folders_is_refused(stoa: RunningStoa) -> None:
    table = stoa.create_worktable("outside", READS_A_FILE)
    stoa.add_rows(table, [{"image": "/etc/hostname"}])
    time.sleep(0.5)
    assert "/etc/hostname" in failed_reason(stoa, table)


def test_work_goes_on_when_nats_is_back(stoa: RunningStoa) -> None:
    table = stoa.create_worktable("without-nats")
    for round_number in range(2):
        position = stoa.add_rows(table, [{"number": number} for number in range(5)])
        (broker,) = [process for process in stoa.processes() if "nats-server" in process.name()]
        broker.kill()
        psutil.wait_procs([broker], timeout=10)
        # Commands are taken while the broker is away.
        stoa.run(table, after=position)
        assert stoa.settle(table)[table] == {"current": 5 * (round_number + 1)}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_work_goes_on_when_postgresql_is_back(tmp_path: Path, postgres_server: PostgresServer) -> None:
    environment = {
        f"STOA_{service}_DATABASE_URL": postgres_server.create_database()
        for service in ("TABLES", "SCHEDULER", "EXECUTOR")
    }
    with running_stoa(tmp_path / "data", environment=environment) as stoa:
        table = stoa.create_worktable("without-postgresql")
        position = stoa.add_rows(table, [{"number": number} for number in range(30)])
        stoa.run(table, after=position)
        postgres_server.stop()
        try:
            answer = stoa.client.get(f"/api/tables/{table}")
            assert answer.status_code == 503
            assert "database" in answer.json()["title"]
        finally:
            postgres_server.start()
        assert stoa.settle(table)[table] == {"current": 30}
        recorded = [e.data["row"] for e in stoa.events("tables") if e.name == "outputs-recorded"]
        assert sorted(recorded) == list(range(1, 31))
