"""How the command shows things to people, and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from stoa.errors import Failure, Refused

__all__ = ["STATUSES", "Markup", "cell", "client", "counted", "emit", "grid", "json_option", "print_rows", "told"]

P = ParamSpec("P")
T = TypeVar("T")

_CLIENT_ERRORS = range(400, 500)

_WIDE = 10_000
_WIDEST_CELL = 36
_BETWEEN = 3
_LEAST_COLUMNS = 3

#: Status to its mark and colour, the same everywhere in Stoa.
STATUSES = {
    "stale": ("◔", "yellow"),
    "queued": ("⋯", "cyan"),
    "running": ("▶", "blue"),
    "current": ("✓", "green"),
    "failed": ("✕", "red"),
    "cancelled": ("⊘", "bright_black"),
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@contextmanager
def told() -> Any:
    """Turn what a server refuses into one sentence and an exit status."""
    from stoa.api import StoaError, UnreachableError

    try:
        yield
    except StoaError as error:
        kind = Refused if error.status in _CLIENT_ERRORS else Failure
        raise kind(str(error)) from error
    except UnreachableError as error:
        raise Failure(str(error)) from error


def client(function: Callable[P, T]) -> Callable[..., T]:
    """Give a command the client as its first argument, and tell its errors."""
    # The annotations stay with the function: click passes by keyword.

    @wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> T:
        from stoa.api import Stoa

        context: AbstractContextManager[None] = told()
        with context, Stoa() as stoa:
            return function(stoa, *arguments, **options)  # type: ignore[arg-type]

    return wrapper


def emit(value: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def cell(value: Any) -> str:
    """Show a value in one line."""
    if value is None:
        return "·"
    if isinstance(value, Mapping):
        if value.get("class") in {"File", "Directory"}:
            return str(
                value.get("basename") or str(value.get("location") or value.get("path")).rstrip("/").split("/")[-1]
            )
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return f"[{len(value)}] " + ", ".join(cell(item) for item in value[:3]) + (" …" if len(value) > 3 else "")  # noqa: PLR2004
    return " ".join(str(value).split())


def counted(counts: Mapping[str, int]) -> str:
    """Show counts per status, with their marks, in rich's markup."""
    parts = []
    for status, (mark, colour) in STATUSES.items():
        if number := counts.get(status):
            parts.append(f"[{colour}]{mark} {number} {status}[/]")
    return "  ".join(parts) or "no rows"


class Markup(str):
    """Text with rich's markup; other text is shown as it is."""

    __slots__ = ()


def grid(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, right: Collection[str] = ()
) -> None:
    """Print a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def shown(text: str) -> str | Text:
        return str(text) if isinstance(text, Markup) else Text(text)

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for header in headers:
        table.add_column(
            shown(header), justify="right" if header in right else "left", overflow="ellipsis", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(shown, row))
    # A pipe has no width: nothing is cut there.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table, crop=sys.stdout.isatty())


def print_rows(
    detail: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]
) -> None:
    """Print rows, or elements, of a table: on a terminal the columns that fit, elsewhere all."""
    lines = [
        [
            str(row["row"]) + (f".{row['element']}" if row.get("element") is not None else ""),
            f"{STATUSES[row['status']][0]} {row['status']}",
            *(cell(row["values"].get(column["name"])) for column in columns),
        ]
        for row in rows
    ]
    headers = ["row", "status", *(column["name"] for column in columns)]
    units = ["", "", *(column.get("unit") or "" for column in columns)]
    widths = [max(map(len, each)) for each in zip(headers, units, *lines, strict=True)]
    count, limit = len(headers), None
    if sys.stdout.isatty():
        count, limit = _fitting(widths), _WIDEST_CELL
    console_headers = [
        Markup(f"{_escaped(header)}\n[dim]{_escaped(unit)}[/]") if unit else header
        for header, unit in zip(headers[:count], units, strict=False)
    ]
    printed: list[list[str]] = []
    for row, line in zip(rows, lines, strict=True):
        colour = STATUSES[row["status"]][1]
        style = "dim" if row.get("outdated") else "not dim"
        values = [Markup(f"[{style}]{_escaped(_cut(value, limit))}[/]") for value in line[2:count]]
        printed.append([line[0], Markup(f"[{colour}]{line[1]}[/]"), *values])
    numeric = {
        console_headers[index]
        for index, column in enumerate(columns[: count - 2], start=2)
        if any(isinstance(row["values"].get(column["name"]), int | float) for row in rows)
    }
    title = ": ".join(filter(None, [detail["name"], detail["description"]]))
    grid(console_headers, printed, title=_escaped(title), right={"row", *numeric})
    for row in rows:
        if row.get("reason"):
            click.echo(f"row {row['row']}: {row['reason']}")
    if count < len(headers):
        hidden = headers[count:]
        click.echo(f"{len(hidden)} more columns do not fit: {', '.join(hidden)}. --columns shows them.")


def _fitting(widths: Sequence[int]) -> int:
    """Tell how many columns fit on the terminal; one beside row and status is always shown."""
    import shutil

    space, count = shutil.get_terminal_size().columns, 0
    for width in widths:
        space -= min(width, _WIDEST_CELL) + _BETWEEN
        if space < -_BETWEEN and count >= _LEAST_COLUMNS:
            break
        count += 1
    return count


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    # The end of a name tells more than its middle.
    return f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
