"""``stoa log``: what an operator asks of the logs on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from stoa.commands.serve import administration, data_option
from stoa.errors import Failure, Refused
from stoa.output import emit, json_option

__all__ = ["log"]


@click.group()
def log() -> None:
    """Verify, rebuild and read the logs of the services on this machine."""


def _told(functions: Any, error: Exception) -> Exception:
    known = (functions.UnknownServiceError, functions.DatabaseUnavailableError, functions.OutdatedSchemaError)
    return Refused(str(error)) if isinstance(error, known) else error


@log.command()
@click.argument("services", nargs=-1)
@data_option
@json_option
def verify(services: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Walk the chain of each log, and say where it does not hold what was written.

    Exit status 1 if a log is broken.
    """
    functions = administration(data)
    results = []
    for service in services or functions.migrated_services():
        position, broken = 0, None
        try:
            for step in functions.verify(service):
                if isinstance(step, int):
                    position = step
                else:
                    broken = step
        except Exception as error:
            raise _told(functions, error) from error
        results.append({"service": service, "events": position, "broken": None if broken is None else vars(broken)})
        if not as_json:
            if broken is None:
                click.echo(f"{service}: {position} events, all as they were written")
            else:
                click.echo(f"{service}: broken at position {broken.position}, event {broken.id}: {broken.problem}")
    if as_json:
        emit(results)
    if any(result["broken"] for result in results):
        raise click.exceptions.Exit(1)


@log.command()
@click.argument("service")
@data_option
@json_option
def rebuild(service: str, data: Path | None, as_json: bool) -> None:
    """Compute the read model of SERVICE anew from its log; the old one serves until it is replaced."""
    import httpx

    functions = administration(data)
    started = time.perf_counter()
    try:
        done = functions.rebuild(service)
    except (httpx.HTTPError, LookupError) as error:
        if isinstance(error, functions.UnknownServiceError):
            raise Refused(str(error)) from error
        raise Failure(f"The events of the other services cannot be had: {error}") from error
    except Exception as error:
        raise _told(functions, error) from error
    seconds = time.perf_counter() - started
    if as_json:
        emit({"service": service, "events": done.events, "rows": done.rows, "seconds": seconds})
        return
    rows = ", ".join(f"{number} in {name}" for name, number in done.rows.items())
    click.echo(f"{service}: {done.events} events replayed in {seconds:.1f} s; rows: {rows}")


@log.command()
@click.argument("service")
@click.option("--after", type=int, help="Only events beyond this position.")
@click.option("-n", "--limit", default=20, show_default=True, help="At most so many events.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@data_option
@json_option
def tail(service: str, after: int | None, limit: int, follow: bool, data: Path | None, as_json: bool) -> None:
    """Print the last events of SERVICE; with --json, each as the CloudEvent that it is."""
    functions = administration(data)
    while True:
        try:
            envelopes = functions.tail(service, after=after, limit=limit)
        except Exception as error:
            raise _told(functions, error) from error
        for envelope in envelopes:
            after = envelope.log_position
            if as_json:
                click.echo(envelope.to_bytes())
            else:
                when = envelope.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
                click.echo(f"{after:>8}  {when}  {envelope.actor:12}  {envelope.name:20}  {envelope.subject}")
        if not follow:
            return
        after = after or 0
        time.sleep(0.5)
