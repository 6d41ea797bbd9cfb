"""``stoa table import`` and ``stoa table export``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import cell, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["export", "import_"]

_FORMATS = ("csv", "ecsv", "fits", "votable", "parquet")
_SUFFIXES = {
    ".csv": "csv",
    ".ecsv": "ecsv",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SHOWN = 10


@click.command("import")
@click.argument("words", metavar="[TABLE] FILE", nargs=-1, required=True)
@click.option("--name", help="What a new table is called; default: as the file.")
@click.option("--format", "format_", help="fits, votable, csv, ecsv or parquet, where the file does not tell.")
@click.option("--description", default="", help="What a new table holds.")
@click.option("--map", "pairs", metavar="A=B", multiple=True, help="The file's column A fills the table's column B.")
@click.option("--preview", is_flag=True, help="Show what would be imported, and change nothing.")
@click.option("--partial", is_flag=True, help="Import the rows that can be taken, where others cannot.")
@json_option
@client
def import_(
    stoa: Stoa,
    words: tuple[str, ...],
    name: str | None,
    format_: str | None,
    description: str,
    pairs: tuple[str, ...],
    preview: bool,
    partial: bool,
    as_json: bool,
) -> None:
    """Add the rows of a FITS, VOTable, CSV, ECSV or Parquet FILE to a TABLE, or make a plain table of it."""
    table, file = _table_and_file(words)
    if table is not None and (name or description):
        raise Refused("--name and --description are for a new table; TABLE exists")
    mapping = _mapping(pairs)
    if preview:
        shown = stoa.preview_import(file, table, format=format_, mapping=mapping)
        emit(shown) if as_json else _show(shown)
        return
    if table is None:
        new = name or file.name.split(".")[0]
        more = {key: value for key, value in (("format", format_), ("description", description)) if value}
        done = stoa.import_table(file, new, mapping=mapping, partial=partial, **more)
        report = done["report"]
        told = f"Imported {done['rows']} rows and {len(done['columns'])} columns as {done['name']}."
    else:
        done = report = stoa.import_rows(table, file, format=format_, mapping=mapping, partial=partial)
        told = f"Imported {done['accepted']} rows into {table}."
    if as_json:
        emit(done)
        return
    click.echo(told)
    _tell(report)


def _table_and_file(words: Sequence[str]) -> tuple[str | None, Path]:
    if len(words) > 2:  # noqa: PLR2004 - a table and a file
        raise Refused("One TABLE and one FILE are imported at a time")
    file = Path(words[-1])
    if not file.is_file():
        raise Refused(f"There is no file {file}")
    return (words[0] if len(words) > 1 else None), file


def _mapping(pairs: Sequence[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        theirs, sign, ours = pair.partition("=")
        if not sign or not theirs or not ours:
            raise Refused(f"'{pair}' is not of the form A=B, column of the file and column of the table")
        mapping[theirs] = ours
    return mapping


def _show(shown: Mapping[str, Any]) -> None:
    click.echo(f"{shown['accepted']} of {shown['rows']} rows would be imported.")
    headers = ["in the file", "in the table", "matched by", "unit"]
    lines = [
        [
            column["file_column"],
            column["column"],
            column["matched_by"],
            column["problem"] or column["note"] or column["unit"] or "",
        ]
        for column in shown["columns"]
    ]
    grid(headers, lines)
    names = list(shown["first"][0]) if shown["first"] else []
    if names:
        grid(names, [[cell(row[name]) for name in names] for row in shown["first"][:_SHOWN]])
    _tell(shown)


def _tell(report: Mapping[str, Any]) -> None:
    """Say what was not taken, and what was changed."""
    for name, why in report["unmatched_file_columns"].items():
        click.echo(f"{name} is not read. {why}", err=True)
    if report["unmatched_columns"]:
        click.echo(f"Not filled by the file: {', '.join(report['unmatched_columns'])}.", err=True)
    for column in report["columns"]:
        if column["note"]:
            click.echo(f"{column['column']}: {column['note']}", err=True)
    for note in report["notes"]:
        click.echo(note, err=True)
    for row in report["rejected"][:_SHOWN]:
        place = f"line {row['line']}" if row["line"] else f"row {row['row']}"
        click.echo(f"{place}: {' '.join(row['problems'])}", err=True)
    if report["rejected_total"]:
        click.echo(f"Rows that cannot be taken: {report['rejected_total']}.", err=True)


@click.command()
@click.argument("name_", metavar="TABLE")
@click.argument("target", metavar="FILE")
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Where the name of the file does not tell.")
@click.option("--elements", is_flag=True, help="A line for each element of the outputs.")
@click.option("--filter", "filters", multiple=True, help="'COLUMN OP VALUE'; all of them must hold.")
@click.option("--status", help="Only rows of this status.")
@click.option("--sort", help="Columns, comma separated, with a minus for descending.")
@click.option("--columns", help="Columns, comma separated; also row, element, status and revision.")
@click.option("--as-of", help="As it was at a position of the log, or at a time such as 2026-03-01T20:00:00Z.")
@click.option("--force", is_flag=True, help="Replace the file where there is one.")
@client
def export(
    stoa: Stoa,
    name_: str,
    target: str,
    format_: str | None,
    elements: bool,
    filters: tuple[str, ...],
    status: str | None,
    sort: str | None,
    columns: str | None,
    as_of: str | None,
    force: bool,
) -> None:
    """Write a TABLE to a FILE as CSV, ECSV, FITS, VOTable or Parquet, or to standard output (-)."""
    path = Path(target)
    chosen = format_ or ("csv" if target == "-" else _SUFFIXES.get(path.suffix.lower()))
    if chosen is None:
        raise Refused(f"The name {path.name} tells no format; --format says one of {', '.join(_FORMATS)}")
    asked = {"view": "elements" if elements else "rows", "filter": list(filters)}
    more = {"status": status, "sort": sort, "columns": columns, "as_of": as_of}
    asked |= {key: value for key, value in more.items() if value}
    if target == "-":
        stoa.export(name_, sys.stdout.buffer, format=chosen, **asked)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not force:
        raise Refused(f"There is a file {path} already; --force replaces it")
    partly = path.with_name(f".{path.name}.part")
    try:
        with partly.open("wb") as file:
            size = stoa.export(name_, file, format=chosen, **asked)
        # What breaks off leaves no half file under the name.
        partly.replace(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partly.unlink(missing_ok=True)
    click.echo(f"Exported {name_} as {path} ({size:,} bytes).")
