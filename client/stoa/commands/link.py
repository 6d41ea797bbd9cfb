"""``stoa link`` and ``stoa table dependents``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["dependents", "link"]

_PER = click.Choice(["row", "element", "group"])


@click.group()
def link() -> None:
    """Fill tables from others, and change or give up what fills them.

    A LINK is given by its id, or by the name of its parent where there is only one from it.
    """


@link.command("ls")
@click.argument("table", required=False)
@json_option
@client
def list_links(stoa: Stoa, table: str | None, as_json: bool) -> None:
    """List all links, or those that fill a TABLE."""
    graph = stoa.graph()
    names = {item["id"]: item["name"] for item in graph["tables"]}
    links = graph["links"]
    if table is not None:
        wanted = stoa.table(table)["id"]
        links = [item for item in links if item["table"] == wanted]
    if as_json:
        emit(links)
    elif not links:
        click.echo("There is no link." if table is None else f"{table} is filled from no other table.")
    else:
        rows = [
            [
                names[item["table"]],
                " and ".join(names[parent] for parent in item["parents"]),
                item["kind"] if item["kind"] != "keyed" else f"per {item['per']}",
                _pairs(item["mapping"]),
                ", ".join(item["keys"]) or ", ".join(f"{left}={right}" for left, right in item["on"]),
                item["filter"] or "",
                item["link"],
            ]
            for item in links
        ]
        grid(["table", "from", "how", "columns", "keys", "filter", "link"], rows)


def _pairs(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{to}={source}" for to, source in mapping.items())


@link.command()
@click.argument("table")
@click.argument("parent")
@click.argument("mapping", nargs=-1, required=True)
@click.option("--per", type=_PER, default="element", show_default=True)
@click.option("--key", "keys", multiple=True, help="An input that tells one row from another.")
@click.option("--filter", "filter_", help="Only what this holds for, as in 'snr>5 and object~Cen'.")
@json_option
@client
def add(
    stoa: Stoa,
    table: str,
    parent: str,
    *,
    mapping: tuple[str, ...],
    per: str,
    keys: tuple[str, ...],
    filter_: str | None,
    as_json: bool,
) -> None:
    """Fill the inputs of a TABLE from a PARENT's columns: INPUT=COLUMN."""
    linked = stoa.link(table, parent, _mapping(mapping), per=per, keys=keys or None, filter=filter_)
    if as_json:
        emit(linked)
    else:
        click.echo(f"{table} is filled from {parent}, through the link {linked['link']['link']}.")


def _mapping(words: Sequence[str]) -> dict[str, str]:
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    if len(pairs) != len(words):
        raise Refused("A mapping is of the form INPUT=COLUMN, and each INPUT stands there once")
    return pairs


@link.command()
@click.argument("table")
@click.argument("link_", metavar="LINK")
@click.argument("mapping", nargs=-1)
@click.option("--per", type=_PER)
@click.option("--key", "keys", multiple=True, help="An input that tells one row from another.")
@click.option("--filter", "filter_", help="Only what this holds for; an empty text takes the filter away.")
@click.option("--on", multiple=True, metavar="LEFT=RIGHT", help="Columns on which a join joins.")
@click.option("--kind", type=click.Choice(["inner", "left"]), help="Of a join.")
@json_option
@client
def change(
    stoa: Stoa,
    table: str,
    link_: str,
    *,
    mapping: tuple[str, ...],
    per: str | None,
    keys: tuple[str, ...],
    filter_: str | None,
    on: tuple[str, ...],
    kind: str | None,
    as_json: bool,
) -> None:
    """Change a LINK: its mapping INPUT=COLUMN, which replaces the old one, and what the options say."""
    found = _find(stoa, table, link_)
    changes: dict[str, Any] = {"per": per, "keys": list(keys) or None, "kind": kind}
    changes["on"] = [word.split("=", 1) for word in on if "=" in word] or None
    if len(changes["on"] or []) != len(on):
        raise Refused("A pair of columns is of the form LEFT=RIGHT")
    if mapping:
        changes["mapping" if found["kind"] == "keyed" else "columns"] = _mapping(mapping)
    changes = {key: value for key, value in changes.items() if value is not None}
    if filter_ is not None:
        changes["filter"] = filter_ or None
    if not changes:
        raise Refused("Nothing is to change; give a mapping INPUT=COLUMN or an option")
    changed = stoa.change_link(table, found["link"], **changes)
    if as_json:
        emit(changed)
    else:
        click.echo(f"Changed how {table} is filled.")


def _find(stoa: Stoa, table: str, wanted: str) -> dict[str, Any]:
    links: list[dict[str, Any]] = stoa.table(table)["links"]
    exact = [item for item in links if item["link"] == wanted]
    if exact:
        return exact[0]
    names = {item["id"]: item["name"] for item in stoa.tables()}
    named = [
        item
        for item in links
        if any(wanted.casefold() in {parent, names.get(parent, "").casefold()} for parent in item["parents"])
    ]
    if len(named) != 1:
        how = "through several links" if named else "through no link"
        raise Refused(f"{table} is filled {how} from '{wanted}'; 'stoa link ls {table}' lists the links")
    return named[0]


@link.command()
@click.argument("table")
@click.argument("link_", metavar="LINK")
@click.option(
    "--rows",
    type=click.Choice(["stay", "go"]),
    required=True,
    help="Whether rows that came through it stay, as ordinary rows, or go.",
)
@json_option
@client
def rm(stoa: Stoa, table: str, link_: str, rows: str, as_json: bool) -> None:
    """Give up a LINK: the table is no longer filled through it."""
    told = stoa.unlink(table, _find(stoa, table, link_)["link"], rows)
    if as_json:
        emit(told)
        return
    number = told["affected"]
    left = "stay" if rows == "stay" else "are gone"
    click.echo(f"{table} is no longer filled through the link; {number} row{'' if number == 1 else 's'} {left}.")


@click.command()
@click.argument("table")
@json_option
@client
def dependents(stoa: Stoa, table: str, as_json: bool) -> None:
    """Tell what depends on a TABLE, and what deleting it would do."""
    told = stoa.dependents(table)
    if as_json:
        emit(told)
        return
    if not told["dependents"]:
        click.echo(f"Nothing depends on {told['name']}.")
        return
    rows = [
        [item["name"], item["kind"], str(item["rows"]), "directly" if item["direct"] else "through others"]
        for item in told["dependents"]
    ]
    grid(["table", "kind", "rows", "depends"], rows, right=["rows"])
    for choice in ("unlink", "delete"):
        click.echo(f"'stoa table delete {told['name']} --children {choice}' {_consequences(told[choice])}")


def _consequences(told: Mapping[str, Any]) -> str:
    sentences = [f"deletes {', '.join(item['name'] for item in told['deleted'])}"]
    for word, means in (("stay", "stay, as ordinary rows"), ("go", "go")):
        kept = [f"{item['rows']} of {item['name']}" for item in told["unlinked"] if item["becomes"] == word]
        if kept:
            sentences.append(f"rows that {means}: {', '.join(kept)}")
    return f"{'; '.join(sentences)}; {told['rows_removed']} rows are gone in all."
