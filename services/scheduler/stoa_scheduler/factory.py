"""What a request needs: who asks, and the parts that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from structlog.stdlib import BoundLogger

from stoa_chassis.log import Origin
from stoa_chassis.service import ProcessContext, origin_of, process_context
from stoa_scheduler.queue_service import QueueService
from stoa_scheduler.service import SchedulerService
from stoa_scheduler.settings import SchedulerSettings

__all__ = ["Context", "Factory", "RequestContext", "SchedulerContext"]


@dataclass(frozen=True, kw_only=True)
class SchedulerContext(ProcessContext):
    """What lives as long as the scheduler's process."""

    settings: SchedulerSettings
    """How the process was set up."""


class Factory:
    """Makes the parts that answer a request.

    Parameters
    ----------
    context
        Of the process.
    origin
        Who asks.
    logger
        Bound to the request.
    """

    def __init__(self, context: SchedulerContext, origin: Origin, logger: BoundLogger) -> None:
        self._context = context
        self._origin = origin
        self._logger = logger

    def create_scheduler_service(self) -> SchedulerService:
        """Make what carries out commands and answers questions."""
        return SchedulerService(
            database=self._context.database,
            events=self._context.events,
            settings=self._context.settings,
            origin=self._origin,
            logger=self._logger,
        )

    def create_queue_service(self) -> QueueService:
        """Make what answers for the queue as a whole."""
        return QueueService(
            database=self._context.database,
            events=self._context.events,
            settings=self._context.settings,
            origin=self._origin,
            logger=self._logger,
        )

    def rebind_logger(self, logger: BoundLogger) -> None:
        """Use another logger from now on."""
        self._logger = logger


@dataclass
class RequestContext:
    """What one request carries."""

    origin: Origin
    """Who asks, and under which correlation id."""

    factory: Factory
    """Makes the parts that answer."""

    logger: BoundLogger
    """Bound to the request."""

    def rebind_logger(self, **values: Any) -> None:
        """Say more in every later line of the log, those of the factory's parts too."""
        self.logger = self.logger.bind(**values)
        self.factory.rebind_logger(self.logger)


def _request_context(
    request: Request,
    context: Annotated[SchedulerContext, Depends(process_context)],
    origin: Annotated[Origin, Depends(origin_of)],
) -> RequestContext:
    logger: BoundLogger = structlog.get_logger("stoa_scheduler").bind(route=request.url.path)
    return RequestContext(origin=origin, factory=Factory(context, origin, logger), logger=logger)


#: For the parameters of handlers.
Context = Annotated[RequestContext, Depends(_request_context)]
