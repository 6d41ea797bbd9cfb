"""The tables service: worktables, their rows, and what links them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from stoa_chassis.bus import Bus
from stoa_chassis.service import ServiceDefinition, create_service_app
from stoa_tables.context import TablesContext
from stoa_tables.handlers import changes, links, rows, tables, workflows
from stoa_tables.models import metadata
from stoa_tables.projection import TablesProjection
from stoa_tables.settings import TablesSettings
from stoa_tables.wire import CreateTable, NewRows, NewWorktable

__all__ = ["SERVICE", "create_app"]

_DESCRIPTION = """
Worktables: tables in which every row is one execution of a CWL workflow. A table is named by its id or its name wherever
`{table}` stands in an address.

Every write answers with the header `Stoa-Position`: the head of this service's log that shows it. Rows carry an `ETag`,
their revision; an edit with `If-Match` is refused where somebody else was faster. A `POST` with an `Idempotency-Key` is
carried out once. What goes wrong is told in a problem document (RFC 9457).
"""


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

    async def start() -> None:
        context.background.start("changes", feed.run)

    routers = [tables.router, rows.router, links.router, changes.router, workflows.router]
    app = create_service_app(SERVICE, context, routers, description=_DESCRIPTION, on_start=start)
    app.state.changes = feed
    _document_bodies(app)
    return app


def _document_bodies(app: FastAPI) -> None:
    """Add the models of bodies that have several media types, which FastAPI does not see."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        for model in (CreateTable, NewRows, NewWorktable):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in schema.pop("$defs", {}).items():
                schemas.setdefault(name, part)
            schemas[model.__name__] = schema
        return document

    # FastAPI's documented way to extend the document.
    app.openapi = openapi  # type: ignore[method-assign]


SERVICE = ServiceDefinition(
    name="tables",
    settings=TablesSettings,
    projection=TablesProjection,
    metadata=metadata,
    migrations=Path(__file__).parent / "migrations",
    create_app=create_app,
)
