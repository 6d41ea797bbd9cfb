"""Why a row is what it is."""

from __future__ import annotations

from fastapi import APIRouter

from stoa_chassis.problems import problem_responses
from stoa_tables.context import Context
from stoa_tables.handlers.parameters import RowParameter, TableParameter
from stoa_tables.problems import NotFoundError
from stoa_tables.why import Explainer, Why

__all__ = ["router"]

router = APIRouter(prefix="/api/tables/{table}/rows/{row}/why", tags=["rows"])


@router.get("", summary="Explain a row", responses=problem_responses(NotFoundError))
async def explain_row(table: TableParameter, row: RowParameter, context: Context) -> Why:
    """Tell why a row is stale, suspected, failed, queued or current, in a sentence and by the events that led there.

    Of a stale row the first thing is named in which it differs from the run that made its outputs: the workflow, an input, or a file.
    Causes are followed up through the tables.
    """
    log = context.process.log
    return await context.factory.ask(lambda queries, position: Explainer(queries.store, log).why(table, row, position))
