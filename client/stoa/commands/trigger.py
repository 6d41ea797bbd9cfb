"""``stoa trigger``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import Markup, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["trigger"]

_SPECIFIED = ("trigger", "kind", "schedule", "timezone", "files", "missed", "scope", "paused")


@click.group()
def trigger() -> None:
    """Say what runs a table: people, every change, or triggers."""


def _shown(stoa: Stoa, answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(answer)
        return
    name = stoa.table(answer["table"])["name"]
    meaning = {
        "manual": "runs when somebody asks for it",
        "automatic": "runs by itself whenever rows become stale",
        "scheduled": "runs by its triggers",
    }
    click.echo(f"{name} {meaning[answer['mode']]}.")
    if answer["triggers"]:
        rows: list[list[Markup | str]] = [
            [str(number), item["kind"], _when(item), item["scope"], _next(item), _moment(item["fired"])]
            for number, item in enumerate(answer["triggers"], 1)
        ]
        grid(["#", "kind", "when", "runs", "next", "fired"], rows)


def _when(item: dict[str, Any]) -> str:
    if item["kind"] == "cron":
        return f"{item['schedule']} {item['timezone']}"
    if item["kind"] == "interval":
        return f"every {item['schedule']}"
    if item["kind"] == "file":
        return ", ".join(item["files"]) or "any input file changes"
    return "upstream rows change"


def _next(item: dict[str, Any]) -> str:
    return "paused" if item["paused"] else _moment(item["next"])


def _moment(text: str | None) -> str:
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M %Z")


@trigger.command("ls")
@click.argument("table")
@json_option
@client
def list_triggers(stoa: Stoa, table: str, as_json: bool) -> None:
    """Show what runs TABLE, and when it fires next."""
    _shown(stoa, stoa.triggers(table), as_json=as_json)


@trigger.command("add")
@click.argument("table")
@click.option("--cron", help="Five fields: minute, hour, day, month, weekday, such as '30 2 * * *'.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone of --cron, such as Europe/Berlin.")
@click.option("--every", help="An ISO 8601 duration: PT15M is 15 minutes, P1D a day.")
@click.option("--upstream", is_flag=True, help="Whenever rows become stale because of tables upstream.")
@click.option("--file", "files", multiple=True, help="Whenever this file, or one below this folder, changes.")
@click.option("--any-file", is_flag=True, help="Whenever any input file changes.")
@click.option(
    "--missed",
    type=click.Choice(["once", "skip"]),
    default="once",
    show_default=True,
    help="Whether firings that were missed are caught up by one, or left out.",
)
@click.option(
    "--scope",
    type=click.Choice(["stale", "failed", "all"]),
    default="stale",
    show_default=True,
    help="Which rows it runs.",
)
@json_option
@client
def add_trigger(
    stoa: Stoa,
    table: str,
    *,
    cron: str | None,
    zone: str,
    every: str | None,
    upstream: bool,
    files: tuple[str, ...],
    any_file: bool,
    missed: str,
    scope: str,
    as_json: bool,
) -> None:
    """Add a trigger to TABLE, which is scheduled from then on."""
    chosen = [cron is not None, every is not None, upstream, bool(files) or any_file]
    if sum(chosen) != 1:
        raise Refused("Give one of --cron, --every, --upstream, and --file or --any-file")
    kind = ("cron", "interval", "upstream", "file")[chosen.index(True)]
    new = {
        "kind": kind,
        "schedule": cron or every,
        "timezone": zone,
        "files": list(files),
        "missed": missed,
        "scope": scope,
    }
    present = stoa.triggers(table)["triggers"]
    answer = stoa.set_triggers(table, "scheduled", [*map(_specified, present), new])
    _shown(stoa, answer, as_json=as_json)


def _specified(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in _SPECIFIED}


def _change(stoa: Stoa, table: str, number: int, *, paused: bool | None) -> dict[str, Any]:
    """Pause, resume or remove one trigger."""
    answer = stoa.triggers(table)
    triggers = [_specified(item) for item in answer["triggers"]]
    if not 1 <= number <= len(triggers):
        raise Refused(f"There is no trigger {number}; {table} has {len(triggers)}")
    if paused is None:
        del triggers[number - 1]
    else:
        triggers[number - 1]["paused"] = paused
    return stoa.set_triggers(table, answer["mode"] if triggers else "manual", triggers)


@trigger.command("pause")
@click.argument("table")
@click.argument("number", type=int)
@json_option
@client
def pause_trigger(stoa: Stoa, table: str, number: int, as_json: bool) -> None:
    """Let trigger NUMBER of TABLE rest; 'stoa trigger ls' shows the numbers."""
    _shown(stoa, _change(stoa, table, number, paused=True), as_json=as_json)


@trigger.command("resume")
@click.argument("table")
@click.argument("number", type=int)
@json_option
@client
def resume_trigger(stoa: Stoa, table: str, number: int, as_json: bool) -> None:
    """Let trigger NUMBER of TABLE fire again."""
    _shown(stoa, _change(stoa, table, number, paused=False), as_json=as_json)


@trigger.command("rm")
@click.argument("table")
@click.argument("number", type=int)
@json_option
@client
def remove_trigger(stoa: Stoa, table: str, number: int, as_json: bool) -> None:
    """Remove trigger NUMBER of TABLE; without any trigger the table runs by hand."""
    _shown(stoa, _change(stoa, table, number, paused=None), as_json=as_json)
