"""``stoa status`` and ``stoa cancel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoa.output import STATUSES, Markup, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["cancel", "status"]


@click.command()
@json_option
@client
def status(stoa: Stoa, as_json: bool) -> None:
    """Count the rows of every table by status."""
    tables = stoa.tables()
    if as_json:
        emit(
            [
                {"table": item["name"], "id": item["id"], "rows": item["rows"], "counts": item["counts"]}
                for item in tables
            ]
        )
        return
    shown = [name for name in STATUSES if any(item["counts"].get(name) for item in tables)]
    headers = ["table", "rows", *(f"{STATUSES[name][0]} {name}" for name in shown)]
    rows = [
        [
            item["name"],
            str(item["rows"]),
            *(
                Markup(f"[{STATUSES[name][1]}]{item['counts'][name]}[/]") if item["counts"].get(name) else ""
                for name in shown
            ),
        ]
        for item in tables
    ]
    grid(headers, rows, right=headers[1:])


@click.command()
@click.argument("table")
@click.argument("rows", nargs=-1, type=int)
@json_option
@client
def cancel(stoa: Stoa, table: str, rows: tuple[int, ...], as_json: bool) -> None:
    """Cancel the jobs of TABLE, or only those of some ROWS."""
    cancelled = stoa.cancel(table, rows or None)
    if as_json:
        emit({"cancelled": cancelled})
    else:
        click.echo(f"{cancelled} jobs were cancelled.")
