"""The scheduler: which rows run, when, and in which order."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from stoa_chassis.bus import Bus
from stoa_chassis.service import ServiceDefinition, create_service_app
from stoa_scheduler.alarm import Alarm
from stoa_scheduler.dispatcher import Dispatcher
from stoa_scheduler.factory import SchedulerContext
from stoa_scheduler.handlers import router
from stoa_scheduler.models import metadata
from stoa_scheduler.policy import Policy
from stoa_scheduler.projection import SchedulerProjection
from stoa_scheduler.queue_handlers import router as queue_router
from stoa_scheduler.settings import SchedulerSettings

__all__ = ["SERVICE", "create_app"]

_DESCRIPTION = """
The queue of Stoa. Rows that are stale become jobs here, by hand or by themselves, and the executors get them from here.
A job names the row's revision, the workflow's version and all inputs. Positions in requests and answers are those of
the logs that the services keep.
"""


def create_app(settings: SchedulerSettings, *, bus: Bus | None = None) -> FastAPI:
    """Make the scheduler's application.

    Parameters
    ----------
    settings
        How it is set up.
    bus
        The broker, where it is not the NATS server of the settings.
    """
    context: SchedulerContext = SchedulerContext.create(SERVICE, settings, bus=bus)
    dispatcher = Dispatcher(
        database=context.database, events=context.events, bus=context.bus, settings=settings, metrics=context.metrics
    )
    policy = Policy(context.events, run_lease=timedelta(seconds=settings.run_lease), on_start=dispatcher.note_start)
    context.follow(["tables", "executor"], policy.apply)

    alarm = Alarm(database=context.database, events=context.events)

    async def start() -> None:
        context.background.start("dispatcher", dispatcher.run)
        context.background.start("alarm", alarm.run)

    return create_service_app(SERVICE, context, [router, queue_router], description=_DESCRIPTION, on_start=start)


SERVICE = ServiceDefinition(
    name="scheduler",
    settings=SchedulerSettings,
    projection=SchedulerProjection,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
    create_app=create_app,
)
