"""``stoa undo``, ``redo`` and ``steps``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from stoa.output import client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["redo", "steps", "undo"]

_skip = click.option("--skip-changed", is_flag=True, help="Leave cells alone that somebody changed since.")


@click.command()
@click.argument("table")
@_skip
@json_option
@client
def undo(stoa: Stoa, table: str, *, skip_changed: bool, as_json: bool) -> None:
    """Undo your last edit, addition or removal of rows in a TABLE."""
    _print("Undone", stoa.undo(table, skip_changed=skip_changed), as_json=as_json)


@click.command()
@click.argument("table")
@_skip
@json_option
@client
def redo(stoa: Stoa, table: str, *, skip_changed: bool, as_json: bool) -> None:
    """Redo what you undid last in a TABLE."""
    _print("Redone", stoa.redo(table, skip_changed=skip_changed), as_json=as_json)


def _print(word: str, answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(answer)
        return
    click.echo(f"{word}: {answer['step']['summary'].lower()}.")
    for cell in answer["left"]:
        place = f"row {cell['row']}" + (f", {cell['column']}" if cell["column"] else "")
        click.echo(f"{place} was left alone: {cell['reason']}")


@click.command()
@click.argument("table")
@json_option
@client
def steps(stoa: Stoa, table: str, *, as_json: bool) -> None:
    """List what you can undo and redo in a TABLE, the next step first."""
    found = stoa.steps(table)
    if as_json:
        emit(found)
        return
    lines = [
        [word, str(step["step"]), step["time"][:19].replace("T", " "), step["summary"]]
        for word in ("undo", "redo")
        for step in found[word]
    ]
    if lines:
        grid(["", "step", "time", "what"], lines)
    else:
        click.echo("There is nothing to undo or redo.")
