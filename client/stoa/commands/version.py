"""``stoa version``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from stoa.commands.preview import print_preview
from stoa.output import Markup, client, counted, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["version"]

_DIGITS = 12
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.group()
def version() -> None:
    """List, compare and restore the workflow versions of a TABLE.

    A VERSION is given by its number, or by at least 7 digits of its SHA-256.
    """


@version.command("ls")
@click.argument("table")
@json_option
@client
def list_versions(stoa: Stoa, table: str, as_json: bool) -> None:
    """List the versions that a TABLE ever had, the newest first."""
    found = list(stoa.versions(table))
    if as_json:
        emit(found)
        return
    rows: list[list[Markup | str]] = [
        [
            str(item["number"]),
            item["version"][:_DIGITS],
            Markup("[green]✓[/]") if item["present"] else "",
            item["first"]["time"][:19].replace("T", " "),
            item["first"]["actor"],
            str(item["rows"]),
            str(item["files"]),
            item["label"] or "",
        ]
        for item in found
    ]
    grid(
        ["version", "digest", "now", "since", "by", "rows", "files", "label"], rows, right=["version", "rows", "files"]
    )


@version.command()
@click.argument("table")
@click.argument("before", metavar="VERSION")
@click.argument("after", metavar="[VERSION]", required=False)
@json_option
@client
def diff(stoa: Stoa, table: str, before: str, after: str | None, as_json: bool) -> None:
    """Show what differs between two versions: files, and columns.

    Without a second VERSION, the first one is compared with what the TABLE has now.
    """
    present = after or stoa.table(table)["workflow"]["version"]
    found = stoa.compare_versions(table, before, present)
    if as_json:
        emit(found)
        return
    lines = [*_columns(found["columns"]), *_files(found["files"])]
    if found["main"]:
        lines.insert(0, "The main process is {1}; it was {0}.".format(*found["main"]))
    for line in lines or ["Nothing differs."]:
        click.echo(line)


def _columns(columns: Mapping[str, Any]) -> Iterator[str]:
    for word, colour in (("added", "green"), ("removed", "red")):
        for column in columns[word]:
            yield click.style(f"{column['role']} {column['name']} {word}", fg=colour)
    for column in columns["changed"]:
        fields = ", ".join(
            f"{field} from {column['before'][field]!r} to {column['after'][field]!r}" for field in column["fields"]
        )
        yield f"{column['after']['role']} {column['name']} changed: {fields}"


def _files(files: list[Mapping[str, Any]]) -> Iterator[str]:
    for file in files:
        same = ", and says the same" if file["same_meaning"] else ""
        yield click.style(f"{file['name']} {file['change']}{same}", bold=True)
        for line in (file["text"] or "").splitlines():
            colour = _COLOURS.get(line[:1])
            yield click.style(line, fg=colour) if colour else line
        if file["left_out"]:
            yield file["left_out"]


@version.command()
@click.argument("table")
@click.argument("version_", metavar="VERSION")
@click.option("--preview", "only_preview", is_flag=True, help="Only tell what that would do.")
@json_option
@client
def restore(stoa: Stoa, table: str, version_: str, only_preview: bool, as_json: bool) -> None:
    """Give a TABLE a VERSION again that it had before."""
    if only_preview:
        print_preview(stoa.preview(table, restore=version_), as_json=as_json)
        return
    restored = stoa.restore_version(table, version_)
    if as_json:
        emit(restored)
    else:
        click.echo(f"{restored['name']} has the version {restored['workflow']['version'][:_DIGITS]} again.")
        grid(["rows"], [[Markup(counted(restored["counts"]))]])
