"""What a loaded workflow says about itself that decides whether an earlier run's outputs may be taken.

The engine process uses it, so nothing is imported but cwltool.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cwltool.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cwltool.process import Process

__all__ = ["describe"]

#: Before CWL v1.1 it was an extension, under these names.
_REUSE = frozenset({"WorkReuse", "ReuseRequirement"})


def describe(process: Process) -> dict[str, Any]:
    """Tell what a workflow runs, and whether it may be left to an earlier run.

    Parameters
    ----------
    process
        A loaded tool or workflow.

    Returns
    -------
    dict
        ``programs``, as the tools name them; ``expressions``, whether there is JavaScript; ``reuse``, false if any process,
        requirement or hint in it forbids it, or leaves it to an expression.
    """
    programs: set[str] = set()
    expressions = False
    reuse = True
    for part in _parts(process):
        for requirement in [*part.requirements, *part.hints]:
            kind = str(requirement["class"]).rpartition("#")[2]
            if kind in _REUSE and requirement.get("enableReuse", True) is not True:
                reuse = False
            expressions |= kind == "InlineJavascriptRequirement"
        if part.tool.get("class") == "CommandLineTool":
            programs.update(_programs(part))
    return {"programs": sorted(programs), "expressions": expressions, "reuse": reuse}


def _parts(process: Process) -> Iterator[Process]:
    yield process
    if isinstance(process, Workflow):
        for step in process.steps:
            yield step
            yield from _parts(step.embedded_tool)


def _programs(tool: Process) -> Iterator[str]:
    shell = tool.get_requirement("ShellCommandRequirement")[0] is not None
    if shell:
        yield "/bin/sh"
    command = tool.tool.get("baseCommand")
    first = command[0] if isinstance(command, list) and command else command
    if not first:
        first = _first_argument(tool.tool.get("arguments") or [])
    if not isinstance(first, str) or "$(" in first or "${" in first:
        # Only the inputs say what runs then.
        return
    if shell:
        try:
            words = shlex.split(first)
        except ValueError:
            return
        first = words[0] if words else ""
    if first:
        yield str(first)


def _first_argument(arguments: list[Any]) -> Any:
    placed = []
    for number, argument in enumerate(arguments):
        position = argument.get("position", 0) if isinstance(argument, dict) else 0
        if not isinstance(position, int):
            return None
        placed.append((position, number, argument.get("valueFrom") if isinstance(argument, dict) else argument))
    return min(placed)[2] if placed else None
