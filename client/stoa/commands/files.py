"""``stoa files``: the files that jobs read where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoa.output import client, emit, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["files"]


@click.group()
def files() -> None:
    """Look after the files that rows read where they stand."""


@files.command()
@click.argument("locations", nargs=-1)
@json_option
@client
def recheck(stoa: Stoa, locations: tuple[str, ...], as_json: bool) -> None:
    """Look now whether files that rows have read have changed; rows that read a changed one become stale.

    LOCATIONS are paths on the server or URIs file:///…; without any, all files are looked at. Stoa does this by itself every
    minute or so.
    """
    given = [item if "://" in item else str(Path(item).absolute()) for item in locations]
    done = stoa.request("POST", "/api/files/recheck", json={"locations": given or None}, timeout=3600)
    if as_json:
        emit(done)
        return
    for change in done["changes"]:
        click.echo(f"{change['location']} {'has changed' if change['sha256'] else 'is gone'}")
    if done["changed"] > len(done["changes"]):
        click.echo(f"… and {done['changed'] - len(done['changes'])} more")
    for location in done["unknown"]:
        click.echo(f"{location} was read by no row", err=True)
    if done["skipped"]:
        click.echo(f"{done['skipped']} could not be looked at", err=True)
    checked = f"{done['checked']} file{'' if done['checked'] == 1 else 's'}"
    click.echo(f"Looked at {checked}; {done['changed'] or 'none'} changed.")
