"""Project files: the worktables of a project, declared in YAML and created where they are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stoa.bundles import bundle
from stoa.errors import Refused

if TYPE_CHECKING:
    from stoa.api import Stoa

__all__ = ["ProjectFile", "load_project", "read_project"]


_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkflowPart(_Part):
    """The files of a worktable's workflow."""

    main: str
    files: list[str] = []


class LinkPart(_Part):
    """Rows that follow from the rows of a parent."""

    parent: str
    per: Literal["row", "element"]
    mapping: dict[str, str] = Field(min_length=1)
    keys: list[str] = Field(min_length=1)


class JoinPart(_Part):
    """A row for each pair of elements of two tables that agree."""

    kind: Literal["inner", "left"]
    left: str
    right: str
    match: list[tuple[str, str]] = Field(min_length=1)
    columns: dict[str, str] = Field(min_length=1)

    def numbered(self) -> dict[str, str]:
        """Write TABLE.COLUMN as the number of the parent and the column."""
        sides = {self.left: "0", self.right: "1"}
        numbered = {}
        for name, source in self.columns.items():
            table, _, column = source.partition(".")
            if table not in sides:
                raise Refused(
                    f"The join's column {name} comes from {table}, which is neither {self.left} nor {self.right}"
                )
            numbered[name] = f"{sides[table]}.{column}"
        return numbered


class ColumnPart(_Part):
    """What a column means."""

    label: str | None = None
    description: str | None = None
    unit: str | None = None
    ucd: str | None = None
    utype: str | None = None


class TablePart(_Part):
    """One table."""

    name: str = Field(pattern=_NAME)
    description: str = ""
    mode: Literal["manual", "automatic"] | None = None
    workflow: WorkflowPart | None = None
    rows: list[dict[str, Any]] = []
    links: list[LinkPart] = []
    join: JoinPart | None = None
    columns: dict[str, ColumnPart] = {}

    @model_validator(mode="after")
    def _is_one_of_two(self) -> TablePart:
        if (self.workflow is None) == (self.join is None):
            raise ValueError("a table has either a workflow or a join")
        if self.join is not None and (self.rows or self.links or self.mode):
            raise ValueError("a join has no rows, links or mode of its own")
        return self


class ProjectFile(_Part):
    """A whole project file."""

    project: str = Field(pattern=_NAME)
    description: str = ""
    tables: list[TablePart] = Field(min_length=1)


def read_project(path: Path, variables: Mapping[str, str]) -> ProjectFile:
    """Read a project file and put in the values of its variables.

    Parameters
    ----------
    path
        The YAML file.
    variables
        What stands for ``${NAME}`` in its strings.

    Raises
    ------
    Refused
        If it cannot be read, is not a project file, or names a variable that has no value.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(path.read_text())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    except YAMLError as error:
        raise Refused(f"{path} is not YAML: {' '.join(str(error).split())}") from error

    def put(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", lambda match: _value(match[1]), value)
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        return [put(item) for item in value] if isinstance(value, list) else value

    def _value(name: str) -> str:
        if name not in variables:
            raise Refused(f"{path} wants a value for {name}: --var {name}=…")
        return variables[name]

    try:
        return ProjectFile.model_validate(put(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"{path} is no project file: {where or 'the document'}: {first['msg']}") from error


def load_project(stoa: Stoa, path: Path, variables: Mapping[str, str], say: Callable[[str], None]) -> list[str]:
    """Create the tables of a project that do not exist yet, in their order.

    Parameters
    ----------
    stoa
        Where to.
    path
        The project file; the paths in it are relative to it.
    variables
        Values for ``${NAME}``.
    say
        Told each step.

    Returns
    -------
    list of str
        The names of the project's tables.
    """
    project = read_project(path, variables)
    present = {table["name"] for table in stoa.tables()}
    for index, part in enumerate(project.tables):
        following = project.tables[index + 1 : index + 2]
        if part.name not in present:
            say(f"Creating {part.name}")
            _complete(stoa, part, _create(stoa, part, project.project, path.parent), path)
        elif following and following[0].name not in present:
            # Whoever loaded it before was interrupted, perhaps in the middle of this table.
            _complete(stoa, part, stoa.table(part.name), path)
    return [part.name for part in project.tables]


def _complete(stoa: Stoa, part: TablePart, table: Mapping[str, Any], path: Path) -> None:
    """Do what is still missing of a table that was created."""
    columns = {column["name"]: column for column in table["columns"]}
    for name, meaning in part.columns.items():
        if name not in columns:
            raise Refused(f"{path} describes the column {name}, which {part.name} does not have")
        said = meaning.model_dump(exclude_none=True)
        if any(columns[name].get(key) != value for key, value in said.items()):
            stoa.describe_column(part.name, name, **said)
    linked = {parent for link in table["links"] for parent in link["parents"]}
    for link in part.links:
        if stoa.table(link.parent)["id"] not in linked:
            stoa.link(part.name, link.parent, link.mapping, per=link.per, keys=link.keys)
    if part.rows and not table["rows"]:
        stoa.add_rows(part.name, part.rows)
    if part.mode is not None:
        stoa.set_mode(part.name, part.mode)


def _create(stoa: Stoa, part: TablePart, project: str, folder: Path) -> dict[str, Any]:
    if part.workflow is not None:
        main = folder / part.workflow.main
        files = bundle(main, [folder / file for file in part.workflow.files])
        return stoa.create_worktable(part.name, files, main=main.name, description=part.description, project=project)
    assert part.join is not None  # noqa: S101 - the model holds one of the two
    join = {
        "kind": part.join.kind,
        "left": part.join.left,
        "right": part.join.right,
        "on": part.join.match,
        "columns": part.join.numbered(),
    }
    return stoa.create_table(part.name, kind="join", join=join, description=part.description, project=project)
