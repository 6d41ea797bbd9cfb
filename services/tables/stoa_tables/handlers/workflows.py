"""Workflow versions, for those who run them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from stoa_chassis.problems import problem_responses
from stoa_tables.context import Context
from stoa_tables.handlers.parameters import VersionParameter
from stoa_tables.problems import NotFoundError
from stoa_tables.wire import WorkflowView

__all__ = ["router"]

router = APIRouter(prefix="/api/workflows", tags=["workflows"])


@router.get("/{version}", summary="Show a workflow version", responses=problem_responses(NotFoundError))
async def get_workflow(version: VersionParameter, context: Context) -> WorkflowView:
    """Give a workflow version by the SHA-256 of its canonical content."""
    return await context.factory.ask(lambda queries, _: queries.workflow(version))


@router.get(
    "/{version}/files/{name:path}",
    summary="Get a file of a workflow version",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **problem_responses(NotFoundError)},
)
async def get_workflow_file(
    version: VersionParameter,
    name: Annotated[str, Path(description="The file's name, with its folders.")],
    context: Context,
) -> Response:
    """Give the bytes as they were uploaded; they never change."""
    file, content = await context.factory.ask(lambda queries, _: queries.workflow_file(version, name))
    headers = {
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "public, max-age=31536000, immutable",
        # A page that somebody uploaded is not a page of ours.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type="application/octet-stream", headers=headers)
