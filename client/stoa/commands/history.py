"""``stoa history`` and ``stoa table diff``: what happened, and what changed between two moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from stoa.output import STATUSES, cell, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["diff", "history"]

_SHORT = 12


@click.command()
@click.argument("name", metavar="TABLE")
@click.argument("row", type=int)
@click.argument("column", required=False)
@json_option
@client
def history(stoa: Stoa, name: str, row: int, column: str | None, as_json: bool) -> None:
    """Tell what happened to a ROW, or what the cell in a COLUMN of it held. Also of rows and tables that are gone."""
    told = stoa.history(name, row) if column is None else stoa.cell_history(name, row, column)
    if as_json:
        emit(told)
    elif column is None:
        grid(["position", "time", "who", "what"], [[*_who(event), event["summary"]] for event in told])
    elif not told:
        click.echo(f"The cell was always empty: row {row}, {column}.")
    else:
        lines = [[*_who(event), _value(event), _why(event)] for event in told]
        grid(["position", "time", "who", "value", "why"], lines)


def _who(event: Mapping[str, Any]) -> list[str]:
    return [str(event["position"]), event["time"][:19].replace("T", " "), event["actor"]]


def _value(event: Mapping[str, Any]) -> str:
    return cell(event["value"]) if event["shown"] else f"({cell(event['value'])}, not shown)"


def _why(event: Mapping[str, Any]) -> str:
    said = [event["type"]]
    if event["reset"]:
        said.append("correction taken back")
    if event["undoes"]:
        said.append("undone")
    if event["job"]:
        said.append(f"job {event['job']}")
    if event["reused_from"]:
        said.append(f"reused from job {event['reused_from']}")
    if event["workflow_version"]:
        said.append(f"workflow {event['workflow_version'][:_SHORT]}")
    if event["cause"]:
        said.append(f"because of {event['cause']['kind']}")
    if event["reason"]:
        said.append(event["reason"])
    return ", ".join(said)


@click.command()
@click.argument("name", metavar="TABLE")
@click.argument("before", metavar="FROM")
@click.argument("after", metavar="[TO]", required=False)
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="At most so many rows.")
@json_option
@client
def diff(stoa: Stoa, name: str, before: str, after: str | None, limit: int, as_json: bool) -> None:
    """Tell what is different in a table between FROM and TO, or now.

    Both are positions of the log, or times such as 2026-03-01T20:00:00Z.
    """
    found = stoa.diff(name, before, after, limit=limit)
    if as_json:
        emit(found)
        return
    summary = found["summary"]
    click.echo(
        f"From position {found['before']} to {found['after']}: {summary['rows_added']} rows added, "
        f"{summary['rows_removed']} removed, {summary['rows_changed']} changed "
        f"({summary['cells_changed']} cells, {summary['statuses_changed']} statuses)."
    )
    for line in _of_table(found["changes"]):
        click.echo(line)
    lines = [line for row in found["rows"] for line in _of_row(row)]
    if lines:
        grid(["row", "what", "before", "after"], lines, right=["row"])
    if found["next"] is not None:
        click.echo(f"Only the first {limit} rows are shown; --limit shows more.")


def _of_table(changes: Mapping[str, Any]) -> list[str]:
    lines = []
    if changes["exists"]:
        lines.append("The table was created." if changes["exists"]["after"] else "The table was deleted.")
        return lines
    for what in ("name", "description", "workflow_version"):
        if changes[what]:
            words = [str(changes[what][side] or "none") for side in ("before", "after")]
            if what == "workflow_version":
                words = [word[:_SHORT] for word in words]
            lines.append(f"The {what.replace('_', ' ')} was {words[0]}, and is {words[1]}.")
    for column in changes["columns"]:
        done = "added" if column["before"] is None else "removed" if column["after"] is None else "described anew"
        lines.append(f"The column {column['column']} was {done}.")
    if changes["links"]:
        lines.append("It is filled through other links.")
    return lines


def _of_row(row: Mapping[str, Any]) -> list[list[str]]:
    number = str(row["row"])
    if row["change"] == "removed":
        return [[number, "removed", "", ""]]
    lines = [[number, "added", "", ""]] if row["change"] == "added" else []
    if row["status"]:
        lines.append([number, "status", *(_status(row["status"][side]) for side in ("before", "after"))])
    lines += [[number, each["column"], cell(each["before"]), cell(each["after"])] for each in row["cells"]]
    if not lines:
        versions = [str(row["workflow_version"][side] or "")[:_SHORT] for side in ("before", "after")]
        lines.append([number, "workflow version", *versions])
    return lines


def _status(status: str | None) -> str:
    return "" if status is None else f"{STATUSES[status][0]} {status}"
