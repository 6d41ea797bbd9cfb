"""Corrections of derived cells."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from stoa_chassis.problems import problem_responses
from stoa_tables.context import CommandContext, Context
from stoa_tables.correction_service import list_corrections
from stoa_tables.correction_wire import ChosenCorrections, ConfirmCorrections, Confirmed, CorrectionPage
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ConflictError, InvalidRequestError, LockedError, NotFoundError, TooLargeError
from stoa_tables.wire import Edited

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}/corrections", tags=["corrections"], route_class=LimitedRoute)


@router.get("", summary="List corrections", responses=problem_responses(NotFoundError))
async def get_corrections(
    table: TableParameter,
    context: Context,
    review: Annotated[
        bool | None, Query(description="Only rows that are to be reviewed, or only those that are not.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many rows.")] = 100,
    after: Annotated[int, Query(ge=0, lt=2**63, description="What the page before gave as `next`.")] = 0,
) -> CorrectionPage:
    """List the rows with derived cells that a person edited, with what upstream says of those cells."""
    return await context.factory.ask(
        lambda queries, position: list_corrections(
            queries.store, table, position, review=review, limit=limit, after=after
        )
    )


@router.post(
    "/reset",
    summary="Take corrections back",
    responses=problem_responses(NotFoundError, ConflictError, InvalidRequestError, TooLargeError, LockedError),
)
async def reset_corrections(table: TableParameter, chosen: ChosenCorrections, context: CommandContext) -> Edited:
    """Let corrected cells hold again what is derived, all of them in one step."""
    return context.written(await context.factory.create_correction_service().reset(table, chosen))


@router.post(
    "/confirm",
    summary="Keep corrections",
    responses=problem_responses(NotFoundError, ConflictError, InvalidRequestError, TooLargeError),
)
async def confirm_corrections(table: TableParameter, chosen: ConfirmCorrections, context: CommandContext) -> Confirmed:
    """Keep corrections after upstream has changed: their rows need no review any more."""
    return context.written(await context.factory.create_correction_service().confirm(table, chosen))
