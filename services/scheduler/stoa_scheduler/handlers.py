"""The scheduler's routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from stoa_chassis.problems import problem_responses
from stoa_scheduler.domain import JobState
from stoa_scheduler.factory import Context
from stoa_scheduler.problems import BehindError, InvalidTriggerError, NotFoundError, NothingToRunError
from stoa_scheduler.views import (
    Cancellation,
    CancellationRequest,
    JobDetail,
    JobList,
    Run,
    RunAnswer,
    RunRequest,
    Trigger,
    TriggerRequest,
)

__all__ = ["POSITION", "POSITION_HEADER", "router"]

POSITION = "Stoa-Position"
POSITION_HEADER = {
    "headers": {
        POSITION: {
            "description": "The head of the scheduler's log after this.",
            "required": True,
            "schema": {"type": "integer"},
        }
    }
}

router = APIRouter(prefix="/api")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, description="A request sent twice is carried out once."
    ),
]
TableName = Annotated[str, Path(description="The table's id or name.")]


@router.post(
    "/runs",
    status_code=202,
    tags=["runs"],
    summary="Run rows",
    responses={202: POSITION_HEADER, **problem_responses(NotFoundError, NothingToRunError, BehindError)},
)
async def start_run(context: Context, request: RunRequest, response: Response, key: Key = None) -> RunAnswer:
    """Queue a job for each row that is asked for, can run, and is not queued or running already."""
    context.rebind_logger(table=request.table, scope=request.scope)
    answer, position = await context.factory.create_scheduler_service().start_run(request, key)
    response.headers[POSITION] = str(position)
    return answer


@router.get("/runs/{run}", tags=["runs"], summary="How far a run got", responses=problem_responses(NotFoundError))
async def get_run(context: Context, run: str) -> Run:
    """Count the jobs of a run by their state."""
    return await context.factory.create_scheduler_service().run(run)


@router.post(
    "/cancellations",
    tags=["runs"],
    summary="Cancel jobs",
    responses={200: POSITION_HEADER, **problem_responses(NotFoundError, BehindError)},
)
async def cancel_jobs(
    context: Context, request: CancellationRequest, response: Response, key: Key = None
) -> Cancellation:
    """Cancel what has not ended: what waits never starts, what runs is stopped."""
    answer, position = await context.factory.create_scheduler_service().cancel(request, key)
    response.headers[POSITION] = str(position)
    return answer


@router.get("/jobs", tags=["jobs"], summary="Jobs, newest first", responses=problem_responses(NotFoundError))
async def list_jobs(
    context: Context,
    *,
    table: Annotated[str | None, Query(description="The table's id or name.")] = None,
    row: Annotated[int | None, Query(ge=1, description="The row, with its table.")] = None,
    state: JobState | None = None,
    run: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> JobList:
    """List jobs a page at a time."""
    service = context.factory.create_scheduler_service()
    return await service.jobs(table=table, row=row, state=state, run=run, after=after, limit=limit)


@router.get("/jobs/{job}", tags=["jobs"], summary="All about a job", responses=problem_responses(NotFoundError))
async def get_job(context: Context, job: str) -> JobDetail:
    """Tell a job's inputs, its state and its attempts."""
    return await context.factory.create_scheduler_service().job(job)


@router.get(
    "/triggers/{table}",
    tags=["triggers"],
    summary="What starts a table's runs",
    responses=problem_responses(NotFoundError, BehindError),
)
async def get_trigger(
    context: Context,
    table: TableName,
    after: Annotated[
        int | None, Query(ge=0, description="A position of the tables service that the answer is to know of.")
    ] = None,
) -> Trigger:
    """Tell whether a table runs by itself, and when its triggers fire next."""
    return await context.factory.create_scheduler_service().trigger(table, after)


@router.put(
    "/triggers/{table}",
    tags=["triggers"],
    summary="Set what starts a table's runs",
    responses={
        200: POSITION_HEADER,
        **problem_responses(NotFoundError, NothingToRunError, InvalidTriggerError, BehindError),
    },
)
async def set_trigger(context: Context, table: TableName, request: TriggerRequest, response: Response) -> Trigger:
    """Let a table run by itself, by its triggers, or by hand only.

    What is stale is queued at once where it becomes automatic. Triggers fire once, however many schedulers there are.
    """
    answer, position = await context.factory.create_scheduler_service().set_trigger(table, request)
    response.headers[POSITION] = str(position)
    return answer
