"""``stoa table preview``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["preview", "print_preview"]


@click.group()
def preview() -> None:
    """Tell what a change would do: which rows would run again, and how long that took last. Nothing is changed."""


def print_preview(told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a change would do."""
    if as_json:
        emit(told)
        return
    click.echo(told["summary"])
    if not told["tables"]:
        return
    fields = ("stale", "suspected", "current", "added", "removed", "edited")
    shown = [field for field in fields if any(table[field] for table in told["tables"])]
    rows = [[table["name"], *(str(table[field] or "") for field in shown), _seconds(table)] for table in told["tables"]]
    grid(["table", *shown, "time"], rows, right=[*shown, "time"])


def _seconds(table: Mapping[str, Any]) -> str:
    if not table["stale"]:
        return ""
    return "not known" if table["seconds"] is None else f"{table['seconds']:,.3g} s"


@preview.command()
@click.argument("table")
@click.argument("row", type=int)
@click.argument("values", nargs=-1, required=True)
@json_option
@client
def edit(stoa: Stoa, table: str, row: int, values: tuple[str, ...], as_json: bool) -> None:
    """Preview an edit of a ROW: COLUMN=VALUE."""
    from stoa.commands.table import assignments

    edited = {"row": row, "values": assignments(stoa, values, stoa.table(table))}
    print_preview(stoa.preview(table, edits=[edited]), as_json=as_json)


@preview.command()
@click.argument("table")
@click.argument("rows", nargs=-1, type=int, required=True)
@json_option
@client
def rm(stoa: Stoa, table: str, rows: tuple[int, ...], as_json: bool) -> None:
    """Preview the removal of ROWS."""
    print_preview(stoa.preview(table, remove=list(rows)), as_json=as_json)


@preview.command()
@click.argument("table")
@click.argument("version")
@json_option
@client
def restore(stoa: Stoa, table: str, version: str, as_json: bool) -> None:
    """Preview the return to a workflow VERSION that the TABLE had before."""
    print_preview(stoa.preview(table, restore=version), as_json=as_json)


@preview.command()
@click.argument("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@client
def workflow(stoa: Stoa, table: str, files: tuple[Path, ...], as_json: bool) -> None:
    """Preview another workflow: its CWL document, and other FILES where that does not name them."""
    from stoa.bundles import bundle, referred_files

    main, *others = files
    contents = bundle(main, others or referred_files(main))
    print_preview(stoa.preview_workflow(table, contents, main=main.name), as_json=as_json)


@preview.command()
@click.argument("table")
@click.argument("parent")
@click.argument("mapping", nargs=-1, required=True)
@click.option("--per", type=click.Choice(["row", "element", "group"]), default="element", show_default=True)
@click.option("--key", "keys", multiple=True, help="An input that tells one row from another.")
@click.option("--filter", "filter_", help="Only what this holds for, as in 'snr>5', gives rows.")
@json_option
@client
def link(
    stoa: Stoa,
    table: str,
    parent: str,
    mapping: tuple[str, ...],
    *,
    per: str,
    keys: tuple[str, ...],
    filter_: str | None,
    as_json: bool,
) -> None:
    """Preview a link that fills a TABLE from a PARENT's columns: INPUT=COLUMN."""
    pairs = dict(word.split("=", 1) for word in mapping if "=" in word)
    if len(pairs) != len(mapping):
        raise Refused("A mapping is of the form INPUT=COLUMN")
    given = {"keys": list(keys) or None, "filter": filter_}
    new = {"parent": parent, "per": per, "mapping": pairs} | {name: value for name, value in given.items() if value}
    print_preview(stoa.preview(table, link=new), as_json=as_json)


@preview.command()
@click.argument("table")
@click.argument("link_", metavar="LINK")
@click.option("--rows", type=click.Choice(["stay", "go"]), required=True, help="Whether its rows stay, or are removed.")
@json_option
@client
def unlink(stoa: Stoa, table: str, link_: str, rows: str, as_json: bool) -> None:
    """Preview that a TABLE is no longer filled through a LINK, which is named by its id."""
    print_preview(stoa.preview(table, unlink={"link": link_, "rows": rows}), as_json=as_json)
