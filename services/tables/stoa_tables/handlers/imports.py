"""Files that become tables, or rows of tables."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import FormData

from stoa_chassis.problems import problem_responses
from stoa_tables.context import CommandContext, Context, RequestContext
from stoa_tables.handlers.bodies import LimitedRoute, field_of, form_of, multipart_body, saved_upload, settings_of
from stoa_tables.handlers.parameters import TableParameter
from stoa_tables.import_service import RejectedRowsError
from stoa_tables.import_wire import ImportedRows, ImportPreview, NewTableImported
from stoa_tables.importing import UnreadableFileError
from stoa_tables.problems import ConflictError, InvalidRequestError, NameTakenError, NotFoundError, TooLargeError
from stoa_tables.wire import CreateTable

__all__ = ["router"]

router = APIRouter(prefix="/api/tables", tags=["imports"], route_class=LimitedRoute)

_FILE: dict[str, Any] = {
    "file": {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "description": "FITS, VOTable, CSV, ECSV or Parquet, perhaps compressed with gzip.",
    },
    "format": {
        "type": "string",
        "description": "Where the file does not tell: fits, votable, csv, ecsv, parquet.",
    },
    "mapping": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "An object in JSON, column of the file to column of the table.",
        "examples": ['{"RAJ2000": "ra"}'],
    },
}
_PARTIAL: dict[str, Any] = {
    "partial": {
        "type": "string",
        "enum": ["true", "false"],
        "description": "Whether the rows that can be taken are, where others cannot. Default: false.",
    }
}
_NEW: dict[str, Any] = {
    "name": {"type": "string"},
    "description": {"type": "string"},
    "project": {"type": "string"},
}
_REFUSALS = (InvalidRequestError, UnreadableFileError, TooLargeError)


@dataclass(frozen=True)
class _Upload:
    form: FormData
    path: Path
    format: str | None
    mapping: dict[str, str]
    partial: bool


@asynccontextmanager
async def _upload(context: RequestContext) -> AsyncIterator[_Upload]:
    async with (
        form_of(context.request, settings_of(context.request).max_upload_bytes) as form,
        saved_upload(form, "file") as path,
        context.process.imports,
    ):
        partial = field_of(form, "partial") or "false"
        if partial not in {"true", "false"}:
            raise InvalidRequestError(f"The field 'partial' is true or false, not {partial!r}", field="partial")
        yield _Upload(form, path, field_of(form, "format") or None, _mapping(form), partial == "true")


def _mapping(form: FormData) -> dict[str, str]:
    written = field_of(form, "mapping")
    try:
        mapping = json.loads(written) if written else {}
    except (ValueError, RecursionError):
        mapping = None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise InvalidRequestError(
            "The field 'mapping' is an object in JSON, column of the file to column of the table", field="mapping"
        )
    return mapping


@router.post(
    "/import",
    status_code=201,
    summary="Create a plain table from a file",
    openapi_extra=multipart_body({**_FILE, **_NEW, **_PARTIAL}, ["file", "name"]),
    responses=problem_responses(NameTakenError, RejectedRowsError, *_REFUSALS),
)
async def import_table(context: CommandContext) -> NewTableImported:
    """Create a plain table with the columns and rows of a FITS, VOTable, CSV, ECSV or Parquet file."""
    async with _upload(context) as upload:
        new = CreateTable(
            name=field_of(upload.form, "name") or "",
            description=field_of(upload.form, "description") or "",
            project=field_of(upload.form, "project") or "default",
        )
        return context.written(
            await context.factory.create_import_service().import_table(
                upload.path, new, format=upload.format, mapping=upload.mapping, partial=upload.partial
            )
        )


@router.post(
    "/import/preview",
    summary="Show what a table made of a file would be",
    openapi_extra=multipart_body(_FILE, ["file"]),
    responses=problem_responses(*_REFUSALS),
)
async def preview_table(context: Context) -> ImportPreview:
    """Read a file as `POST /api/tables/import` does, and change nothing."""
    async with _upload(context) as upload:
        return await context.factory.create_import_service().preview(
            None, upload.path, format=upload.format, mapping=upload.mapping
        )


@router.post(
    "/{table}/import",
    status_code=201,
    summary="Add the rows of a file to a table",
    openapi_extra=multipart_body({**_FILE, **_PARTIAL}, ["file"]),
    responses=problem_responses(NotFoundError, ConflictError, RejectedRowsError, *_REFUSALS),
)
async def import_rows(table: TableParameter, context: CommandContext) -> ImportedRows:
    """Add the rows of a file: all of them, or none; with `partial`, those that can be taken.

    Columns are matched by the mapping, else by name, else by name whatever the case, blanks and underscores, else by UCD.
    Numbers are converted where the file and the table name different units.
    """
    async with _upload(context) as upload:
        return context.written(
            await context.factory.create_import_service().import_rows(
                table, upload.path, format=upload.format, mapping=upload.mapping, partial=upload.partial
            )
        )


@router.post(
    "/{table}/import/preview",
    summary="Show what the import of a file would do",
    openapi_extra=multipart_body(_FILE, ["file"]),
    responses=problem_responses(NotFoundError, ConflictError, *_REFUSALS),
)
async def preview_rows(table: TableParameter, context: Context) -> ImportPreview:
    """Read a file as `POST /api/tables/{table}/import` does, and change nothing."""
    async with _upload(context) as upload:
        return await context.factory.create_import_service().preview(
            table, upload.path, format=upload.format, mapping=upload.mapping
        )
