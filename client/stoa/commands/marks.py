"""``stoa flag``, ``comment`` and ``view``, ``stoa table lock`` and ``unlock``: what people say of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import STATUSES, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["comment", "find_view", "flag", "lock", "unlock", "view"]

_filters = click.option(
    "--filter", "filters", multiple=True, help="COLUMN OP VALUE, as in 'snr>5'; several must all hold."
)


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _chosen(stoa: Stoa, name: str, rows: tuple[int, ...], filters: tuple[str, ...]) -> list[int]:
    if bool(rows) == bool(filters):
        raise Refused("Name the rows, or choose them with --filter")
    return list(rows) or [row["row"] for row in stoa.rows(name, filter=list(filters))]


# --- flags -------------------------------------------------------------------------------------------------------------


@click.group()
def flag() -> None:
    """Mark rows with named, coloured flags."""


@flag.command("ls")
@click.argument("name", metavar="TABLE")
@json_option
@client
def list_flags(stoa: Stoa, name: str, as_json: bool) -> None:
    """List the flags of a table, with the number of rows that have them."""
    flags = stoa.flags(name)
    if as_json:
        emit(flags)
    elif not flags:
        click.echo(f"{name} has no flag yet. Define one with 'stoa flag define {name} FLAG'.")
    else:
        rows = [[item["flag"], item["colour"], str(item["rows"]), item["description"] or ""] for item in flags]
        grid(["flag", "colour", "rows", "description"], rows, right=["rows"])


@flag.command()
@click.argument("name", metavar="TABLE")
@click.argument("flag_", metavar="FLAG")
@click.option("--colour", default="#d9480f", show_default=True, help="#rrggbb")
@click.option("--description", help="When people use it.")
@json_option
@client
def define(stoa: Stoa, name: str, flag_: str, colour: str, description: str | None, as_json: bool) -> None:
    """Define a FLAG, or change its colour and description."""
    stoa.define_flag(name, flag_, colour=colour, description=description)
    if as_json:
        emit({"table": name, "flag": flag_})
    else:
        click.echo(f"Defined {flag_}.")


@flag.command()
@click.argument("name", metavar="TABLE")
@click.argument("flag_", metavar="FLAG")
@json_option
@client
def drop(stoa: Stoa, name: str, flag_: str, as_json: bool) -> None:
    """Give a FLAG up, and take it off every row."""
    stoa.give_up_flag(name, flag_)
    if as_json:
        emit({"table": name, "flag": flag_})
    else:
        click.echo(f"{flag_} is no flag of {name} any more.")


@flag.command("set")
@click.argument("name", metavar="TABLE")
@click.argument("flag_", metavar="FLAG")
@click.argument("rows", nargs=-1, type=int)
@_filters
@json_option
@client
def set_flag(stoa: Stoa, name: str, flag_: str, rows: tuple[int, ...], filters: tuple[str, ...], as_json: bool) -> None:
    """Put a FLAG on ROWS, or on those that --filter chooses."""
    _flag(stoa, name, flag_, _chosen(stoa, name, rows, filters), flagged=True, as_json=as_json)


@flag.command("clear")
@click.argument("name", metavar="TABLE")
@click.argument("flag_", metavar="FLAG")
@click.argument("rows", nargs=-1, type=int)
@_filters
@json_option
@client
def clear_flag(
    stoa: Stoa, name: str, flag_: str, rows: tuple[int, ...], filters: tuple[str, ...], as_json: bool
) -> None:
    """Take a FLAG off ROWS, or off those that --filter chooses."""
    _flag(stoa, name, flag_, _chosen(stoa, name, rows, filters), flagged=False, as_json=as_json)


def _flag(stoa: Stoa, name: str, flag_: str, rows: list[int], *, flagged: bool, as_json: bool) -> None:
    marked = stoa.flag_rows(name, flag_, rows, flagged=flagged)["rows"] if rows else []
    if as_json:
        emit({"rows": marked})
    elif flagged:
        click.echo(f"{_plural(len(marked), 'row')} got the flag {flag_}.")
    else:
        click.echo(f"{_plural(len(marked), 'row')} lost the flag {flag_}.")


# --- comments ----------------------------------------------------------------------------------------------------------


@click.group()
def comment() -> None:
    """Write about rows and cells, reply, and read what others wrote."""


@comment.command("ls")
@click.argument("name", metavar="TABLE")
@click.argument("row", type=int, required=False)
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@json_option
@client
def list_comments(stoa: Stoa, name: str, row: int | None, limit: int, as_json: bool) -> None:
    """List the newest comments on a table's rows, or the comments on a ROW, the oldest first."""
    found = list(stoa.comments(name, row, limit=limit))
    if as_json:
        emit(found)
        return
    if not found:
        click.echo("Nobody wrote anything yet.")
    lines = [
        [item["comment"], item["created"][:19].replace("T", " "), item["author"], _place(item), _said(item)]
        for item in found
    ]
    if lines:
        grid(["comment", "time", "who", "where", "text"], lines)


def _place(item: Mapping[str, Any]) -> str:
    element = "" if item["element"] is None else f".{item['element']}"
    column = f" {item['column']}" if item["column"] else ""
    return f"{item['row']}{element}{column}"


def _said(item: Mapping[str, Any]) -> str:
    text = "(withdrawn)" if item["text"] is None else " ".join(item["text"].split())
    return f"{'↳ ' if item['replies_to'] else ''}{text}"


@comment.command("add")
@click.argument("name", metavar="TABLE")
@click.argument("row", type=int)
@click.argument("text")
@click.option("--column", help="The cell's column.")
@click.option("--element", type=int, help="The element that it is about.")
@click.option("--reply-to", "replies_to", help="A comment on the same row.")
@json_option
@client
def add_comment(stoa: Stoa, name: str, row: int, text: str, *, as_json: bool, **about: Any) -> None:
    """Write TEXT (Markdown) about a ROW."""
    written = stoa.comment(name, row, text, **{key: value for key, value in about.items() if value is not None})
    if as_json:
        emit(written)
    else:
        click.echo(f"Commented on row {row}: {written['comment']}")


@comment.command("edit")
@click.argument("name", metavar="TABLE")
@click.argument("comment_", metavar="COMMENT")
@click.argument("text")
@json_option
@client
def edit_comment(stoa: Stoa, name: str, comment_: str, text: str, as_json: bool) -> None:
    """Let a COMMENT of one's own say TEXT; what it said before stays in its history."""
    edited = stoa.edit_comment(name, comment_, text)
    if as_json:
        emit(edited)
    else:
        click.echo("Changed the comment.")


@comment.command("withdraw")
@click.argument("name", metavar="TABLE")
@click.argument("comment_", metavar="COMMENT")
@json_option
@client
def withdraw_comment(stoa: Stoa, name: str, comment_: str, as_json: bool) -> None:
    """Withdraw a COMMENT of one's own."""
    withdrawn = stoa.edit_comment(name, comment_, None)
    if as_json:
        emit(withdrawn)
    else:
        click.echo("Withdrew the comment.")


@comment.command("show")
@click.argument("name", metavar="TABLE")
@click.argument("comment_", metavar="COMMENT")
@json_option
@client
def show_comment(stoa: Stoa, name: str, comment_: str, as_json: bool) -> None:
    """Show a COMMENT with everything that it said before."""
    found = stoa.comment_versions(name, comment_)
    if as_json:
        emit(found)
        return
    click.echo(f"{found['author']} on row {_place(found)}")
    for version in found["versions"]:
        text = "(withdrawn)" if version["text"] is None else version["text"]
        click.echo(f"{version['time'][:19].replace('T', ' ')}  {text}")


# --- locks -------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="TABLE")
@click.argument("rows", nargs=-1, type=int)
@_filters
@click.option("--reason", help="Why, for others.")
@json_option
@client
def lock(
    stoa: Stoa, name: str, rows: tuple[int, ...], filters: tuple[str, ...], reason: str | None, as_json: bool
) -> None:
    """Lock ROWS, so that nobody edits, removes or runs them."""
    _lock(stoa, name, _chosen(stoa, name, rows, filters), locked=True, reason=reason, as_json=as_json)


@click.command()
@click.argument("name", metavar="TABLE")
@click.argument("rows", nargs=-1, type=int)
@_filters
@json_option
@client
def unlock(stoa: Stoa, name: str, rows: tuple[int, ...], filters: tuple[str, ...], as_json: bool) -> None:
    """Unlock ROWS; they follow what changed upstream while they were locked."""
    _lock(stoa, name, _chosen(stoa, name, rows, filters), locked=False, reason=None, as_json=as_json)


def _lock(stoa: Stoa, name: str, rows: list[int], *, locked: bool, reason: str | None, as_json: bool) -> None:
    marked = stoa.lock_rows(name, rows, locked=locked, reason=reason)["rows"] if rows else []
    if as_json:
        emit({"rows": marked})
    else:
        click.echo(f"{'Locked' if locked else 'Unlocked'} {_plural(len(marked), 'row')}.")


# --- views -------------------------------------------------------------------------------------------------------------


@click.group()
def view() -> None:
    """Save filters, an order and shown columns under a name. 'stoa table show TABLE --view NAME' applies them."""


def find_view(stoa: Stoa, table: str, name: str) -> dict[str, Any]:
    """Find a view by its id or its name; one's own come before those of others."""
    views = stoa.views(table)
    for found in views:
        if found["view"] == name:
            return found
    named = [found for found in views if found["name"].casefold() == name.casefold()]
    if len(named) > 1:
        ids = ", ".join(f"{found['view']} (of {found['author']})" for found in named)
        raise Refused(f"Several views of {table} are called {name}: {ids}; give an id")
    if not named:
        known = ", ".join(found["name"] for found in views)
        raise Refused(f"{table} has no view {name}" + (f"; it has {known}" if known else ""))
    return named[0]


@view.command("ls")
@click.argument("table", metavar="TABLE")
@json_option
@client
def list_views(stoa: Stoa, table: str, as_json: bool) -> None:
    """List one's own views of a table, and those that others share."""
    views = stoa.views(table)
    if as_json:
        emit(views)
    elif not views:
        click.echo(f"{table} has no view yet. Save one with 'stoa view save {table} NAME --filter …'.")
    else:
        rows = [
            [
                item["name"],
                item["author"],
                "shared" if item["shared"] else "private",
                " and ".join([*item["filters"], *([item["status"]] if item["status"] else [])]),
                item["sort"] or "",
                "all" if item["columns"] is None else ", ".join(item["columns"]),
            ]
            for item in views
        ]
        grid(["view", "of", "", "rows", "order", "columns"], rows)


@view.command("save")
@click.argument("table", metavar="TABLE")
@click.argument("name")
@_filters
@click.option("--sort", help="Columns, comma separated; -COLUMN sorts downwards.")
@click.option("--status", type=click.Choice(list(STATUSES)), help="Only rows of this status.")
@click.option("--columns", help="Only these columns, comma separated.")
@click.option("--shared", is_flag=True, help="Let others see it.")
@json_option
@client
def save_view(
    stoa: Stoa,
    table: str,
    name: str,
    *,
    filters: tuple[str, ...],
    sort: str | None,
    status: str | None,
    columns: str | None,
    shared: bool,
    as_json: bool,
) -> None:
    """Save a view under NAME."""
    new = {
        "name": name,
        "shared": shared,
        "filters": list(filters),
        "sort": sort,
        "status": status,
        "columns": None if columns is None else [column.strip() for column in columns.split(",")],
    }
    saved = stoa.save_view(table, new)
    if as_json:
        emit(saved)
    else:
        click.echo(f"Saved {name}: {saved['view']}")


@view.command("rm")
@click.argument("table", metavar="TABLE")
@click.argument("name")
@json_option
@client
def delete_view(stoa: Stoa, table: str, name: str, as_json: bool) -> None:
    """Delete a view of one's own, by its NAME or id."""
    found = find_view(stoa, table, name)
    stoa.delete_view(table, found["view"])
    if as_json:
        emit({"deleted": found["view"]})
    else:
        click.echo(f"Deleted {found['name']}.")
