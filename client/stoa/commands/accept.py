"""``stoa table accept`` and ``stoa table pin``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoa.output import client, emit, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["accept", "pin"]

_DIGITS = 12


def _counted(rows: int, table: str) -> str:
    return f"{rows} row{'' if rows == 1 else 's'} of {table}"


@click.command()
@click.argument("table")
@click.argument("rows", nargs=-1, type=int)
@click.option("--reason", "-m", required=True, help="Why, for those who ask later.")
@json_option
@client
def accept(stoa: Stoa, table: str, rows: tuple[int, ...], reason: str, as_json: bool) -> None:
    """Accept stale ROWS of a TABLE as current, without a run; all that are stale where none are named.

    Use it for a change that makes no difference. It holds until the inputs, the workflow version or a file that was read
    change again.
    """
    answer = stoa.accept(table, rows or None, reason)
    if as_json:
        emit(answer)
        return
    waiting = len(answer["suspected"])
    click.echo(f"Accepted {_counted(len(answer['rows']), table)}.")
    if waiting:
        click.echo(f"{waiting} of them will be current when what they depend on is settled.")


@click.command()
@click.argument("table")
@click.argument("rows", nargs=-1, required=True, type=int)
@click.option("--version", "version", help="The version's number, or at least 7 digits of its SHA-256.")
@click.option("--none", "follow", is_flag=True, help="Let the rows follow the workflow of the table again.")
@json_option
@client
def pin(stoa: Stoa, table: str, rows: tuple[int, ...], version: str | None, follow: bool, as_json: bool) -> None:
    """Pin ROWS of a TABLE to a workflow version, whatever version the table has."""
    if (version is None) is not follow:
        raise click.UsageError("Give either --version or --none.")
    answer = stoa.pin(table, rows, version)
    if as_json:
        emit(answer)
        return
    number = _counted(len(answer["rows"]), table)
    if answer["workflow_version"] is None:
        click.echo(f"{number} follow{'s' if len(answer['rows']) == 1 else ''} the workflow of the table again.")
    else:
        stays = "stays" if len(answer["rows"]) == 1 else "stay"
        click.echo(f"{number} {stays} with the version {answer['workflow_version'][:_DIGITS]}.")
