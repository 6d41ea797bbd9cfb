"""``stoa table``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoa.cli import LazyGroup
from stoa.errors import Refused
from stoa.output import STATUSES, Markup, client, counted, emit, grid, json_option, print_rows

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["assignments", "table"]

_TEXT_TYPES = {"string", "File", "Directory"}
_FILE = '"File"'
_SHOWN_REASONS = 10
_MODES = {"manual": "by hand", "automatic": "by itself", "scheduled": "by its triggers"}


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


#: Commands with a module of their own.
_COMMANDS = {
    "accept": ("stoa.commands.accept", "accept", "Accept stale rows as current, without a run."),
    "pin": ("stoa.commands.accept", "pin", "Pin rows to a workflow version."),
    "diff": ("stoa.commands.history", "diff", "Tell what changed between two moments."),
    "set-workflow": ("stoa.commands.workflow", "set_workflow", "Give a worktable another workflow version."),
    "lock": ("stoa.commands.marks", "lock", "Lock rows, so that nobody edits, removes or runs them."),
    "unlock": ("stoa.commands.marks", "unlock", "Unlock rows."),
    "dependents": ("stoa.commands.link", "dependents", "Tell what depends on a table, and what deleting it would do."),
    "correct": ("stoa.commands.correct", "correct", "Correct derived cells of a row, and say why."),
    "corrections": ("stoa.commands.correct", "corrections", "List corrections, take them back, or keep them."),
    "import": ("stoa.commands.interchange", "import_", "Add the rows of a file, or make a plain table of it."),
    "export": ("stoa.commands.interchange", "export", "Write a table to a file."),
    "preview": ("stoa.commands.preview", "preview", "Tell what a change would do, and change nothing."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def table() -> None:
    """Look at tables, create, fill, edit and run them. A TABLE is given by its name or its id."""


@table.command("ls")
@json_option
@client
def list_tables(stoa: Stoa, as_json: bool) -> None:
    """List the tables."""
    tables = stoa.tables()
    if as_json:
        emit(tables)
    elif not tables:
        click.echo("There is no table yet. Create one with 'stoa table create NAME --cwl FILE'.")
    else:
        rows: list[list[Markup | str]] = [
            [item["name"], item["kind"], str(item["rows"]), Markup(counted(item["counts"])), item["description"]]
            for item in tables
        ]
        grid(["table", "kind", "rows", "status", "description"], rows, right=["rows"])


@table.command()
@click.argument("name_", metavar="TABLE")
@click.option(
    "--filter", "filters", multiple=True, help="COLUMN OP VALUE, as in 'snr>5' or 'object~Cen'; several must all hold."
)
@click.option("--sort", help="Columns, comma separated; -COLUMN sorts downwards.")
@click.option("--status", type=click.Choice(list(STATUSES)), help="Only rows of this status.")
@click.option("--columns", help="Only these columns, comma separated.")
@click.option("--view", help="A saved view, by its name or id.")
@click.option("--elements", is_flag=True, help="One line per element, not per row.")
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="At most so many lines.")
@click.option("--as-of", help="As it was at a position of the log, or at a time such as 2026-03-01T20:00:00Z.")
@json_option
@client
def show(
    stoa: Stoa,
    name_: str,
    *,
    filters: tuple[str, ...],
    sort: str | None,
    status: str | None,
    columns: str | None,
    view: str | None,
    elements: bool,
    limit: int,
    as_of: str | None,
    as_json: bool,
) -> None:
    """Show a table: its columns and rows.

    On a terminal the columns that fit are shown; --columns chooses others, and a pipe gets all of them.
    """
    detail = stoa.table(name_, as_of=as_of)
    # Its name may have been another one, and all pages are of one moment.
    name_, as_of = detail["id"], None if as_of is None else detail["position"]
    asked = {"filter": list(filters), "sort": sort, "status": status, "limit": limit, "as_of": as_of}
    saved: dict[str, Any] = {"columns": None}
    if view is not None:
        if columns is not None:
            raise Refused("A view says which columns are shown; give --view or --columns")
        from stoa.commands.marks import find_view

        saved = find_view(stoa, name_, view)
        asked["view"] = saved["view"]
    # One more than is shown tells whether there is more.
    asked["limit"] = limit + 1
    rows = list(stoa.rows(name_, elements=elements, **{key: value for key, value in asked.items() if value}))
    rows, more = rows[:limit], rows[limit:]
    if as_json:
        emit({"table": detail, ("elements" if elements else "rows"): rows})
        return
    known = {column["name"]: column for column in detail["columns"]}
    names = [name for name in saved["columns"] if name in known] if saved["columns"] else None
    chosen = [known[name] for name in names or _chosen(columns, known)]
    print_rows(detail, rows, chosen)
    if more:
        click.echo(f"Only the first {limit} are shown; --limit shows more.")


def _chosen(columns: str | None, known: Mapping[str, Any]) -> list[str]:
    if columns is None:
        return list(known)
    names = [name.strip() for name in columns.split(",")]
    for name in names:
        if name not in known:
            raise Refused(f"There is no column {name}; the table has {', '.join(known)}")
    return names


@table.command()
@click.argument("name")
@click.option(
    "--cwl",
    "main",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CWL document; default: the first of FILES.",
)
@click.option("--description", default="", help="What the table is for.")
@click.option("--project", default="default", show_default=True, help="The project it belongs to.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@client
def create(
    stoa: Stoa, name: str, main: Path | None, description: str, project: str, files: tuple[Path, ...], as_json: bool
) -> None:
    """Create a worktable NAME from a CWL document and the other FILES of the workflow.

    Where only the document is given, the files that it names and that lie beside it, or below, are taken along.
    """
    from stoa.bundles import bundle, referred_files

    if main is None:
        if not files:
            raise Refused("Which CWL document is the workflow? stoa table create NAME FILE.cwl")
        main, *others = files
    else:
        others = list(files)
    contents = bundle(main, others or referred_files(main))
    created = stoa.create_worktable(name, contents, main=main.name, description=description, project=project)
    if as_json:
        emit(created)
        return
    for warning in created.get("warnings", []):
        click.echo(f"Note: {warning}", err=True)
    inputs = [column["name"] for column in created["columns"] if column["role"] == "input"]
    click.echo(f"Created {created['name']} with the inputs {', '.join(inputs)}.")


def _convert(text: str, kind: Any) -> Any:
    members = kind if isinstance(kind, list) else [kind]
    if any(member in _TEXT_TYPES or (isinstance(member, dict) and member.get("type") == "enum") for member in members):
        return None if text == "null" and "null" in members else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def assignments(stoa: Stoa, words: tuple[str, ...], detail: dict[str, Any]) -> dict[str, Any]:
    """Read words of the form COLUMN=VALUE as values for the columns of a table."""
    types = {column["name"]: column["type"] for column in detail["columns"]}
    values = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign:
            raise Refused(f"'{word}' is not of the form COLUMN=VALUE")
        kind = types.get(name)
        if text.startswith("@") and _FILE in json.dumps(kind):
            files = [_uploaded(stoa, Path(path)) for path in text[1:].split(",@")]
            values[name] = files if "array" in json.dumps(kind) else files[0]
        else:
            values[name] = _convert(text, kind)
    return values


def _uploaded(stoa: Stoa, path: Path) -> dict[str, Any]:
    try:
        return stoa.upload(path)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error


def _json_rows(content: bytes, path: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(f'{path} is not a list of objects, such as [{{"threshold": 5}}]')
    return rows


def _content(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("values", nargs=-1)
@click.option("--csv", help="A CSV file with a header, or - for standard input.")
@click.option("--json-rows", help="A JSON file with a list of objects, or - for standard input.")
@json_option
@client
def add(stoa: Stoa, name_: str, values: tuple[str, ...], csv: str | None, json_rows: str | None, as_json: bool) -> None:
    """Add a row with the values COLUMN=VALUE, or the rows of a file.

    COLUMN=@FILE uploads a file into a column of files.
    """
    if sum([bool(values), csv is not None, json_rows is not None]) > 1:
        raise Refused("Rows come from values, from --csv or from --json-rows: give one of them")
    if csv is not None:
        added = stoa.add_csv(name_, _content(csv))
    elif json_rows is not None:
        added = stoa.add_rows(name_, _json_rows(_content(json_rows), json_rows))
    else:
        added = stoa.add_rows(name_, [assignments(stoa, values, stoa.table(name_))])
    if as_json:
        emit(added)
        return
    rows = added["rows"]
    click.echo(f"Added row {rows[0]}." if len(rows) == 1 else f"Added {_plural(len(rows), 'row')}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("row", type=int)
@click.argument("values", nargs=-1, required=True)
@click.option("--if-revision", type=int, help="Only if the row still has this revision.")
@json_option
@client
def edit(stoa: Stoa, name_: str, row: int, values: tuple[str, ...], if_revision: int | None, as_json: bool) -> None:
    """Change cells of a ROW: COLUMN=VALUE, where null empties a cell, and COLUMN=@FILE uploads a file."""
    edited = stoa.edit_row(name_, row, assignments(stoa, values, stoa.table(name_)), revision=if_revision)
    if as_json:
        emit(edited)
    else:
        click.echo(f"Row {row} has revision {edited['revision']} and is {edited['status']}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("rows", nargs=-1, type=int, required=True)
@json_option
@client
def rm(stoa: Stoa, name_: str, rows: tuple[int, ...], as_json: bool) -> None:
    """Remove ROWS of a table."""
    removed = stoa.remove_rows(name_, rows)
    if as_json:
        emit(removed)
    else:
        click.echo(f"Removed {_plural(len(rows), 'row')}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.option(
    "--children",
    type=click.Choice(["unlink", "delete"]),
    help="What becomes of what depends on it; see 'stoa table dependents'. Without it, a parent is not deleted.",
)
@click.confirmation_option(prompt="Delete the table? Its history stays in the log")
@json_option
@client
def delete(stoa: Stoa, name_: str, children: str | None, as_json: bool) -> None:
    """Delete a table."""
    stoa.delete_table(name_, children=children)
    if as_json:
        emit({"deleted": name_})
    else:
        click.echo(f"Deleted {name_}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("rows", nargs=-1, type=int)
@click.option("--failed", "scope", flag_value="failed", help="Run what failed.")
@click.option("--all", "scope", flag_value="all", help="Run every row, also current ones.")
@click.option("--stale", "scope", flag_value="stale", default="stale", help="Run what is stale (the default).")
@click.option("--force", is_flag=True, help="Run them even where an equal job has ended.")
@click.option("--priority", default=0, show_default=True, help="Higher goes first.")
@click.option("--watch", is_flag=True, help="Stay until all rows have ended.")
@json_option
@client
def run(
    stoa: Stoa,
    name_: str,
    rows: tuple[int, ...],
    *,
    scope: str,
    force: bool,
    priority: int,
    watch: bool,
    as_json: bool,
) -> None:
    """Run the stale rows of a table, or the ROWS that are named.

    Rows that depend on something that is being computed anew wait until that has settled.
    """
    from stoa.watching import watch_run

    started = stoa.run(name_, scope, rows=rows or None, priority=priority, force=force)
    if as_json and not watch:
        emit(started)
    elif not as_json:
        click.echo(f"Queued {_plural(started['jobs'], 'job')}.")
        if started["awaited"]:
            click.echo(f"{_plural(started['awaited'], 'row')} will run when what they depend on is computed.")
        for skipped in started["skipped"][:_SHOWN_REASONS]:
            click.echo(f"row {skipped['row']} was left out: {skipped['reason']}")
        if started["skipped_total"] > _SHOWN_REASONS:
            click.echo(f"… and {started['skipped_total'] - _SHOWN_REASONS} more")
    if watch:
        watch_run(stoa, started, as_json=as_json)


@table.command()
@click.argument("names", metavar="TABLE...", nargs=-1)
@json_option
@client
def watch(stoa: Stoa, names: tuple[str, ...], as_json: bool) -> None:
    """Follow tables (or all of them) until nothing is queued or running.

    Exit status 1 if rows failed.
    """
    from stoa.watching import watch_tables

    watch_tables(stoa, list(names), as_json=as_json)


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("column")
@click.option("--label")
@click.option("--unit", help="In VOUnits.")
@click.option("--ucd", help="UCD1+ word or words.")
@click.option("--utype")
@click.option("--description")
@click.option("--display", help="How its values are shown: link, image, fits or sexagesimal.")
@json_option
@client
def describe(stoa: Stoa, name_: str, column: str, *, as_json: bool, **changes: str | None) -> None:
    """Say what a COLUMN means; an empty text takes away what was said."""
    said = {key: value or None for key, value in changes.items() if value is not None}
    if not said:
        raise Refused("Nothing is said of the column; give --label, --unit, --ucd, --utype, --description or --display")
    described = stoa.describe_column(name_, column, **said)
    if as_json:
        emit(described)
    else:
        click.echo(f"Described {column}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("row", type=int)
@json_option
@client
def history(stoa: Stoa, name_: str, row: int, as_json: bool) -> None:
    """Tell what happened to a ROW."""
    told = stoa.history(name_, row)
    if as_json:
        emit(told)
    else:
        grid(
            ["position", "time", "who", "what"],
            [[str(e["position"]), e["time"][:19].replace("T", " "), e["actor"], e["summary"]] for e in told],
        )


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("parent")
@click.argument("mapping", nargs=-1, required=True)
@click.option("--per", type=click.Choice(["row", "element"]), default="element", show_default=True)
@click.option("--key", "keys", multiple=True, help="An input that tells one row from another.")
@json_option
@client
def link(
    stoa: Stoa, name_: str, parent: str, mapping: tuple[str, ...], per: str, keys: tuple[str, ...], as_json: bool
) -> None:
    """Fill the inputs of a table from a PARENT's columns: INPUT=COLUMN."""
    pairs = dict(word.split("=", 1) for word in mapping if "=" in word)
    if len(pairs) != len(mapping):
        raise Refused("A mapping is of the form INPUT=COLUMN")
    linked = stoa.link(name_, parent, pairs, per=per, keys=keys or None)
    if as_json:
        emit(linked)
    else:
        click.echo(f"{name_} is filled from {parent}.")


@table.command()
@click.argument("name_", metavar="TABLE")
@click.argument("mode", type=click.Choice(["manual", "automatic", "scheduled"]))
@json_option
@client
def mode(stoa: Stoa, name_: str, mode: str, as_json: bool) -> None:
    """Set whether what becomes stale runs by itself."""
    stoa.set_mode(name_, mode)
    if as_json:
        emit({"table": name_, "mode": mode})
        return
    click.echo(f"{name_} runs {_MODES[mode]}.")
