"""What a process and a request of the tables service carry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Depends, Header, Request, Response
from structlog.stdlib import BoundLogger

from stoa_chassis.follower import Follower, http_feed
from stoa_chassis.log import Origin
from stoa_chassis.service import ProcessContext, origin_of, process_context
from stoa_tables.changes import ChangeFeed
from stoa_tables.factory import Factory
from stoa_tables.history_queries import HistoryQueries
from stoa_tables.moments import Moments
from stoa_tables.policy import SOURCES, JobPolicy
from stoa_tables.settings import TablesSettings
from stoa_tables.snapshots import SnapshotKeeper

__all__ = ["POSITION_HEADER", "CommandContext", "Context", "RequestContext", "TablesContext"]

#: The head of the log after a write, for readers of other services that want to see it.
POSITION_HEADER = "Stoa-Position"

_FOLLOWER = "tables-jobs"

_A = TypeVar("_A")


@dataclass(frozen=True, kw_only=True)
class TablesContext(ProcessContext):
    """What lives as long as the process of the tables service."""

    settings: TablesSettings
    """How the process was set up."""

    imports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Bounds how many files are imported at a time; the reading of each may take the memory that the settings give it."""

    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Bounds how many exports are written at a time, so that readers of pages do not wait for them."""

    def follow_jobs(self) -> Follower:
        """Apply what the scheduler and the executor tell of jobs.

        The follower has a name of its own, not that of the projection: the read model comes from our own log alone, and a
        rebuild asks no other service.
        """
        policy = JobPolicy(self.events, event_bytes=self.settings.event_bytes)
        follower = Follower(
            _FOLLOWER,
            SOURCES,
            bus=self.bus,
            database=self.database,
            log=self.log,
            apply=policy.apply,
            apply_all=policy.apply_all,
            feed=http_feed({source: self.settings.service_urls[source] for source in SOURCES}, self.http),
            metrics=self.metrics,
        )
        self.followers.append(follower)
        return follower

    moments: Moments = field(init=False)
    """Tables as they were."""

    history: HistoryQueries = field(init=False)
    """What changed between two moments."""

    def __post_init__(self) -> None:
        """Make what needs the other parts."""
        moments = Moments(self.database, self.events, max_bytes=self.settings.history_bytes)
        history = HistoryQueries(self.log, self.events.tables, moments)
        # The parts of a frozen object that are made of its other parts.
        object.__setattr__(self, "moments", moments)
        object.__setattr__(self, "history", history)

    def create_snapshot_keeper(self) -> SnapshotKeeper:
        """Make what keeps snapshots of tables."""
        return SnapshotKeeper(
            self.database,
            self.events,
            self.moments,
            every_events=self.settings.snapshot_events,
            every_bytes=self.settings.snapshot_bytes,
        )

    async def aclose(self) -> None:
        """Stop the loops, then close what they used."""
        await self.background.aclose()
        await asyncio.to_thread(self.moments.close)
        await super().aclose()

    def create_change_feed(self) -> ChangeFeed:
        """Make what tells browsers of changes."""
        return ChangeFeed(
            self.database, self.events, self.background.stop, interval=1 / self.settings.change_frames_per_second
        )


@dataclass
class RequestContext:
    """What one request carries."""

    process: TablesContext
    """What lives as long as the process."""

    changes: ChangeFeed
    """Live changes."""

    request: Request
    """The request itself, for bodies that are streamed."""

    response: Response
    """Where headers of the answer go."""

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

    def written(self, answer: _A) -> _A:
        """Tell the position that an answer shows in the header, too."""
        self.response.headers[POSITION_HEADER] = str(getattr(answer, "position", ""))
        return answer

    def tag(self, answer: _A) -> _A:
        """Give a row its ETag."""
        self.response.headers["ETag"] = f'"{getattr(answer, "revision", "")}"'
        return answer


def _request_context(
    request: Request,
    response: Response,
    process: Annotated[TablesContext, Depends(process_context)],
    origin: Annotated[Origin, Depends(origin_of)],
) -> RequestContext:
    return _make(request, response, process, origin, None)


def _command_context(
    request: Request,
    response: Response,
    process: Annotated[TablesContext, Depends(process_context)],
    origin: Annotated[Origin, Depends(origin_of)],
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=255,
            description="A request that is sent again with the same key is carried out once, and answered alike.",
        ),
    ] = None,
) -> RequestContext:
    return _make(request, response, process, origin, idempotency_key)


def _make(
    request: Request, response: Response, process: TablesContext, origin: Origin, key: str | None
) -> RequestContext:
    logger: BoundLogger = structlog.get_logger("stoa_tables").bind(route=request.url.path)
    return RequestContext(
        process=process,
        changes=request.app.state.changes,
        request=request,
        response=response,
        origin=origin,
        factory=Factory(process, origin, key, logger),
        logger=logger,
    )


#: For the parameters of handlers.
Context = Annotated[RequestContext, Depends(_request_context)]

#: For handlers of POST, which a client may send twice.
CommandContext = Annotated[RequestContext, Depends(_command_context)]
