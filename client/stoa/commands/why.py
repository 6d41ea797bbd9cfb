"""``stoa why``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoa.output import client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["why"]


@click.command()
@click.argument("table")
@click.argument("row", type=int)
@json_option
@client
def why(stoa: Stoa, table: str, row: int, as_json: bool) -> None:
    """Explain why a ROW is stale, waits, failed or is current, and what led there."""
    found = stoa.why(table, row)
    if as_json:
        emit(found)
        return
    click.echo(found["sentence"])
    if found["chain"]:
        grid(
            ["position", "time", "who", "table", "row", "what"],
            [
                [
                    str(event["position"]),
                    event["time"][:19].replace("T", " "),
                    event["actor"],
                    event["name"],
                    "" if event["row"] is None else str(event["row"]),
                    event["what"],
                ]
                for event in found["chain"]
            ],
            right=["position", "row"],
        )
