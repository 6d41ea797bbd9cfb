"""``stoa status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stoa.output import STATUSES, Markup, client, emit, grid, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["status"]

_SPEED = ("awaited", "rate", "estimated_end")


@click.command()
@click.option("--project", help="Only the tables of this project.")
@json_option
@client
def status(stoa: Stoa, *, project: str | None, as_json: bool) -> None:
    """Count the rows of every table by status, and say how fast they are computed and when that will be done."""
    report = stoa.progress(project=project)
    speeds = {item["table"]: item for item in report["tables"]}
    tables = [item for item in stoa.tables() if project is None or item["id"] in speeds]
    if as_json:
        emit([_summary(item, speeds.get(item["id"], {})) for item in tables])
        return
    shown = [name for name in STATUSES if any(item["counts"].get(name) for item in tables)]
    headers = ["table", "rows", *(f"{STATUSES[name][0]} {name}" for name in shown)]
    rows = [
        [
            item["name"],
            str(item["rows"]),
            *(
                Markup(f"[{STATUSES[name][1]}]{item['counts'][name]}[/]") if item["counts"].get(name) else ""
                for name in shown
            ),
        ]
        for item in tables
    ]
    # What stands still has no speed, and a table in which everything does is easier to read without it.
    if any(item[name] for item in speeds.values() for name in _SPEED):
        headers += ["awaited", "per minute", "done at"]
        for item, row in zip(tables, rows, strict=True):
            speed = speeds.get(item["id"], {})
            row += [str(speed.get("awaited") or ""), _rate(speed.get("rate")), _time(speed.get("estimated_end"))]
    grid(headers, rows, right=headers[1:])


def _summary(item: dict[str, Any], speed: dict[str, Any]) -> dict[str, Any]:
    told = {"table": item["name"], "id": item["id"], "rows": item["rows"], "counts": item["counts"]}
    return told | {name: speed.get(name) for name in _SPEED}


def _rate(per_minute: float | None) -> str:
    return "" if per_minute is None else f"{per_minute:.3g}"


def _time(instant: str | None) -> str:
    return "" if instant is None else f"{instant[:16].replace('T', ' ')} UTC"
