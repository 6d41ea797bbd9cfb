"""Schemas: alembic, with one migration tree per service that serves both databases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from alembic import command, context, op
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from stoa_chassis.database import Database
from stoa_chassis.log import APPEND_ONLY, Log, log_metadata
from stoa_chassis.projection import Projection
from stoa_chassis.read_model import forget, note

__all__ = [
    "OutdatedSchemaError",
    "check_schema",
    "create_log_tables",
    "differences",
    "merged",
    "run_migrations",
    "upgrade",
]


class OutdatedSchemaError(Exception):
    """The database's schema is not the one that this version of the service needs."""


def merged(*parts: sa.MetaData) -> sa.MetaData:
    """Put the tables of several parts of a service into one description of its database."""
    whole = sa.MetaData()
    for part in parts:
        for table in part.tables.values():
            table.to_metadata(whole)
    return whole


def create_log_tables() -> None:
    """Create the tables of `stoa_chassis.log` and make the database refuse changes; for each service's first migration."""
    bind = op.get_bind()
    log_metadata.create_all(bind)
    for statement in APPEND_ONLY[bind.dialect.name]:
        op.execute(sa.text(statement.replace(":", r"\:")))


def run_migrations(metadata: sa.MetaData) -> None:
    """Do what a service's ``migrations/env.py`` has to do."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(database: Database, migrations: Path, projection: Projection | None = None) -> bool:
    """Bring a database to the newest schema, in one transaction.

    Parameters
    ----------
    database
        Of the service; a SQLite file is created.
    migrations
        The service's folder of migrations.
    projection
        Of its read model, which is emptied first where another version of the projection computed it.

    Returns
    -------
    bool
        Whether the read model has to be computed anew: `stoa_chassis.read_model.brought_up_to_date`.
    """
    if database.is_sqlite and database.url.database:
        Path(database.url.database).parent.mkdir(parents=True, exist_ok=True)
    config = _config(migrations)
    with database.writing() as connection:
        outdated = projection is not None and forget(connection, projection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        # The chassis' own tables are the same in every service: one that came later needs no migration in each of them.
        log_metadata.create_all(connection)
        if projection is None or not outdated:
            return False
        log = Log(projection.name)
        empty = not log.head(connection) and not log.consumptions(connection, projection.name, limit=1)
        note(connection, projection, complete=empty)
        return not empty


def check_schema(database: Database, migrations: Path, service: str) -> None:
    """Refuse a database whose schema is not the newest.

    Raises
    ------
    OutdatedSchemaError
        Says which command upgrades it.
    stoa_chassis.database.DatabaseUnavailableError
        If the database cannot be reached.
    """
    heads: Sequence[str] = ScriptDirectory.from_config(_config(migrations)).get_heads()
    with database.reading() as connection:
        present = MigrationContext.configure(connection).get_current_heads()
    if set(present) != set(heads):
        state = f"at {', '.join(present)}" if present else "empty"
        msg = (
            f"The schema of the {service} database is {state}, this version needs {', '.join(heads)}: "
            f"run 'stoa migrate {service}'"
        )
        raise OutdatedSchemaError(msg)


def differences(database: Database, metadata: sa.MetaData) -> list[str]:
    """Tell what differs between a database and the models; an empty list where they are equal."""
    with database.reading() as connection:
        migration_context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(item) for item in compare_metadata(migration_context, merged(metadata, log_metadata))]
