"""Actions: workflows that are there to be used and changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from stoa_chassis.problems import problem_responses
from stoa_tables.actions.library import Action, find_action, list_actions
from stoa_tables.actions.wrap import wrap
from stoa_tables.handlers.bodies import LimitedRoute
from stoa_tables.problems import InvalidRequestError, NotFoundError

__all__ = ["router"]

router = APIRouter(prefix="/api/actions", tags=["actions"], route_class=LimitedRoute)


class ActionSummary(BaseModel):
    """What an action does."""

    name: str
    label: str
    description: str


class ActionList(BaseModel):
    """The actions in the order of their names."""

    actions: list[ActionSummary]


class TextFile(BaseModel):
    """A file of a workflow."""

    name: str
    content: str


class ActionDetail(ActionSummary):
    """An action with its files, which make a workflow as they are."""

    main: str = Field(description="The file that holds the process.")
    files: list[TextFile]


class CommandLine(BaseModel):
    """A command as it is typed in a shell."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"command": "sex img.fits -c default.sex"}]}
    )

    command: str = Field(min_length=1, max_length=20_000)


class WrappedCommand(BaseModel):
    """A CWL document that runs a command."""

    main: str = Field(description="What to call the document.")
    document: str = Field(description="CWL v1.2, in YAML.")
    needs: list[str] = Field(description="Scripts that belong beside the document.")
    notes: list[str] = Field(description="What had to be guessed, for people.")


@router.get("", summary="List the actions")
async def get_actions() -> ActionList:
    """List the workflows that come with Stoa."""
    return ActionList(
        actions=[
            ActionSummary(name=action.name, label=action.label, description=action.description)
            for action in list_actions()
        ]
    )


@router.post("/wrap", summary="Wrap a command line", responses=problem_responses(InvalidRequestError))
async def wrap_command(command: CommandLine) -> WrappedCommand:
    """Write a CWL document that runs a command: what stands in it becomes inputs, what it writes becomes outputs."""
    wrapped = wrap(command.command)
    return WrappedCommand(
        main=f"{wrapped.name}.cwl", document=wrapped.document, needs=list(wrapped.needs), notes=list(wrapped.notes)
    )


@router.get("/{name}", summary="Show an action", responses=problem_responses(NotFoundError))
async def get_action(name: Annotated[str, Path(description="Name of the action.", max_length=100)]) -> ActionDetail:
    """Give an action with its files."""
    action: Action | None = find_action(name)
    if action is None:
        names = ", ".join(known.name for known in list_actions())
        raise NotFoundError(f"There is no action {name!r}; there are {names}")
    return ActionDetail(
        name=action.name,
        label=action.label,
        description=action.description,
        main=action.main,
        files=[TextFile(name=file, content=content) for file, content in action.files.items()],
    )
