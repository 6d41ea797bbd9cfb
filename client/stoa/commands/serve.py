"""``stoa serve`` and ``stoa migrate``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from stoa.errors import Failure, Refused
from stoa.output import emit, json_option
from stoa.supervisor import ADDRESSES

__all__ = ["administration", "data_option", "migrate", "serve"]

_NOT_INSTALLED = "No service of Stoa is installed here; this command works on the services' own machine"

data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="The data folder; default: STOA_DATA, or ./stoa-data."
)


def administration(data: Path | None) -> Any:
    """Give the functions for the services of this machine.

    Raises
    ------
    Failure
        If no service is installed here.
    """
    _prepare(data)
    try:
        from stoa_chassis import administration as functions
    except ImportError as error:
        raise Failure(_NOT_INSTALLED) from error
    return functions


def _prepare(data: Path | None) -> None:
    if data is not None:
        os.environ["STOA_DATA"] = str(data.absolute())
    addresses = Path(os.environ.get("STOA_DATA", "stoa-data")) / ADDRESSES
    if addresses.is_file():
        os.environ.setdefault("STOA_CONFIG", str(addresses))


@click.command()
@click.argument("service")
@click.option("--fd", type=int, hidden=True, help="A listening socket from the parent process.")
@click.option("--upgrade", is_flag=True, help="Bring the database to the newest schema first.")
@click.option("--with-parent", type=int, hidden=True, help="End when the process of this id ends, however it ends.")
@click.option("--json", "as_json", is_flag=True, help="Write the log as JSON lines, also on a terminal.")
@data_option
def serve(
    service: str, fd: int | None, upgrade: bool, with_parent: int | None, as_json: bool, data: Path | None
) -> None:
    """Run SERVICE (tables, scheduler, executor or web) until it is told to stop.

    Its settings come from the environment and from the TOML file that STOA_CONFIG names.
    """
    if with_parent is not None:
        from stoa.supervisor.process import end_with_parent

        end_with_parent(with_parent)
    if as_json:
        os.environ["STOA_LOG_FORMAT"] = "json"
    _prepare(data)
    try:
        # Not all of the administration: a service starts with what it needs itself.
        from stoa_chassis.errors import DatabaseUnavailableError
        from stoa_chassis.installed import UnknownServiceError, load_service
    except ImportError as error:
        raise Failure(_NOT_INSTALLED) from error
    try:
        definition = load_service(service)
        if upgrade and definition.migrations is not None:
            administration(data).migrate(service)
    except (UnknownServiceError, DatabaseUnavailableError) as error:
        raise Refused(str(error)) from error
    sys.exit(definition.serve(fd=fd))


@click.command()
@click.argument("service")
@data_option
@json_option
def migrate(service: str, data: Path | None, as_json: bool) -> None:
    """Bring the database of SERVICE, or of all services, to the newest schema."""
    functions = administration(data)
    names = functions.migrated_services() if service == "all" else [service]
    for name in names:
        try:
            if functions.load_service(name).migrations is None:
                raise Refused(f"The service {name} has no database")
            functions.migrate(name)
        except (functions.UnknownServiceError, functions.DatabaseUnavailableError) as error:
            raise Refused(str(error)) from error
        if not as_json:
            click.echo(f"The database of {name} has the newest schema.")
    if as_json:
        emit({"migrated": names})
