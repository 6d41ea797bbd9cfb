"""``stoa project``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoa.errors import Refused
from stoa.output import client, emit, json_option

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["project"]


@click.group()
def project() -> None:
    """Create the tables of a project file."""


@project.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="What ${NAME} stands for in the file.")
@json_option
@client
def load(stoa: Stoa, file: Path, variables: tuple[str, ...], as_json: bool) -> None:
    """Create the tables of FILE that do not exist yet; those that do are left as they are."""
    from stoa.project import load_project

    pairs = dict(word.split("=", 1) for word in variables if "=" in word)
    if len(pairs) != len(variables):
        raise Refused("A variable is of the form NAME=VALUE")
    names = load_project(stoa, file, pairs, (lambda _: None) if as_json else click.echo)
    if as_json:
        emit({"tables": names})
