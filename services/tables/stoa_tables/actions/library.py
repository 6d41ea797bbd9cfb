"""The actions that come with Stoa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import StringIO

from ruamel.yaml import YAML

__all__ = ["Action", "find_action", "list_actions"]


@dataclass(frozen=True, slots=True)
class Action:
    """A workflow that can be given to a worktable as it is."""

    name: str
    label: str
    description: str
    main: str
    """The file that holds the process."""
    files: Mapping[str, str]
    """Name to text."""


@cache
def list_actions() -> tuple[Action, ...]:
    """List the actions in the order of their names."""
    library = files("stoa_tables.actions") / "library"
    found = []
    for folder in sorted(library.iterdir(), key=lambda item: item.name):
        if folder.is_dir():
            texts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}
            main = f"{folder.name}.cwl"
            document = YAML(typ="safe").load(StringIO(texts[main]))
            described = " ".join(document["doc"].split())
            found.append(Action(folder.name, document["label"], described, main, dict(sorted(texts.items()))))
    return tuple(found)


def find_action(name: str) -> Action | None:
    """Find an action by its name."""
    return next((action for action in list_actions() if action.name == name), None)
