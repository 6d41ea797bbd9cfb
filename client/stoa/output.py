"""How the command shows things to people, and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from stoa.errors import Failure, Refused

__all__ = ["STATUSES", "cell", "client", "counted", "emit", "grid", "json_option", "told"]

P = ParamSpec("P")
T = TypeVar("T")

_CLIENT_ERRORS = range(400, 500)

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
        return str(value.get("basename") or value.get("location") or json.dumps(value, ensure_ascii=False))
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return f"[{len(value)}] " + ", ".join(cell(item) for item in value[:3]) + (" …" if len(value) > 3 else "")  # noqa: PLR2004
    return str(value)


def counted(counts: Mapping[str, int]) -> str:
    """Show counts per status, with their marks, in rich's markup."""
    parts = []
    for status, (mark, colour) in STATUSES.items():
        if number := counts.get(status):
            parts.append(f"[{colour}]{mark} {number} {status}[/]")
    return "  ".join(parts) or "no rows"


def grid(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, right: Sequence[str] = ()
) -> None:
    """Print a table for people; cells may hold rich's markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: nothing is cut there.
    Console(width=None if sys.stdout.isatty() else 250).print(table)
