"""``stoa action``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stoa.errors import Refused
from stoa.output import Markup, client, emit, grid, json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stoa.api import Stoa

__all__ = ["action"]


@click.group()
def action() -> None:
    """Use workflows that come with Stoa, or make one of a command line."""


@action.command("ls")
@json_option
@client
def list_actions(stoa: Stoa, as_json: bool) -> None:
    """List the actions."""
    actions = stoa.request("GET", "/api/actions")["actions"]
    if as_json:
        emit(actions)
    else:
        rows: list[list[Markup | str]] = [[item["name"], item["label"], item["description"]] for item in actions]
        grid(["action", "what", "description"], rows)


def _files(stoa: Stoa, name: str) -> dict[str, Any]:
    found: dict[str, Any] = stoa.request("GET", f"/api/actions/{name}")
    return found


@action.command()
@click.argument("name")
@click.argument("table", required=False)
@click.option("--project", default="default", show_default=True, help="The project the table belongs to.")
@json_option
@client
def use(stoa: Stoa, name: str, table: str | None, *, project: str, as_json: bool) -> None:
    """Create the worktable TABLE that runs the action NAME; without TABLE it is called like the action."""
    found = _files(stoa, name)
    files = {file["name"]: file["content"].encode() for file in found["files"]}
    created = stoa.create_worktable(
        table or name, files, main=found["main"], description=found["description"], project=project
    )
    if as_json:
        emit(created)
    else:
        inputs = [column["name"] for column in created["columns"] if column["role"] == "input"]
        click.echo(f"Created {created['name']} with the inputs {', '.join(inputs)}.")


@action.command()
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@json_option
@client
def copy(stoa: Stoa, name: str, folder: Path | None, as_json: bool) -> None:
    """Copy the files of the action NAME into FOLDER, to change them; without FOLDER it is called like the action."""
    found = _files(stoa, name)
    target = folder or Path(name)
    _write(target, {file["name"]: file["content"] for file in found["files"]})
    if as_json:
        emit({"folder": str(target), "main": found["main"], "files": [file["name"] for file in found["files"]]})
    else:
        click.echo(f"Wrote {', '.join(file['name'] for file in found['files'])} into {target}.")
        click.echo(f"Change them, then: stoa table create NAME --cwl {target / found['main']}")


@action.command()
@click.argument("command")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the document into this file."
)
@json_option
@client
def wrap(stoa: Stoa, command: str, *, output: Path | None, as_json: bool) -> None:
    """Write a CWL document that runs COMMAND, a command line in quotes, such as 'sex img.fits -c default.sex'.

    What stands in the command becomes the inputs of a table: numbers and texts with their value as the default. What had to
    be guessed is told on standard error.
    """
    wrapped = stoa.request("POST", "/api/actions/wrap", json={"command": command})
    if output is not None:
        _write(output.parent, {output.name: wrapped["document"]})
    if as_json:
        emit(wrapped)
        return
    if output is None:
        click.echo(wrapped["document"], nl=False)
    for note in wrapped["notes"]:
        click.echo(f"Note: {note}", err=True)
    for script in wrapped["needs"]:
        click.echo(f"Note: put {script} beside the document.", err=True)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise Refused(f"{folder / there[0]} is there already; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{folder} cannot be written: {error.strerror}") from error
