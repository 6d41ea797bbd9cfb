"""``stoa table correct`` and ``stoa table corrections``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from stoa.errors import Refused
from stoa.output import client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["correct", "corrections"]


@click.command()
@click.argument("table")
@click.argument("row", type=int)
@click.argument("values", nargs=-1, required=True)
@click.option("--reason", help="Why what is derived is wrong.")
@click.option("--if-revision", type=int, help="Only if the row still has this revision.")
@json_option
@client
def correct(
    stoa: Stoa,
    table: str,
    row: int,
    *,
    values: tuple[str, ...],
    reason: str | None,
    if_revision: int | None,
    as_json: bool,
) -> None:
    """Correct derived cells of a ROW: COLUMN=VALUE. They stay so, whatever comes from upstream."""
    from stoa.commands.table import assignments

    written = assignments(stoa, values, stoa.table(table))
    edited = stoa.edit_row(table, row, written, revision=if_revision, reason=reason)
    if as_json:
        emit(edited)
        return
    corrected = (edited["derived_from"] or {}).get("corrected", {})
    told = ", ".join(name for name in written if name in corrected)
    click.echo(
        f"Row {row} has revision {edited['revision']}; {f'corrected: {told}' if told else 'nothing is corrected'}."
    )


@click.command()
@click.argument("table")
@click.argument("action", type=click.Choice(["reset", "confirm"]), required=False)
@click.argument("rows", nargs=-1, type=int)
@click.option("--review", is_flag=True, help="Only what upstream has changed under.")
@click.option("--column", "columns", multiple=True, help="Only the corrections of this column.")
@click.option("--reason", help="Why corrections are kept (confirm).")
@json_option
@client
def corrections(
    stoa: Stoa,
    table: str,
    action: str | None,
    *,
    rows: tuple[int, ...],
    review: bool,
    columns: tuple[str, ...],
    reason: str | None,
    as_json: bool,
) -> None:
    """List the corrections of a TABLE, or reset or confirm those of ROWS.

    'reset' lets the cells hold again what is derived, 'confirm' keeps them although upstream says something else now.
    """
    if action is None:
        if reason is not None:
            raise Refused("A reason is given to 'confirm'")
        _list(stoa, table, review=review, columns=columns, as_json=as_json)
        return
    if not rows:
        raise Refused(f"Name the rows whose corrections you want to {action}")
    if action == "reset":
        told = stoa.reset_corrections(table, rows, columns or None)
        changed = len(told["rows"])
        words = f"{changed} row{' holds' if changed == 1 else 's hold'} again what is derived."
    else:
        told = stoa.confirm_corrections(table, rows, columns or None, reason=reason)
        changed = len(told["rows"])
        words = f"Kept corrections of {changed} row{'' if changed == 1 else 's'}."
    if as_json:
        emit(told)
    else:
        click.echo(words)


def _list(stoa: Stoa, table: str, *, review: bool, columns: tuple[str, ...], as_json: bool) -> None:
    rows = list(stoa.corrections(table, review=True if review else None))
    if as_json:
        emit(rows)
        return
    cells = [
        [
            str(row["row"]),
            column,
            json.dumps(row["values"][column], ensure_ascii=False),
            json.dumps(correction["derived"], ensure_ascii=False),
            correction["by"],
            correction["reason"] or "",
            "review" if correction["review"] else "",
        ]
        for row in rows
        for column, correction in row["corrected"].items()
        if not columns or column in columns
    ]
    if cells:
        grid(["row", "column", "value", "derived", "who", "why", ""], cells, right=["row"])
    else:
        click.echo("Nothing is to be reviewed." if review else "Nothing is corrected.")
