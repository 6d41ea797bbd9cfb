"""``stoa table set-workflow``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoa.commands.preview import print_preview
from stoa.output import client, emit, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["set_workflow"]

_DIGITS = 12


@click.command()
@click.argument("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--preview", "only_preview", is_flag=True, help="Only tell what that would do.")
@json_option
@client
def set_workflow(stoa: Stoa, table: str, files: tuple[Path, ...], only_preview: bool, as_json: bool) -> None:
    """Give a worktable another workflow version: its CWL document, and other FILES where that does not name them.

    Rows whose outputs came from another version become stale. A change of comments or of the order of keys changes nothing.
    """
    from stoa.bundles import bundle, referred_files

    main, *others = files
    contents = bundle(main, others or referred_files(main))
    if only_preview:
        print_preview(stoa.preview_workflow(table, contents, main=main.name), as_json=as_json)
        return
    before = stoa.table(table)
    changed = stoa.change_workflow(table, contents, main=main.name)
    if as_json:
        emit(changed)
        return
    for warning in changed["warnings"]:
        click.echo(f"Note: {warning}", err=True)
    version = changed["workflow"]["version"]
    if version == (before["workflow"] or {}).get("version"):
        click.echo(f"{changed['name']} has this version already, {version[:_DIGITS]}.")
        return
    stale = changed["counts"].get("stale", 0)
    click.echo(f"{changed['name']} has the version {version[:_DIGITS]}; {stale} of its rows are stale.")
