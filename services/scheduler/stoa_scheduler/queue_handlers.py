"""The routes about the queue as a whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from stoa_chassis.problems import problem_responses
from stoa_scheduler.factory import Context
from stoa_scheduler.handlers import POSITION, POSITION_HEADER
from stoa_scheduler.problems import BehindError, NotFoundError
from stoa_scheduler.views import Limit, LimitList, LimitRequest, ProgressReport
from stoa_scheduler.views import Queue as QueueView

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["queue"])

Page = Annotated[int, Query(ge=1, le=1000, description="So many at most.")]
After = Annotated[str | None, Query(description="`next` of the page before.")]


@router.get("/queue", summary="The queue at a glance")
async def get_queue(context: Context) -> QueueView:
    """Count the jobs that wait, are on the bus or run: in all, by table, and by who asked for them."""
    return await context.factory.create_queue_service().queue()


@router.get("/progress", summary="How far tables got", responses=problem_responses(NotFoundError))
async def get_progress(
    context: Context,
    *,
    table: Annotated[str | None, Query(description="Only this table, by its id or name.")] = None,
    project: Annotated[str | None, Query(description="Only the tables of this project.")] = None,
    limit: Page = 1000,
    after: After = None,
) -> ProgressReport:
    """Count the rows of worktables by how far they got, say how many end in a minute, and when all will be done."""
    service = context.factory.create_queue_service()
    return await service.progress(table=table, project=project, after=after, limit=limit)


@router.get("/limits", summary="How much runs at once at most")
async def list_limits(context: Context, *, limit: Page = 1000, after: After = None) -> LimitList:
    """Tell the default limits, and the tables and people that have a limit of their own."""
    return await context.factory.create_queue_service().limits(after=after, limit=limit)


@router.put(
    "/limits",
    summary="Set how much runs at once at most",
    responses={200: POSITION_HEADER, **problem_responses(NotFoundError, BehindError)},
)
async def set_limit(context: Context, request: LimitRequest, response: Response) -> Limit:
    """Limit how many jobs of a table, or of a person, are in flight at once. Jobs that are in flight already stay so."""
    answer, position = await context.factory.create_queue_service().set_limit(request)
    response.headers[POSITION] = str(position)
    return answer
