"""The executor: runs jobs, and keeps the files that they read and write."""

from __future__ import annotations

import platform
import socket
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI

from stoa_chassis.bus import Bus
from stoa_chassis.nats_bus import NatsBus
from stoa_chassis.service import ServiceDefinition, create_service_app
from stoa_executor.agent import Agent
from stoa_executor.digests import ContentDigests
from stoa_executor.factory import ExecutorContext
from stoa_executor.handlers import router
from stoa_executor.ledger import Ledger
from stoa_executor.models import metadata
from stoa_executor.pool import EnginePool, search_path
from stoa_executor.preparation import Preparer
from stoa_executor.projection import ExecutorProjection
from stoa_executor.recheck import recheck_router
from stoa_executor.settings import ExecutorSettings
from stoa_executor.software import Software
from stoa_executor.staging import InputStager, WorkflowCache
from stoa_executor.store import FileStore
from stoa_executor.watching import FileWatcher

__all__ = ["SERVICE", "create_app"]

_DESCRIPTION = """
Where Stoa's files are, and what its running jobs say. A file is named by the SHA-256 of its content, so what an address
gives never changes. Jobs are not given here: the executor takes them from the scheduler's queue. Files that jobs read where
they stand are watched, and each change is told as an event.
"""


def create_app(settings: ExecutorSettings, *, bus: Bus | None = None) -> FastAPI:
    """Make the executor's application.

    Parameters
    ----------
    settings
        How it is set up.
    bus
        The broker, where it is not the NATS server of the settings.
    """
    store = FileStore(settings.files_folder)
    bus = bus or NatsBus(
        settings.nats_url, name="executor", replicas=settings.nats_replicas, ack_wait=settings.job_lease
    )
    context: ExecutorContext = ExecutorContext.create(SERVICE, settings, bus=bus, store=store, parts={})
    host = socket.gethostname()
    ledger = Ledger(
        database=context.database,
        events=context.events,
        host=host,
        place=f"{host}:{settings.work_folder}",
        software={"cwltool": version("cwltool"), "python": platform.python_version(), "stoa": version("stoa-executor")},
        max_starts=settings.max_starts,
        dead_after=2 * settings.job_lease,
    )
    digests = ContentDigests(context.database, settings.input_roots)
    watcher = FileWatcher(
        database=context.database,
        events=context.events,
        digests=digests,
        roots=settings.input_roots,
        period=settings.recheck_seconds,
        folders=settings.watched_folders,
    )
    agent = Agent(
        settings=settings,
        bus=context.bus,
        ledger=ledger,
        store=store,
        make_pool=partial(
            EnginePool,
            workers=settings.workers,
            directory=settings.work_folder / "engines",
            tool_path=settings.tool_path,
            recycle_jobs=settings.recycle_jobs,
            recycle_bytes=settings.recycle_bytes,
        ),
        workflows=WorkflowCache(settings.work_folder / "workflows", settings.tables_url, context.http),
        preparer=Preparer(
            store,
            InputStager(store, settings.input_roots),
            digests,
            Software(digests, search_path(settings.tool_path), {"cwltool": version("cwltool")}),
        ),
        on_read=watcher.notice,
    )
    context.parts.update(agent=agent, ledger=ledger, watcher=watcher)
    context.follow(["scheduler"], agent.observe(context.events))

    async def start() -> None:
        context.background.start("agent", agent.run)
        context.background.start("files-by-the-clock", watcher.look_by_the_clock)
        context.background.start("files-again", watcher.look_again)
        context.background.start("files-events", watcher.listen)

    return create_service_app(SERVICE, context, [router, recheck_router], description=_DESCRIPTION, on_start=start)


SERVICE = ServiceDefinition(
    name="executor",
    settings=ExecutorSettings,
    projection=ExecutorProjection,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
    create_app=create_app,
)
