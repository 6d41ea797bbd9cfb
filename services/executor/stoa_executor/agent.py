"""The agent: takes jobs off the queue, has engines run them, and records what became of them.

It holds the credentials of the executor; the engines, which run other people's programs, get none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
import structlog
from pydantic import ValidationError

from stoa_chassis.bus import Bus, BusError, JobMessage, JobSubscription
from stoa_chassis.database import DatabaseUnavailableError
from stoa_chassis.projection import EventStore
from stoa_chassis.waiting import Backoff, wait_any
from stoa_contracts.envelope import Envelope
from stoa_contracts.jobs import JobRequest
from stoa_contracts.subjects import job_log_subject
from stoa_contracts.types import FileReference, Usage
from stoa_executor.domain import InputRefusedError, file_objects
from stoa_executor.ledger import Ending, Ledger, Taken
from stoa_executor.pool import EnginePool, EngineRequest, EngineResult
from stoa_executor.settings import ExecutorSettings
from stoa_executor.staging import (
    InputGuard,
    InputStager,
    OutputCollector,
    StagedWorkflow,
    TablesUnavailableError,
    WorkflowCache,
    WorkflowRefusedError,
    keep_log,
)
from stoa_executor.store import FileStore

__all__ = ["Agent"]

_T = TypeVar("_T")

#: What a delivery is answered with: take it off the queue, send it again at once or later, or leave it to the broker.
_Answer = Literal["done", "again", "later", "nothing"]

_FETCH_WAIT_S = 1.0
_SHORT_JOB_S = 0.5
"""While jobs are this short on average, as many again are fetched ahead, to hide the way to the broker."""
_PATIENCE_S = 2.0
"""A job that was fetched ahead goes back to the queue when no engine became free in this time."""
_ELSEWHERE_S = 15.0


@dataclass(eq=False, slots=True)
class _Work:
    """One attempt in this process."""

    request: JobRequest
    messages: list[JobMessage] = field(default_factory=list)
    """All deliveries of it; none where it is resumed after a restart."""
    fetched: float = field(default_factory=time.monotonic)
    begun: float | None = None
    """When it got an engine's place."""
    started: bool = False
    cancelled: bool = False
    guard: InputGuard | None = None


class Agent:
    """Runs jobs from the queue until it is told to stop.

    Parameters
    ----------
    settings
        Of the process.
    bus
        Where jobs come from, and where logs are told live.
    ledger
        Where claims and outcomes are written.
    store
        Where files are.
    make_pool
        Makes what runs the jobs.
    workflows
        Where workflow versions come from.
    """

    def __init__(
        self,
        *,
        settings: ExecutorSettings,
        bus: Bus,
        ledger: Ledger,
        store: FileStore,
        make_pool: Callable[[], EnginePool],
        workflows: WorkflowCache,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._ledger = ledger
        self._store = store
        self._make_pool = make_pool
        self._pool = make_pool()
        self._workflows = workflows
        self._stager = InputStager(store, settings.input_roots)
        self._jobs_folder = settings.work_folder / "jobs"
        self._work: dict[str, _Work] = {}
        self._ahead: deque[_Work] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._mean_s = 0.0
        self._tells: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._logger = structlog.get_logger("stoa.executor.agent")

    @property
    def running(self) -> list[str]:
        """The jobs that run here."""
        return [job for job, work in self._work.items() if work.started]

    def log_path(self, job: str) -> Path | None:
        """Say where the log of a job grows that runs here."""
        work = self._work.get(job)
        return self._folder(work) / "log" if work is not None and work.started else None

    def problem(self) -> str | None:
        """Say what keeps jobs from running, if anything does."""
        failure = self._pool.failure
        return None if failure is None else f"Engines cannot be started: {failure}"

    async def run(self, stop: asyncio.Event) -> None:
        """Take jobs and run them until the event is set; then let running ones end within the time of the settings."""
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        with await self._own_folder(stop) as lock:
            if lock is None:
                return
            await asyncio.to_thread(self._clean)
            self._ended.clear()
            self._pool = self._make_pool()
            await self._pool.start()
            heart = asyncio.create_task(self._beat())
            try:
                await self._resume()
                await self._take_jobs(stop)
            finally:
                await self._end(heart)

    def observe(self, events: EventStore) -> Callable[[sa.Connection, Envelope], None]:
        """Make what applies the scheduler's events: a cancelled job is noted, and stopped where it runs here.

        Parameters
        ----------
        events
            The log and read model.
        """

        def apply(connection: sa.Connection, envelope: Envelope) -> None:
            events.observe(connection, envelope)
            if envelope.name == "job-cancelled" and self._loop is not None:
                for reference in envelope.data["jobs"]:
                    self._loop.call_soon_threadsafe(self.cancel, reference["job"])

        return apply

    def cancel(self, job: str) -> None:
        """Stop a job if it runs here."""
        work = self._work.get(job)
        if work is not None:
            work.cancelled = True
            self._pool.cancel(job)

    # --- taking jobs -------------------------------------------------------------------------------------------------

    async def _take_jobs(self, stop: asyncio.Event) -> None:
        backoff = Backoff(0.1, 5.0)
        subscription: JobSubscription | None = None
        while not stop.is_set():
            self._hand_back()
            room = self._room()
            if room <= 0:
                self._changed.clear()
                await wait_any(self._changed, stop, seconds=_PATIENCE_S)
                continue
            try:
                if subscription is None:
                    subscription = await self._bus.subscribe_jobs("executor")
                messages = await subscription.fetch(room, _FETCH_WAIT_S)
            except BusError as error:
                self._logger.info("the job queue cannot be reached", error=str(error))
                await wait_any(stop, seconds=backoff.next())
                continue
            backoff.reset()
            for message in messages:
                self._receive(message)
        if subscription is not None:
            await subscription.aclose()

    def _room(self) -> int:
        now = time.monotonic()
        quick = self._mean_s < _SHORT_JOB_S and all(
            now - work.begun < _PATIENCE_S for work in self._work.values() if work.begun is not None
        )
        ahead = self._pool.workers if quick else 0
        return self._pool.workers - self._running + ahead - len(self._ahead)

    def _receive(self, message: JobMessage) -> None:
        try:
            request = JobRequest.model_validate_json(message.body)
        except ValidationError as error:
            self._logger.warning("a message on the job queue is no job", subject=message.subject, error=str(error))
            self._spawn(self._quietly(message.reject()))
            return
        known = self._work.get(request.job)
        if known is not None:
            if known.request.attempt >= request.attempt:
                # It came again, or was sent again, while it is in our hands: one answer for all.
                known.messages.append(message)
            else:
                self._spawn(self._quietly(message.retry(1.0)))
            return
        self._begin(_Work(request, [message]))

    def _begin(self, work: _Work) -> None:
        self._work[work.request.job] = work
        if self._running < self._pool.workers:
            self._start(work)
        else:
            self._ahead.append(work)

    def _start(self, work: _Work) -> None:
        self._running += 1
        work.begun = time.monotonic()
        self._spawn(self._carry_out(work))

    def _hand_back(self) -> None:
        """Give jobs back that were fetched ahead of long ones: another executor may have room."""
        now = time.monotonic()
        while self._ahead and now - self._ahead[0].fetched > _PATIENCE_S and self._ahead[0].messages:
            work = self._ahead.popleft()
            del self._work[work.request.job]
            for message in work.messages:
                self._spawn(self._quietly(message.retry()))

    def _leave_engine(self) -> None:
        self._running -= 1
        if self._ahead and not self._stop.is_set():
            self._start(self._ahead.popleft())
        self._changed.set()

    async def _resume(self) -> None:
        """Go on at once with what an earlier process of this executor left behind, before the queue sends it again."""
        for request in await self._persist(self._ledger.left_behind) or []:
            self._logger.info("a job is resumed that an earlier process did not end", job=request.job)
            self._begin(_Work(request))

    # --- one job -----------------------------------------------------------------------------------------------------

    async def _carry_out(self, work: _Work) -> None:
        request = work.request
        engine_held = True
        taken: Taken | None = None
        answer: _Answer = "done"
        try:
            workflow = await self._workflow(work)
            if workflow is None:
                answer = "again"
                return
            taken = await self._persist(lambda: self._ledger.take(request))
            if taken is None:
                answer = "again"
                return
            if taken.decision in {"drop", "cancelled", "elsewhere"}:
                answer = "later" if taken.decision == "elsewhere" else "done"
                return
            result, inputs_error = await self._run(work, taken, workflow)
            self._leave_engine()
            engine_held = False
            if result is not None and result.outcome == "stopped":
                await self._persist(lambda: self._ledger.let_go(request, taken.token))
                answer = "again"
                return
            ending = await self._ending(work, taken, workflow, result, inputs_error)
            recorded = await self._persist(lambda: self._ledger.finish(request, taken.token, ending))
            if recorded is None:
                answer = "nothing"
            elif not recorded:
                answer = "nothing"
                self._logger.warning("the result of a superseded run is refused", job=request.job)
        except Exception:
            # Nothing was recorded: the message comes again, and the count of starts sees to it that this ends.
            self._logger.exception("a job could not be carried out", job=request.job)
            answer = "later"
        finally:
            if engine_held:
                self._leave_engine()
            self._work.pop(request.job, None)
            for message in work.messages:
                await self._quietly(_answered(message, answer))

    async def _workflow(self, work: _Work) -> StagedWorkflow | str | None:
        """Give the workflow, or why it is refused; None if nobody could be asked before the end or the cancellation."""
        backoff = Backoff(0.2, 5.0)
        while True:
            try:
                return await self._workflows.get(work.request.workflow_version)
            except WorkflowRefusedError as error:
                return str(error)
            except TablesUnavailableError as error:
                self._logger.info("a job waits for its workflow", job=work.request.job, error=str(error))
            if work.cancelled or await wait_any(self._stop, seconds=backoff.next()):
                return None

    async def _run(
        self, work: _Work, taken: Taken, workflow: StagedWorkflow | str
    ) -> tuple[EngineResult | None, str | None]:
        """Run the engine; without a result there is a sentence that says why it was not asked."""
        request = work.request
        if taken.decision == "exhausted":
            return None, (
                f"The executor started the job {taken.starts} times and ended each time before the job did;"
                " it may need more memory than there is."
            )
        if isinstance(workflow, str):
            return None, workflow
        try:
            inputs = request.inputs
            if any(True for _ in file_objects(inputs)):
                inputs, work.guard = await asyncio.to_thread(self._stage, inputs)
        except InputRefusedError as error:
            return None, str(error)
        work.started = True
        if work.cancelled:
            return None, "The job was cancelled."
        result = await self._pool.run(
            EngineRequest(
                job=request.job,
                workflow=workflow.directory,
                main=workflow.main,
                process=workflow.process,
                inputs=inputs,
                directory=self._folder(work),
                time_limit=self._settings.job_time_limit,
            ),
            lambda offset, chunk: self._tell_log(request.job, offset, chunk),
        )
        self._mean_s += 0.2 * (result.wall_s - self._mean_s)
        return result, None

    def _stage(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], InputGuard]:
        return self._stager.stage(inputs), InputGuard(self._store, inputs)

    async def _ending(
        self,
        work: _Work,
        taken: Taken,
        workflow: StagedWorkflow | str,
        result: EngineResult | None,
        refusal: str | None,
    ) -> Ending:
        now = datetime.now(UTC)
        if result is None:
            return Ending(
                outcome="cancelled" if work.cancelled else "permanentFail",
                started=taken.started or now,
                finished=now,
                usage=Usage(wall_s=0.0, cpu_s=0.0, max_rss_bytes=0),
                error=refusal,
            )
        readable = [*self._settings.input_roots]
        if isinstance(workflow, StagedWorkflow):
            readable.append(workflow.directory)
        log, outputs, error = await asyncio.to_thread(self._store_results, work, result, readable)
        outcome = result.outcome
        if outcome == "stopped" or (error is not None and outcome == "success"):
            outcome = "permanentFail"
        return Ending(
            outcome="cancelled" if work.cancelled else outcome,
            started=_instant(result.started),
            finished=_instant(max(result.started, result.finished)),
            usage=Usage(wall_s=result.wall_s, cpu_s=result.cpu_s, max_rss_bytes=result.max_rss_bytes),
            exit_code=result.exit_code,
            outputs=outputs,
            error=error if error is not None else result.error,
            log=log,
        )

    def _store_results(
        self, work: _Work, result: EngineResult, readable: list[Path]
    ) -> tuple[FileReference | None, dict[str, Any] | None, str | None]:
        """Take log and outputs into the store; runs in a thread."""
        folder = self._folder(work)
        outputs: dict[str, Any] | None = None
        error: str | None = None
        try:
            if work.guard is not None:
                work.guard.check()
            if result.outcome == "success" and result.outputs is not None and not work.cancelled:
                outputs = OutputCollector(self._store, folder, readable).collect(result.outputs)
        except InputRefusedError as refused:
            error = str(refused)
        kept = keep_log(self._store, folder / "log", self._settings.max_log_bytes)
        log = (
            None if kept is None else FileReference(name=f"{work.request.job}.log", sha256=kept.digest, size=kept.size)
        )
        shutil.rmtree(folder, ignore_errors=True)
        return log, outputs, error

    def _folder(self, work: _Work) -> Path:
        return self._jobs_folder / f"{work.request.job}.{work.request.attempt}"

    async def _persist(self, write: Callable[[], Awaitable[_T]]) -> _T | None:
        """Write to the database, as often as it takes; None only if the process is told to stop while there is none."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                return await write()
            except DatabaseUnavailableError as error:
                self._logger.warning("the database is not available", error=str(error))
            if await wait_any(self._stop, seconds=backoff.next()) and backoff.failures > 1:
                return None

    # --- live logs ---------------------------------------------------------------------------------------------------

    def _tell_log(self, job: str, offset: int, chunk: bytes) -> None:
        body = json.dumps({"offset": offset, "size": len(chunk), "text": chunk.decode(errors="replace")}).encode()
        task = asyncio.ensure_future(self._quietly(self._bus.tell(job_log_subject(job), body)))
        self._tells.add(task)
        task.add_done_callback(self._tells.discard)

    # --- life --------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Tell the queue and the ledger that we live."""
        while not await wait_any(self._ended, seconds=self._settings.job_lease / 4):
            for work in list(self._work.values()):
                for message in work.messages:
                    await self._quietly(message.in_progress())
            if self._work:
                with contextlib.suppress(DatabaseUnavailableError):
                    await self._ledger.beat()

    async def _end(self, heart: asyncio.Task[None]) -> None:
        while self._ahead:
            work = self._ahead.popleft()
            self._work.pop(work.request.job, None)
            for message in work.messages:
                await self._quietly(message.retry())
        await self._pool.stop(self._settings.stop_timeout * 0.8)
        while self._tasks or self._tells:
            await asyncio.wait({*self._tasks, *self._tells})
        self._ended.set()
        await heart

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, answer: Awaitable[None] | None) -> None:
        """Answer the broker; where it does not hear, the job comes again and the ledger knows it."""
        if answer is not None:
            try:
                await answer
            except BusError as error:
                self._logger.info("the broker was not told", error=str(error))

    async def _own_folder(self, stop: asyncio.Event) -> _FolderLock:
        """Wait until no other executor works in the same folder: resumed jobs must have one master."""
        self._settings.work_folder.mkdir(parents=True, exist_ok=True)
        lock = _FolderLock(self._settings.work_folder / "lock")
        told = False
        while not lock.take() and not await wait_any(stop, seconds=0.5):
            if not told:
                self._logger.warning("another executor works in the folder", folder=str(self._settings.work_folder))
                told = True
        return lock

    def _clean(self) -> None:
        shutil.rmtree(self._jobs_folder, ignore_errors=True)
        self._jobs_folder.mkdir(parents=True)
        self._store.sweep()


class _FolderLock:
    """A lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.held = False

    def take(self) -> bool:
        try:
            fcntl.flock(self._handle or 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.held = True
        return True

    def __enter__(self) -> _FolderLock | None:
        return self if self.held else None

    def __exit__(self, *exception: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _answered(message: JobMessage, answer: _Answer) -> Awaitable[None] | None:
    match answer:
        case "done":
            return message.ack()
        case "again":
            return message.retry()
        case "later":
            return message.retry(_ELSEWHERE_S)
        case "nothing":
            return None


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
