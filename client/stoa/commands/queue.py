"""``stoa queue`` and ``stoa cancel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import Markup, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["cancel", "queue"]

_COUNTS = ("waiting", "dispatched", "running", "awaited")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def queue(context: click.Context, *, as_json: bool) -> None:
    """Tell what waits, whose it is, and what is limited; the subcommands change that."""
    if context.invoked_subcommand is None:
        context.invoke(show, as_json=as_json)


@queue.command()
@json_option
@client
def show(stoa: Stoa, as_json: bool) -> None:
    """Count the jobs that have not ended, by table and by who asked for them."""
    told, limits = stoa.queue(), stoa.limits()
    if as_json:
        emit({**told, "limits": limits})
        return
    if not told["groups"]:
        click.echo("Nothing waits or runs.")
    else:
        lines: list[list[Markup | str]] = [
            [
                group["name"],
                group["requested_by"],
                str(group["priority"]),
                *(str(group[count]) if group[count] else "" for count in _COUNTS),
            ]
            for group in told["groups"]
        ]
        grid(["table", "who", "priority", *_COUNTS], lines, right=["priority", *_COUNTS])
    for line in _limited(limits):
        click.echo(line)


def _limited(limits: dict[str, Any]) -> list[str]:
    defaults = [(limits[f"per_{whose}"], f"a {whose}") for whose in ("table", "person")]
    own = [
        (limit["running"], f"table {limit['name']}" if limit["table"] else limit["person"])
        for limit in limits["limits"]
    ]
    return [f"At most {number} jobs of {whose} run at once." for number, whose in defaults + own if number is not None]


@queue.command()
@click.argument("running", metavar="NUMBER|none")
@click.option("--table", "table_", help="The table that is limited.")
@click.option("--person", help="The person who is limited.")
@json_option
@client
def limit(stoa: Stoa, *, running: str, table_: str | None, person: str | None, as_json: bool) -> None:
    """Let at most NUMBER jobs of a table, or of a person, run at once; 'none' takes the limit away, 0 holds all back."""
    if (table_ is None) == (person is None):
        raise Refused("What is limited is given with --table or with --person")
    if running != "none" and not running.isdecimal():
        raise Refused(f"'{running}' is neither a number nor 'none'")
    number = None if running == "none" else int(running)
    limited = stoa.set_limit(number, table=table_, person=person)
    if as_json:
        emit(limited)
    else:
        whose = person or table_
        click.echo(f"{whose} has no limit of its own." if number is None else f"{whose} runs at most {number} at once.")


@queue.command("run")
@click.argument("project")
@click.option("--failed", is_flag=True, help="Run what failed instead.")
@click.option("--force", is_flag=True, help="Run them even where an equal job has ended.")
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@json_option
@client
def run_project(stoa: Stoa, *, project: str, failed: bool, force: bool, priority: int, as_json: bool) -> None:
    """Run what is stale in all tables of PROJECT; a table that is filled from another waits for it."""
    started = stoa.run_project(project, "failed" if failed else "stale", priority=priority, force=force)
    if as_json:
        emit(started)
        return
    click.echo(
        f"Queued {started['jobs']} jobs in {len(started['runs'])} tables; {started['awaited']} rows wait for others."
    )
    if started["skipped_total"]:
        click.echo(f"{started['skipped_total']} rows were left out: {started['skipped'][0]['reason']}, and the like.")


@click.command()
@click.argument("table", required=False)
@click.argument("rows", nargs=-1, type=int)
@click.option("--run", help="What is left of this run.")
@click.option("--mine", is_flag=True, help="Everything that I asked for, in every table.")
@json_option
@client
def cancel(stoa: Stoa, *, table: str | None, rows: tuple[int, ...], run: str | None, mine: bool, as_json: bool) -> None:
    """Cancel the jobs of TABLE, or only those of some ROWS; rows that wait for their jobs wait no longer."""
    if sum([table is not None, run is not None, mine]) != 1:
        raise Refused("What is cancelled is a TABLE, or given with --run or --mine: one of them")
    if table is not None:
        cancelled = stoa.cancel(table, rows or None)
    elif run is not None:
        cancelled = stoa.cancel_run(run)
    else:
        cancelled = stoa.cancel_mine()
    if as_json:
        emit({"cancelled": cancelled})
    else:
        click.echo(f"{cancelled} jobs were cancelled.")
