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
from collections.abc import Awaitable, Callable, Sequence
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
from stoa_contracts.events.executor import JobFinished
from stoa_contracts.ids import new_id
from stoa_contracts.jobs import JobRequest
from stoa_contracts.subjects import job_log_subject
from stoa_contracts.types import FileReference, InputFile, Outcome, Usage
from stoa_executor.digests import InterruptedLookError
from stoa_executor.domain import InputRefusedError, file_objects
from stoa_executor.ledger import Ending, Ledger, Taken
from stoa_executor.pool import EnginePool, EngineRequest, EngineResult
from stoa_executor.preparation import InputUnstableError, Preparation, Preparer
from stoa_executor.settings import ExecutorSettings
from stoa_executor.software import ProgramChangedError, WorkflowDescription
from stoa_executor.staging import (
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
_MOST_PARKED = 256
"""While so many jobs wait for the end of an equal one, no more are fetched."""
_DESCRIBE_LIMIT_S = 60.0


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
    placed: bool = False
    """Whether it counts among the jobs that engines are kept for."""
    cancelled: bool = False
    called_off: asyncio.Event = field(default_factory=asyncio.Event)
    key: str | None = None
    """Under which others wait for its end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


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
    preparer
        Makes jobs ready, and says under which key they run.
    on_read
        Told what a job has read from places whose content may change.
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
        preparer: Preparer,
        on_read: Callable[[Sequence[InputFile]], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._ledger = ledger
        self._store = store
        self._make_pool = make_pool
        self._pool = make_pool()
        self._workflows = workflows
        self._preparer = preparer
        self._on_read = on_read
        self._descriptions: dict[StagedWorkflow, WorkflowDescription] = {}
        self._describing: dict[StagedWorkflow, asyncio.Lock] = {}
        self._under_way: dict[str, asyncio.Event] = {}
        self._parked = 0
        self._returning: deque[asyncio.Future[None]] = deque()
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

    @property
    def held(self) -> int:
        """How many jobs are in the hands of this executor."""
        return len(self._work)

    @property
    def waiting(self) -> int:
        """How many jobs wait here for the end of an equal one."""
        return self._parked

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
            work.called_off.set()
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
        if self._parked >= _MOST_PARKED:
            return 0
        now = time.monotonic()
        quick = self._mean_s < _SHORT_JOB_S and all(
            now - work.begun < _PATIENCE_S for work in self._work.values() if work.begun is not None
        )
        ahead = self._pool.workers if quick else 0
        return self._pool.workers - self._running + ahead - len(self._ahead) - len(self._returning)

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
        work.placed = True
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

    def _leave_engine(self, work: _Work) -> None:
        if not work.placed:
            return
        work.placed = False
        work.begun = None
        self._running -= 1
        if self._returning:
            self._running += 1
            self._returning.popleft().set_result(None)
        elif self._ahead and not self._stop.is_set():
            self._start(self._ahead.popleft())
        self._changed.set()

    async def _return_to_engine(self, work: _Work) -> None:
        """Wait for a place, for a job that had left its own."""
        if work.placed:
            return
        if self._running < self._pool.workers:
            self._running += 1
        else:
            place = asyncio.get_running_loop().create_future()
            self._returning.append(place)
            await place
        work.placed = True
        work.begun = time.monotonic()

    async def _resume(self) -> None:
        """Go on at once with what an earlier process of this executor left behind, before the queue sends it again."""
        for request in await self._persist(self._ledger.left_behind) or []:
            self._logger.info("a job is resumed that an earlier process did not end", job=request.job)
            self._begin(_Work(request))

    # --- one job -----------------------------------------------------------------------------------------------------

    async def _carry_out(self, work: _Work) -> None:
        request = work.request
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
            ending = await self._attempt(work, taken, workflow)
            if ending is None:
                await self._persist(lambda: self._ledger.let_go(request, taken.token))
                answer = "again"
                return
            recorded = await self._persist(lambda: self._ledger.finish(request, taken.token, ending))
            if recorded is None:
                answer = "nothing"
            elif not recorded:
                answer = "nothing"
                self._logger.warning("the result of a superseded run is refused", job=request.job)
            elif ending.files:
                self._on_read(ending.files)
        except Exception:
            # Nothing was recorded: the message comes again, and the count of starts sees to it that this ends.
            self._logger.exception("a job could not be carried out", job=request.job)
            answer = "later"
        finally:
            self._leave_engine(work)
            self._release_key(work)
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

    async def _attempt(self, work: _Work, taken: Taken, workflow: StagedWorkflow | str) -> Ending | None:
        """Run a job, or take the outputs of an equal one; None if the executor is stopped before that."""
        if taken.decision == "exhausted":
            return _refused(
                taken,
                "permanentFail",
                f"The executor started the job {taken.starts} times and ended each time before the job did;"
                " it may need more memory than there is.",
            )
        if isinstance(workflow, str):
            return _refused(taken, "cancelled" if work.cancelled else "permanentFail", workflow)
        try:
            return await self._prepared_attempt(work, taken, workflow)
        except InputRefusedError as error:
            return _refused(taken, "cancelled" if work.cancelled else "permanentFail", str(error))
        except InputUnstableError as error:
            return _refused(taken, "cancelled" if work.cancelled else "temporaryFail", str(error))
        except InterruptedLookError:
            return _refused(taken, "cancelled", "The job was cancelled.") if work.cancelled else None

    async def _prepared_attempt(self, work: _Work, taken: Taken, workflow: StagedWorkflow) -> Ending | None:
        description = await self._describe(workflow)
        prepared = await self._prepare(work, workflow, description)
        found = await self._reusable(work, prepared)
        if found is not None:
            return _reused(found, taken, prepared)
        await self._return_to_engine(work)
        work.started = True
        if work.cancelled:
            raise InterruptedLookError
        result = await self._pool.run(
            EngineRequest(
                job=work.request.job,
                workflow=workflow.directory,
                main=workflow.main,
                process=workflow.process,
                inputs=prepared.inputs,
                directory=self._folder(work),
                time_limit=self._settings.job_time_limit,
            ),
            lambda offset, chunk: self._tell_log(work.request.job, offset, chunk),
        )
        self._mean_s += 0.2 * (result.wall_s - self._mean_s)
        self._leave_engine(work)
        if result.outcome == "stopped":
            return None
        return await self._ending(work, workflow, description, prepared, result)

    async def _describe(self, workflow: StagedWorkflow) -> WorkflowDescription | None:
        """Ask an engine once what a workflow runs; None where it cannot say, because the job will fail there, too."""
        if (known := self._descriptions.get(workflow)) is not None:
            return known
        async with self._describing.setdefault(workflow, asyncio.Lock()):
            if workflow not in self._descriptions:
                name = f"description.{new_id()}"
                result = await self._pool.run(
                    EngineRequest(
                        job=name,
                        workflow=workflow.directory,
                        main=workflow.main,
                        process=workflow.process,
                        inputs={},
                        directory=self._jobs_folder / name,
                        time_limit=_DESCRIBE_LIMIT_S,
                        describe=True,
                    )
                )
                await asyncio.to_thread(shutil.rmtree, self._jobs_folder / name, ignore_errors=True)
                if result.outputs is None:
                    self._logger.info("a workflow is run without a key", error=result.error, workflow=str(workflow))
                    return None
                self._descriptions[workflow] = WorkflowDescription.of(result.outputs)
        return self._descriptions[workflow]

    async def _prepare(
        self, work: _Work, workflow: StagedWorkflow, description: WorkflowDescription | None
    ) -> Preparation:
        def interrupted() -> bool:
            return work.cancelled or self._stop.is_set()

        prepared = await asyncio.to_thread(self._preparer.prepare, work.request, workflow, description, interrupted)
        if self._preparer.has_news:
            self._spawn(self._save_digests())
        return prepared

    async def _save_digests(self) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            await self._preparer.save()

    # --- equal jobs --------------------------------------------------------------------------------------------------

    async def _reusable(self, work: _Work, prepared: Preparation) -> JobFinished | None:
        """Find a job whose outputs can be taken; where an equal one runs here, wait for its end.

        Raises
        ------
        stoa_executor.digests.InterruptedLookError
            If the job was cancelled, or the executor is stopped, while it waited.
        """
        if prepared.key is None or not prepared.may_reuse:
            return None
        key = prepared.key.digest
        if work.request.force:
            if key not in self._under_way:
                self._hold_key(work, key)
            return None
        while key in self._under_way:
            # An engine should not stand idle beside a job that only waits.
            self._leave_engine(work)
            self._parked += 1
            try:
                await wait_any(self._under_way[key], self._stop, work.called_off)
            finally:
                self._parked -= 1
                self._changed.set()
            if work.cancelled or self._stop.is_set():
                raise InterruptedLookError
        # From here on others wait for us; then the look cannot miss what ends in this moment.
        self._hold_key(work, key)
        found = await self._persist(lambda: self._ledger.reusable(key))
        if found is None or not await asyncio.to_thread(self._has_outputs, found):
            return None
        self._release_key(work)
        return found

    def _hold_key(self, work: _Work, key: str) -> None:
        work.key = key
        self._under_way[key] = work.ended

    def _release_key(self, work: _Work) -> None:
        if work.key is not None:
            del self._under_way[work.key]
            work.key = None
            work.ended.set()

    def _has_outputs(self, finished: JobFinished) -> bool:
        locations = [str(file.get("location", "")) for file in file_objects(finished.outputs)]
        digests = {location.removeprefix("sha256:") for location in locations if location.startswith("sha256:")}
        return finished.outputs is not None and all(self._store.has(digest) for digest in digests)

    # --- the end of a job --------------------------------------------------------------------------------------------

    async def _ending(
        self,
        work: _Work,
        workflow: StagedWorkflow,
        description: WorkflowDescription | None,
        prepared: Preparation,
        result: EngineResult,
    ) -> Ending:
        outcome: Outcome = "permanentFail" if result.outcome == "stopped" else result.outcome
        refusal: tuple[Outcome, str] | None = None
        readable = [*self._settings.input_roots, workflow.directory]

        def look() -> tuple[FileReference | None, dict[str, Any] | None, str | None]:
            nonlocal refusal
            try:
                self._preparer.check(prepared, workflow, description)
            except InputRefusedError as damaged:
                refusal = "permanentFail", str(damaged)
            except (InputUnstableError, ProgramChangedError) as changed:
                refusal = "temporaryFail", str(changed)
            return self._store_results(work, result, readable, keep=refusal is None and not work.cancelled)

        log, outputs, error = await asyncio.to_thread(look)
        if refusal is None and error is not None:
            refusal = "permanentFail", error
        if refusal is not None and (
            outcome == "success" or (outcome, refusal[0]) == ("permanentFail", "temporaryFail")
        ):
            # What failed on a file that was just being written may succeed on the whole one.
            outcome = refusal[0]
        return Ending(
            outcome="cancelled" if work.cancelled else outcome,
            started=_instant(result.started),
            finished=_instant(max(result.started, result.finished)),
            usage=Usage(wall_s=result.wall_s, cpu_s=result.cpu_s, max_rss_bytes=result.max_rss_bytes),
            exit_code=result.exit_code,
            outputs=outputs,
            error=refusal[1] if refusal is not None else result.error,
            log=log,
            key=prepared.key,
            files=prepared.files,
            software=prepared.software,
        )

    def _store_results(
        self, work: _Work, result: EngineResult, readable: list[Path], *, keep: bool
    ) -> tuple[FileReference | None, dict[str, Any] | None, str | None]:
        """Take log and outputs into the store; runs in a thread."""
        folder = self._folder(work)
        outputs: dict[str, Any] | None = None
        error: str | None = None
        try:
            if keep and result.outcome == "success" and result.outputs is not None:
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


def _refused(taken: Taken, outcome: Outcome, sentence: str) -> Ending:
    """Write of a job that was not run why."""
    now = datetime.now(UTC)
    return Ending(outcome=outcome, started=taken.started or now, finished=now, usage=_no_usage(), error=sentence)


def _reused(found: JobFinished, taken: Taken, prepared: Preparation) -> Ending:
    """Write of a job whose outputs another one has made."""
    now = datetime.now(UTC)
    started = taken.started or now
    return Ending(
        outcome="success",
        started=started,
        finished=now,
        usage=_no_usage(max(0.0, (now - started).total_seconds())),
        exit_code=found.exit_code,
        outputs=found.outputs,
        log=found.log,
        key=prepared.key,
        files=prepared.files,
        software=prepared.software,
        reused_from=found.job,
    )


def _no_usage(wall_s: float = 0.0) -> Usage:
    return Usage(wall_s=wall_s, cpu_s=0.0, max_rss_bytes=0)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
