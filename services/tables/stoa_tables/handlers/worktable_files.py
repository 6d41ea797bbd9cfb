"""Worktable files come in and go out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import RootModel

from stoa_chassis.problems import problem_responses
from stoa_contracts.types import Values
from stoa_tables.bundle import InvalidWorkflowError
from stoa_tables.context import CommandContext, Context
from stoa_tables.handlers.bodies import (
    LimitedRoute,
    field_of,
    files_of,
    form_of,
    multipart_body,
    settings_of,
    validated,
)
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.problems import ConflictError, InvalidRequestError, NameTakenError, NotFoundError, TooLargeError
from stoa_tables.worktable_file_service import export_service, export_worktable
from stoa_tables.worktable_file_wire import ImportedFiles

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["worktable files"], route_class=LimitedRoute)

_FILE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}}}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}

_IMPORT: dict[str, Any] = multipart_body(
    {
        "files": {
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/zip"},
            "description": "`.wtx` and `.service` files.",
        },
        "project": {"type": "string"},
        "kept": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "What became of data files in the archives: name to a CWL file object.",
        },
        "base": {"type": "string", "description": "URL against which other relative names of files are read."},
    },
    ["files"],
)


class _Kept(RootModel[dict[str, Values]]):
    """Name to a CWL file object."""


@router.post(
    "/worktable-files",
    status_code=201,
    summary="Import worktable files",
    openapi_extra=_IMPORT,
    responses=problem_responses(
        NameTakenError, InvalidWorkflowError, InvalidRequestError, NotFoundError, TooLargeError
    ),
)
async def import_worktable_files(context: CommandContext) -> ImportedFiles:
    """Create the tables of worktable files of 2018 with their links, rows and results: all of them, or none."""
    async with form_of(context.request, settings_of(context.request).max_upload_bytes) as form:
        uploads = await files_of(form, "files")
        kept = validated(_Kept, field_of(form, "kept") or "{}", "kept").root
        service = context.factory.create_worktable_file_service()
        return context.written(
            await service.import_files(
                uploads, project=field_of(form, "project") or "default", kept=kept, base=field_of(form, "base")
            )
        )


@router.get(
    "/tables/{table}/worktable-file",
    summary="Export a worktable file",
    response_class=Response,
    responses={**_FILE, **problem_responses(NotFoundError, ConflictError, InvalidRequestError)},
)
async def export_worktable_file(
    table: TableParameter,
    context: Context,
    files_url: Annotated[
        str | None, Query(description="Where stored files are served; default: here.", max_length=1000)
    ] = None,
) -> Response:
    """Give a table as a worktable file. It holds where files are, not the files themselves."""
    address = files_url or f"{context.request.base_url}api/files/"
    content, name = await context.factory.ask(
        lambda queries, _: (export_worktable(queries, table, files_url=address), queries.table(table).name)
    )
    headers = {"Content-Disposition": f'attachment; filename="{name}.wtx"'}
    return Response(content, media_type="application/zip", headers=headers)


@router.get(
    "/tables/{table}/service-file",
    summary="Export a service file",
    response_class=Response,
    responses={**_TEXT, **problem_responses(NotFoundError, ConflictError)},
)
async def export_service_file(table: TableParameter, context: Context) -> Response:
    """Say which columns of a table are positions on the sky, as a service file does."""
    content = await context.factory.ask(lambda queries, _: export_service(queries, table))
    return Response(content, media_type="text/plain")
