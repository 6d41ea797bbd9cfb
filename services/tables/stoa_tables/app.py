"""The tables service: worktables, their rows, and what links them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from stoa_chassis.bus import Bus
from stoa_chassis.service import ServiceDefinition, create_service_app
from stoa_tables.context import POSITION_HEADER, TablesContext
from stoa_tables.handlers import (
    acceptance,
    actions,
    changes,
    corrections,
    exports,
    history,
    imports,
    links,
    marks,
    preview,
    rows,
    steps,
    tables,
    versions,
    why,
    workflows,
    worktable_files,
)
from stoa_tables.models import metadata
from stoa_tables.preview import PreviewRequest
from stoa_tables.projection import TablesProjection
from stoa_tables.settings import TablesSettings
from stoa_tables.wire import Change, CreateTable, NewRows, NewWorktable

__all__ = ["SERVICE", "create_app"]

_DESCRIPTION = """
Worktables: tables in which every row is one execution of a CWL workflow. A table is named by its id or its name wherever
`{table}` stands in an address.

Every write answers with the header `Stoa-Position`: the head of this service's log that shows it. With `as_of`, a table
is shown as it was at such a position or at a time, and the header names the position that is shown. Rows carry an `ETag`,
their revision; an edit with `If-Match` is refused where somebody else was faster. A `POST` with an `Idempotency-Key` is
carried out once. What goes wrong is told in a problem document (RFC 9457).
"""

#: Who takes one of these parameters is told the position that it shows.
_MOMENTS = {"as_of", "from"}


def create_app(settings: TablesSettings, *, bus: Bus | None = None) -> FastAPI:
    """Make the application of the tables service.

    Parameters
    ----------
    settings
        How it is set up.
    bus
        The broker, where it is not the NATS server of the settings.
    """
    context: TablesContext = TablesContext.create(SERVICE, settings, bus=bus)
    context.follow_jobs()
    feed = context.create_change_feed()
    keeper = context.create_snapshot_keeper()

    async def start() -> None:
        context.background.start("changes", feed.run)
        context.background.start("snapshots", keeper.run)

    routers = [
        imports.router,
        exports.router,
        tables.router,
        rows.router,
        history.router,
        links.router,
        acceptance.router,
        corrections.router,
        marks.router,
        steps.router,
        changes.router,
        workflows.router,
        versions.router,
        preview.router,
        why.router,
        actions.router,
        worktable_files.router,
    ]
    app = create_service_app(SERVICE, context, routers, description=_DESCRIPTION, on_start=start)
    app.state.changes = feed
    app.state.snapshots = keeper
    _document_bodies(app)
    return app


def _document_bodies(app: FastAPI) -> None:
    """Add what FastAPI does not see: bodies that have several media types, and what a stream holds."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        for model in (Change, CreateTable, NewRows, NewWorktable, PreviewRequest):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in schema.pop("$defs", {}).items():
                schemas.setdefault(name, part)
            schemas[model.__name__] = schema
        # FastAPI describes streams in words of OpenAPI 3.2, in a document of version 3.1.
        stream = document["paths"]["/api/changes"]["get"]["responses"]["200"]["content"]
        stream["text/event-stream"] = {
            "schema": {"type": "string", "description": "Frames of the type `change`; the data of each is a `Change`."}
        }
        _document_headers(document["paths"])
        return document

    # FastAPI's documented way to extend the document.
    app.openapi = openapi  # type: ignore[method-assign]


def _document_headers(paths: dict[str, Any]) -> None:
    position = {"description": "The position of the log that the answer shows.", "schema": {"type": "integer"}}
    tag = {"description": "The row's revision, in quotes.", "schema": {"type": "string"}}
    for path, operations in paths.items():
        for method, operation in operations.items():
            code = next(code for code in operation["responses"] if code.startswith("2"))
            headers = operation["responses"][code].setdefault("headers", {})
            if method != "get" or any(each["name"] in _MOMENTS for each in operation.get("parameters", [])):
                headers[POSITION_HEADER] = position
            if path.endswith("/rows/{row}") and method in {"get", "patch"}:
                headers["ETag"] = tag


SERVICE = ServiceDefinition(
    name="tables",
    settings=TablesSettings,
    projection=TablesProjection,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
    create_app=create_app,
)
