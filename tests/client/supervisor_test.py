"""``stoa up``: what it refuses, what it starts again, and that nothing is left when it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.client.conftest import Command
from tests.client.project_test import PROJECT
from tests.support.stoa import TRIVIAL_TOOL, RunningStoa, running_stoa

SERVICES = ("tables", "scheduler", "executor", "web")

SLOW_MAKER = """\
import sys, time
from pathlib import Path
archive = Path(sys.argv[1])
archive.mkdir(exist_ok=True)
(archive / "numbers.txt").write_text("1 2")
time.sleep(%(seconds)s)
"""


def until(is_so: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def service(stoa: RunningStoa, name: str) -> psutil.Process:
    """The process of a service, as its command line tells."""
    (found,) = [process for process in stoa.processes() if process.cmdline()[3:5] == ["serve", name]]
    return found


def assert_all_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not [process.cmdline() for process in alive]


def test_a_second_stoa_on_the_same_data_is_told_who_holds_them(stoa: RunningStoa, command: Command) -> None:
    answer = command("up", "--port", 0, "--data", stoa.data)
    assert answer.status == 2
    assert stoa.process is not None
    assert f"process {stoa.process.pid}, {stoa.url}" in answer.errors


def test_a_taken_port_is_told_before_anything_starts(command: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = command("up", "--port", port, "--data", tmp_path / "data")
    assert answer.status == 2
    assert f"Port {port}" in answer.errors
    assert not list((tmp_path / "data").glob("*.sqlite"))
    assert not (tmp_path / "data" / "nats").exists()


@pytest.mark.parametrize("host", ["192.0.2.7", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_told(command: Command, tmp_path: Path, host: str) -> None:
    answer = command("up", "--host", host, "--port", 0, "--data", tmp_path / "data")
    assert answer.status == 2
    assert host in answer.errors


def test_what_a_service_cannot_start_with_is_told(tmp_path: Path) -> None:
    """A database of a newer Stoa is one example of what keeps a service from starting."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tables.sqlite").write_text(
        "This is not a database, but it is long enough to be taken for one."
    )
    stoa = RunningStoa(tmp_path / "data")
    process = stoa.launch()
    assert process.wait(60) == 1
    assert "The tables service does not start" in stoa.said()
    assert "not a database" in stoa.said()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoa]:
    """A Stoa that these tests may hurt."""
    with running_stoa(tmp_path_factory.mktemp("own") / "data", "--workers", "1") as stoa:
        yield stoa


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_service_is_started_again_while_its_visitors_wait(own: RunningStoa, name: str) -> None:
    victim = service(own, name)
    children = victim.children(recursive=True)
    victim.kill()
    psutil.wait_procs([victim])
    address = f"/services/{name}/healthz" if name != "web" else "/healthz"
    # The socket outlives the process: nobody is refused.
    assert own.client.get(address).is_success
    assert service(own, name).pid != victim.pid
    until(lambda: f"The {name} service ended (SIGKILL) and is started again." in own.said(), 5)
    assert_all_gone(children)


def test_a_visitor_of_a_killed_page_is_not_refused(own: RunningStoa) -> None:
    answers: list[int | str] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            try:
                with httpx.Client(timeout=30) as visitor:
                    answers.append(visitor.get(f"{own.url}/").status_code)
            except httpx.ConnectError as error:
                answers.append(str(error))
            except httpx.TransportError:
                # Whoever was connected at that moment is cut off; whoever comes is not refused.
                pass
            time.sleep(0.02)

    visitor = threading.Thread(target=visit)
    visitor.start()
    until(lambda: len(answers) > 3)
    before = service(own, "web")
    before.kill()
    psutil.wait_procs([before])
    seen = len(answers)
    until(lambda: len(answers) > seen + 3)
    stop.set()
    visitor.join()
    assert set(answers) == {200}


def test_logs_are_in_files_and_the_terminal_is_quiet(own: RunningStoa) -> None:
    for name in SERVICES:
        lines = (own.data / "logs" / f"{name}.log").read_text().splitlines()
        assert all(json.loads(line)["service"] == name for line in lines if line.startswith("{"))
        assert lines
    # Another test may have ended a service of this Stoa, and that is told.
    lines = [line for line in own.said().splitlines() if not line.endswith("is started again.")]
    assert lines[:2] == [f"Stoa answers at {own.url}", f"Press Ctrl-C to stop it. Its data stay in {own.data}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    with running_stoa(tmp_path / "data", "--json") as stoa:
        table = stoa.create_worktable("busy")
        position = stoa.add_rows(table, [{"number": each} for each in range(50)])
        stoa.run(table, after=position)
        processes = stoa.processes()
        assert len(processes) >= 2 + len(SERVICES)
        assert stoa.stop(number) == 0
        assert_all_gone(processes)
        said = [json.loads(line) for line in stoa.said().splitlines()]
        assert said[0] == {
            "event": "ready",
            "url": stoa.url,
            "data": str(stoa.data),
            "pid": stoa.process.pid if stoa.process else 0,
        }
        assert not [line for line in said if "killed" in line.get("text", "")]


def example(folder: Path, seconds: float) -> Path:
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "tool.cwl").write_text(TRIVIAL_TOOL)
    (folder / "project.yaml").write_text(
        PROJECT.replace("${WHAT}", "content of ${ARCHIVE}").replace("manual", "automatic") % {"suffix": "x"}
    )
    (folder / "make_archive.py").write_text(SLOW_MAKER % {"seconds": seconds})
    return folder


def test_an_example_is_made_loaded_and_run_and_the_next_start_resumes(tmp_path: Path) -> None:
    folder = example(tmp_path / "example", 0)
    stoa = RunningStoa(tmp_path / "data", "--example", str(folder))
    try:
        stoa.start()
        until(lambda: "The example is ready" in stoa.said())
        # The second table runs by hand, so its rows wait.
        assert "The example is ready; rows: 2 current, 2 stale." in stoa.said()
        assert "Simulating the archive" in stoa.said()
        assert stoa.stop(signal.SIGINT) == 0
        stoa.start()
        until(lambda: stoa.said().count("The example is ready") > 1)
        assert stoa.said().count("Creating") == 2
        assert stoa.said().count("Simulating") == 1
        assert sum(stoa.finished_jobs().values()) == 2
        assert stoa.checked(stoa.client.get("/api/tables/first-x"))["description"] == (
            f"The content of {(tmp_path / 'data' / 'archive').as_uri()}."
        )
    finally:
        stoa.close()


def test_a_stop_while_the_archive_is_made_leaves_nothing(tmp_path: Path) -> None:
    folder = example(tmp_path / "example", 600)
    stoa = RunningStoa(tmp_path / "data", "--example", str(folder))
    try:
        stoa.start()
        until((tmp_path / "data" / "archive" / "numbers.txt").exists)
        processes = stoa.processes()
        assert any("make_archive.py" in " ".join(process.cmdline()) for process in processes)
        assert stoa.stop(signal.SIGTERM) == 0
        assert_all_gone(processes)
        assert "Traceback" not in stoa.said()
    finally:
        stoa.close()


def test_an_example_that_cannot_be_made_is_told_and_stoa_stays(tmp_path: Path) -> None:
    folder = example(tmp_path / "example", 0)
    (folder / "make_archive.py").write_text("raise SystemExit('The disk is full of stars')")
    stoa = RunningStoa(tmp_path / "data", "--example", str(folder))
    try:
        stoa.start()
        until(lambda: "The disk is full of stars" in stoa.said())
        assert stoa.client.get("/api/tables").is_success
    finally:
        stoa.close()


def test_a_service_that_is_not_installed_is_told(command: Command) -> None:
    answer = command("serve", "kitchen")
    assert answer.status == 2
    assert "kitchen" in answer.errors
    assert "tables" in answer.errors


def test_a_service_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """As `kill -9` of the supervisor would leave it behind."""
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'stoa', 'serve', 'web', '--with-parent', str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "STOA_PORT": "0", "STOA_DATA": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        until(lambda: child.num_threads() > 1 or child.net_connections(), 30)
        parent.kill()
        assert_all_gone([child])


@pytest.mark.parametrize("seconds", [0.6, 1.2, 2.5])
def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    stoa = RunningStoa(tmp_path / "data")
    process = stoa.launch()
    try:
        # The lock is taken right after the signals are.
        until((tmp_path / "data" / "stoa.lock").exists, 30)
        time.sleep(seconds)
        processes = stoa.processes()
        started = time.monotonic()
        assert stoa.stop(signal.SIGINT) == 0, stoa.said()
        assert time.monotonic() - started < 20
        assert_all_gone([each for each in processes if each.pid != process.pid])
        assert "Traceback" not in stoa.said()
    finally:
        stoa.close()
