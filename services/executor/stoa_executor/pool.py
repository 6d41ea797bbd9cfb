"""The pool of warm engine processes.

Each engine is a process in a session of its own, started with a bare environment. A job goes to a free engine; cancelling
it, or exceeding its time, ends that engine with everything it started, and a fresh one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import psutil
import structlog

from stoa_executor.domain import whole_characters

__all__ = ["EnginePool", "EngineRequest", "EngineResult", "EngineUnavailableError", "OnLog", "search_path"]

OnLog = Callable[[int, bytes], None]
"""Gets what a job wrote to its log, with the offset at which it stands there."""

_READY_TIMEOUT_S = 60.0
_LONGEST_PAUSE_S = 30.0
_TICK_S = 0.2
_TAIL_BYTES = 65536
_STRAYS_S = 5.0


class EngineUnavailableError(RuntimeError):
    """No engine process can be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One job as the engine sees it."""

    job: str
    """Names the job towards `EnginePool.cancel`."""
    workflow: Path
    """The directory of the workflow version."""
    main: str
    """The CWL document in it."""
    inputs: dict[str, Any]
    """The input object; files by their place on the local disk."""
    directory: Path
    """The job's own directory, which the engine makes."""
    process: str | None = None
    """The process within the document, where it holds several."""
    time_limit: float | None = None
    """Seconds after which the job is ended."""
    describe: bool = False
    """Whether nothing is to be run, and the outputs are to say what the workflow would run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """How a job ended."""

    outcome: Literal["success", "permanentFail", "temporaryFail", "cancelled", "stopped"]
    """``stopped`` if the pool was stopped before the job ended."""
    exit_code: int | None
    """Of the tool that decided the outcome; None where none ran."""
    outputs: dict[str, Any] | None
    """The CWL output object, files by their place on the local disk; None unless it succeeded."""
    error: str | None
    """One sentence; None if it succeeded."""
    started: float
    """Seconds since 1970."""
    finished: float
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    """Peak memory of the tools; 0 where a tool ended before it could be measured."""


@dataclass(slots=True)
class _Run:
    request: EngineRequest
    on_log: OnLog | None
    started: float = field(default_factory=time.monotonic)
    engine: _EngineProcess | None = None
    stop_reason: Literal["cancelled", "timeout", "stopping"] | None = None
    log_offset: int = 0


def search_path(tool_path: str | None) -> str:
    """Say where the engines look for tools.

    Parameters
    ----------
    tool_path
        What is searched after the directory of this Python; None for ``PATH``.
    """
    places = (tool_path or os.environ.get("PATH", os.defpath)).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([os.path.dirname(sys.executable), *places]))


class EnginePool:
    """A fixed number of warm engines.

    Parameters
    ----------
    workers
        How many jobs run at the same time.
    directory
        Where engines have their home and keep what they say outside jobs.
    tool_path
        The search path for tools, after the directory of this Python.
    recycle_jobs
        After how many jobs an engine is replaced.
    recycle_bytes
        From which size on an engine is replaced after its job.
    message_limit
        The most bytes that a job's outputs may have as JSON.
    """

    def __init__(
        self,
        *,
        workers: int,
        directory: Path,
        tool_path: str | None = None,
        recycle_jobs: int = 5000,
        recycle_bytes: int = 1 << 30,
        message_limit: int = 64 << 20,
    ) -> None:
        self.workers = workers
        self._directory = directory
        self._environment = {
            "PATH": search_path(tool_path),
            "HOME": str(directory / "home"),
            "TMPDIR": str(directory / "tmp"),
            "LANG": "C.UTF-8",
        }
        self._recycle_jobs = recycle_jobs
        self._recycle_bytes = recycle_bytes
        self._message_limit = message_limit
        self._idle: asyncio.Queue[_EngineProcess | None] = asyncio.Queue()
        self._engines: set[_EngineProcess] = set()
        self._runs: dict[str, _Run] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._no_runs = asyncio.Event()
        self._no_runs.set()
        self._failure: str | None = None
        self._logger = structlog.get_logger("stoa.executor.pool")

    @property
    def running(self) -> frozenset[str]:
        """The jobs that have been given to the pool and have not ended."""
        return frozenset(self._runs)

    @property
    def failure(self) -> str | None:
        """Why engines cannot be started, if that is so."""
        return self._failure

    @property
    def engine_ids(self) -> list[int]:
        """The process ids of the engines."""
        return [engine.pid for engine in self._engines]

    async def start(self) -> None:
        """Start all engines and wait until each is ready or has failed; those that failed are tried again and again."""
        for name in ("home", "tmp"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        self._chore(self._tick())
        started = await asyncio.gather(*(self._try_start() for _ in range(self.workers)))
        for ready in started:
            if not ready:
                self._chore(self._add_engine(1.0))

    async def run(self, request: EngineRequest, on_log: OnLog | None = None) -> EngineResult:
        """Run a job on the next free engine, and wait for its end.

        Parameters
        ----------
        request
            The job.
        on_log
            Called in this event loop with what the job writes to its log, while it runs and once more at its end.

        Returns
        -------
        EngineResult
            How it ended, whatever happened to the engine.
        """
        run = _Run(request, on_log)
        if request.job in self._runs:
            msg = f"The job {request.job} is already running here."
            raise ValueError(msg)
        self._runs[request.job] = run
        self._no_runs.clear()
        try:
            while True:
                taken: _EngineProcess | None = None
                if not self._stopping.is_set() and run.stop_reason is None:
                    taken = await self._idle.get()
                if self._stopping.is_set() or run.stop_reason is not None:
                    self._idle.put_nowait(taken)
                    run.stop_reason = run.stop_reason or "stopping"
                    return self._stopped(run)
                result = await self._run_on(cast(_EngineProcess, taken), run)
                if result is not None:
                    return result
        finally:
            del self._runs[request.job]
            if not self._runs:
                self._no_runs.set()

    def cancel(self, job: str) -> bool:
        """Stop a job: it never starts, or its whole process tree is ended.

        Parameters
        ----------
        job
            As named in the request.

        Returns
        -------
        bool
            False if no such job runs here.
        """
        run = self._runs.get(job)
        if run is None:
            return False
        self._stop_run(run, "cancelled")
        return True

    async def stop(self, deadline: float = 20.0) -> None:
        """End the pool: running jobs get some time, then their processes are ended.

        Parameters
        ----------
        deadline
            Seconds that running jobs get.
        """
        self._stopping.set()
        self._idle.put_nowait(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._no_runs.wait()
        for run in list(self._runs.values()):
            self._stop_run(run, "stopping")
        await self._no_runs.wait()
        await asyncio.gather(*(engine.aclose() for engine in list(self._engines)))
        self._engines.clear()
        if self._chores:
            await asyncio.wait(self._chores)

    def _stop_run(self, run: _Run, reason: Literal["cancelled", "timeout", "stopping"]) -> None:
        if run.stop_reason is None:
            run.stop_reason = reason
            if run.engine is not None:
                run.engine.kill()

    async def _run_on(self, engine: _EngineProcess, run: _Run) -> EngineResult | None:
        """Run a job on an engine; None if the engine was gone before it began."""
        request = run.request
        run.engine = engine
        run.started = time.monotonic()
        began = time.time()
        response: dict[str, Any] | None = None
        problem: str | None = None
        try:
            response = await engine.ask(
                {
                    "job": request.job,
                    "workflow": {"directory": str(request.workflow), "main": request.main, "process": request.process},
                    "inputs": request.inputs,
                    "directory": str(request.directory),
                    "describe": request.describe,
                }
            )
        except asyncio.LimitOverrunError:
            engine.kill()
            problem = f"The outputs of the job are larger than {self._message_limit} bytes as JSON."
        finally:
            run.engine = None
            if run.log_offset:
                self._tell_log(run)
        if response is not None and run.stop_reason is None:
            engine.jobs += 1
            if self._stopping.is_set() or not (
                engine.jobs >= self._recycle_jobs or response["rss_bytes"] >= self._recycle_bytes or engine.ended
            ):
                self._idle.put_nowait(engine)
            else:
                self._replace(engine)
            usage = response["usage"]
            return EngineResult(
                outcome=response["outcome"],
                exit_code=response["exit_code"],
                outputs=response["outputs"],
                error=response["error"],
                started=response["started"],
                finished=response["finished"],
                wall_s=usage["wall_s"],
                cpu_s=usage["cpu_s"],
                max_rss_bytes=usage["max_rss_bytes"],
            )
        status = await engine.aclose()
        # The engine's last descendants: those that left its session and that nobody could name any more.
        await asyncio.to_thread(_end_strays, request.directory)
        self._replace(engine)
        wall = time.monotonic() - run.started
        if run.stop_reason is not None:
            return self._stopped(run, began, wall)
        if problem is None and not request.directory.exists():
            return None
        if problem is None:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            problem = f"The engine process ended {how} while it ran the job."
            return _not_run("temporaryFail", problem, began, wall)
        return _not_run("permanentFail", problem, began, wall)

    @staticmethod
    def _stopped(run: _Run, began: float | None = None, wall: float = 0.0) -> EngineResult:
        if run.stop_reason == "timeout":
            return _not_run(
                "permanentFail",
                f"The job ran longer than the limit of {run.request.time_limit:g} seconds.",
                began,
                wall,
            )
        if run.stop_reason == "stopping":
            return _not_run("stopped", "The executor was stopped before the job ended.", began, wall)
        return _not_run("cancelled", "The job was cancelled.", began, wall)

    def _replace(self, engine: _EngineProcess) -> None:
        self._engines.discard(engine)
        self._chore(self._retire(engine))

    async def _retire(self, engine: _EngineProcess) -> None:
        await engine.aclose()
        if not self._stopping.is_set():
            await self._add_engine()

    async def _add_engine(self, pause: float = 0.0) -> None:
        while not self._stopping.is_set():
            if pause:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
            if self._stopping.is_set() or await self._try_start():
                return
            pause = min(2 * pause, _LONGEST_PAUSE_S) or 1.0

    async def _try_start(self) -> bool:
        try:
            engine = await _EngineProcess.start(self._directory, self._environment, self._message_limit)
        except (OSError, EngineUnavailableError) as error:
            self._failure = str(error)
            self._logger.error("an engine could not be started", error=str(error))  # noqa: TRY400 - the sentence says it all
            return False
        self._failure = None
        if self._stopping.is_set():
            await engine.aclose()
            return True
        self._engines.add(engine)
        self._idle.put_nowait(engine)
        engine.watch(self._engine_ended)
        return True

    def _engine_ended(self, engine: _EngineProcess) -> None:
        """Replace an engine that died while it had nothing to do; one that had a job is replaced by its run."""
        if (
            engine in self._engines
            and not self._stopping.is_set()
            and all(run.engine is not engine for run in self._runs.values())
        ):
            waiting: list[_EngineProcess | None] = []
            while not self._idle.empty():
                waiting.append(self._idle.get_nowait())
            for item in waiting:
                if item is not engine:
                    self._idle.put_nowait(item)
            if engine in waiting:
                self._logger.warning("an idle engine ended and is replaced", pid=engine.pid)
                self._replace(engine)

    async def _tick(self) -> None:
        """Look after running jobs a few times a second: one loop for all of them, so that short jobs cost nothing."""
        while not self._stopping.is_set() or self._runs:
            now = time.monotonic()
            for run in list(self._runs.values()):
                if run.engine is None:
                    continue
                limit = run.request.time_limit
                if limit is not None and now - run.started > limit:
                    self._stop_run(run, "timeout")
                elif now - run.started > _TICK_S:
                    self._tell_log(run)
            waited = self._no_runs if self._stopping.is_set() else self._stopping
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await waited.wait()

    @staticmethod
    def _tell_log(run: _Run) -> None:
        if run.on_log is None:
            return
        path = run.request.directory / "log"
        try:
            size = path.stat().st_size
            if size <= run.log_offset:
                return
            with path.open("rb") as file:
                # Who writes faster than people read loses the middle, which the finished log has.
                run.log_offset = max(run.log_offset, size - _TAIL_BYTES)
                file.seek(run.log_offset)
                chunk = whole_characters(file.read(_TAIL_BYTES))
        except OSError:
            return
        offset, run.log_offset = run.log_offset, run.log_offset + len(chunk)
        run.on_log(offset, chunk)

    def _chore(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chore_ended)

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if (error := task.exception()) is not None:
            self._logger.error("looking after the engines failed", exc_info=error)


class _EngineProcess:
    """One engine, seen from the agent."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._exited = asyncio.Event()
        self._on_exit: Callable[[_EngineProcess], None] | None = None
        self._status: int | None = None
        self.pid = process.pid
        self.jobs = 0
        self._handle = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._collect)

    @classmethod
    async def start(cls, directory: Path, environment: Mapping[str, str], limit: int) -> _EngineProcess:
        """Start an engine and wait until it has loaded cwltool."""
        ours, theirs = socket.socketpair()
        said = directory / "engine.log"
        with theirs, said.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own module, started in a few milliseconds
                [sys.executable, "-I", "-m", "stoa_executor.engine", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                cwd=directory,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
        engine = cls(process, reader, writer)
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                ready = await reader.readline()
        except TimeoutError:
            ready = b""
        if not ready:
            status = await engine.aclose()
            with said.open("rb") as log:
                log.seek(start)
                words = log.read(_TAIL_BYTES).decode(errors="replace").strip().splitlines()
            msg = f"The engine process ended with status {status} before it was ready: {words[-1] if words else 'it said nothing'}"
            raise EngineUnavailableError(msg)
        return engine

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._exited.is_set()

    def watch(self, on_exit: Callable[[_EngineProcess], None]) -> None:
        """Call back when the process ends."""
        self._on_exit = on_exit
        if self.ended:
            on_exit(self)

    async def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Send a request and wait for its response; None if the process ended first."""
        try:
            self._writer.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return cast("dict[str, Any]", json.loads(line))

    def kill(self) -> None:
        """End the process and all it started, those that left its process group included."""
        if self.ended:
            return
        # A stopped engine starts nothing new while its descendants are looked for, and adopts what loses its parent.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        for _ in range(100):
            try:
                left = [child for child in psutil.Process(self.pid).children(recursive=True) if _is_alive(child)]
            except psutil.Error:
                break
            if not left:
                break
            for child in left:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def aclose(self) -> int:
        """End the process, and collect its exit status."""
        self._writer.close()
        self.kill()
        await self._exited.wait()
        return self._status if self._status is not None else 0

    def _collect(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        # The group outlives its leader until the leader is collected, so its number cannot be another's yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._status = self._process.wait()
        self._exited.set()
        self._writer.close()
        if self._on_exit is not None:
            self._on_exit(self)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _end_strays(directory: Path) -> None:
    """End processes whose home is in the job's directory, which cwltool gives to every tool, and wait until they are gone."""
    home = f"{directory}{os.sep}"
    strays = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("HOME", "").startswith(home):
                strays.append(process)
                process.kill()
    psutil.wait_procs(strays, timeout=_STRAYS_S)


def _not_run(
    outcome: Literal["permanentFail", "temporaryFail", "cancelled", "stopped"],
    error: str,
    began: float | None = None,
    wall: float = 0.0,
) -> EngineResult:
    now = time.time()
    return EngineResult(
        outcome=outcome,
        exit_code=None,
        outputs=None,
        error=error,
        started=began if began is not None else now,
        finished=now,
        wall_s=wall,
        cpu_s=0.0,
        max_rss_bytes=0,
    )
