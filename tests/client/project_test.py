"""Project files: what is read, what is refused, and what is created."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from stoa.bundles import bundle, referred_files
from stoa.errors import Refused
from stoa.project import read_project
from tests.client.conftest import Command
from tests.support.stoa import TRIVIAL_TOOL, RunningStoa

EXAMPLES = Path(__file__).parents[2] / "examples"
SURVEY = EXAMPLES / "alma-survey" / "project.yaml"
SCHEMA = jsonschema.Draft202012Validator(json.loads((EXAMPLES / "project.schema.json").read_text()))


def test_the_example_is_read_with_its_variables() -> None:
    project = read_project(SURVEY, {"ARCHIVE": "file:///data/archive"})
    assert project.project == "alma-survey"
    assert project.tables[0].rows == [{"archive": {"class": "Directory", "location": "file:///data/archive"}}]
    join = project.tables[-1].join
    assert join is not None
    assert join.numbered()["flux"] == "0.flux"
    assert join.numbered()["object"] == "1.object"


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(Refused, match="--var ARCHIVE="):
        read_project(SURVEY, {})


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    document = copy.deepcopy(YAML(typ="safe").load(SURVEY.read_text()))
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("project",), None),
        (("project",), "no name"),
        (("tables",), []),
        (("colour",), "red"),
        (("tables", 0, "name"), "1st"),
        (("tables", 0, "mode"), "sometimes"),
        (("tables", 0, "workflow"), None),
        (("tables", 0, "workflow", "main"), None),
        (("tables", 0, "rows"), [3]),
        (("tables", 1, "links", 0, "per"), "column"),
        (("tables", 1, "links", 0, "keys"), []),
        (("tables", 1, "links", 0, "mapping"), {}),
        (("tables", 1, "join"), {"kind": "inner"}),
        (("tables", 2, "columns", "image", "ucd"), 3),
        (("tables", 4, "join", "kind"), "outer"),
        (("tables", 4, "join", "match"), [["member"]]),
        (("tables", 4, "join", "columns"), {}),
        (("tables", 4, "rows"), [{}]),
        (("tables", 4, "mode"), "manual"),
    ],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else None,
)
def test_what_the_schema_refuses_is_refused_with_its_place(
    tmp_path: Path, path: tuple[str | int, ...], value: Any
) -> None:
    document = changed(path, value)
    assert not SCHEMA.is_valid(document)
    file = tmp_path / "project.yaml"
    file.write_text(json.dumps(document))
    with pytest.raises(Refused) as told:
        read_project(file, {"ARCHIVE": "x"})
    assert str(file) in told.value.message
    assert str(path[0]) in told.value.message


@pytest.mark.parametrize(("text", "said"), [("tables: [", "YAML"), ("", "project file"), ("- 1", "project file")])
def test_a_file_that_is_no_project_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "project.yaml"
    file.write_text(text)
    with pytest.raises(Refused, match=said):
        read_project(file, {})


PROJECT = """\
project: small
tables:
  - name: first-%(suffix)s
    description: The ${WHAT}.
    mode: manual
    workflow: {main: tools/tool.cwl}
    rows: [{number: 1}, {number: 2}]
    columns: {number: {unit: Jy}}
  - name: second-%(suffix)s
    workflow: {main: tools/tool.cwl}
    links: [{parent: first-%(suffix)s, per: row, mapping: {number: number}, keys: [number]}]
    columns: {text: {label: What was said}}
"""


def write_project(folder: Path, suffix: str) -> Path:
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "tool.cwl").write_text(TRIVIAL_TOOL)
    file = folder / "project.yaml"
    file.write_text(PROJECT % {"suffix": suffix})
    return file


def test_a_project_is_created_once(at_stoa: Command, stoa: RunningStoa, tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", "once")
    loaded = at_stoa("project", "load", file, "--var", "WHAT=numbers", "--json").json
    assert loaded == {"tables": ["first-once", "second-once"]}
    first = at_stoa("table", "show", "first-once", "--json").json
    assert first["table"]["description"] == "The numbers."
    assert first["table"]["project"] == "small"
    assert [row["values"]["number"] for row in first["rows"]] == [1, 2]
    assert next(c["unit"] for c in first["table"]["columns"] if c["name"] == "number") == "Jy"
    # The link fills the second table in the command that adds the rows.
    assert stoa.counts("second-once") == {"stale": 2}
    head = stoa.head("tables")
    assert at_stoa("project", "load", file, "--var", "WHAT=numbers").output == ""
    assert stoa.head("tables") == head


def test_an_interrupted_load_is_completed(at_stoa: Command, tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", "later")
    # The interruption came between the first table and its rows.
    at_stoa("table", "create", "first-later", "--cwl", tmp_path / "project" / "tools" / "tool.cwl")
    loaded = at_stoa("project", "load", file, "--var", "WHAT=numbers")
    assert loaded.output == "Creating second-later\n", loaded.errors
    first = at_stoa("table", "show", "first-later", "--json").json
    assert [row["values"]["number"] for row in first["rows"]] == [1, 2]
    assert next(c["unit"] for c in first["table"]["columns"] if c["name"] == "number") == "Jy"


def test_a_missing_workflow_file_is_named(at_stoa: Command, tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", "missing")
    (tmp_path / "project" / "tools" / "tool.cwl").unlink()
    answer = at_stoa("project", "load", file, "--var", "WHAT=numbers")
    assert answer.status == 2
    assert "tool.cwl cannot be read" in answer.errors


# --- the files of a workflow -------------------------------------------------------------------------------------------


def test_referred_files_of_the_example_are_those_that_it_names() -> None:
    sources = EXAMPLES / "alma-survey" / "sources"
    assert {file.name for file in referred_files(sources / "sources.cwl")} >= {"correct.cwl", "find_sources.cwl"}


def test_documents_includes_and_default_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "main.cwl").write_text(
        "class: Workflow\n"
        "inputs: {run: string, path: string}\n"
        "steps:\n"
        "  one: {run: steps/one.cwl, in: {run: run}, out: [x]}\n"
        "  two: {run: '#inside', in: [], out: []}\n"
        "  three: {run: 'https://example.org/three.cwl', in: [], out: []}\n"
    )
    (tmp_path / "steps" / "one.cwl").write_text(
        "class: CommandLineTool\n"
        "requirements: {InlineJavascriptRequirement: {expressionLib: [{$include: ../library.js}]}}\n"
        "inputs: {script: {type: File, default: {class: File, location: ../script.py}}}\n"
        "arguments: [{valueFrom: $(inputs.path)}]\n"
    )
    (tmp_path / "library.js").write_text("")
    (tmp_path / "script.py").write_text("")
    found = referred_files(tmp_path / "main.cwl")
    assert set(bundle(tmp_path / "main.cwl", found)) == {"main.cwl", "steps/one.cwl", "library.js", "script.py"}


def test_a_reference_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.cwl").write_text("steps: {one: {run: one.cwl, in: [], out: []}}")
    with pytest.raises(Refused, match=r"one\.cwl, and there is no such file"):
        referred_files(tmp_path / "main.cwl")


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    for file in (tmp_path / "outside.py", tmp_path / "inside" / "main.cwl"):
        file.write_text("")
    with pytest.raises(Refused, match="lies outside"):
        bundle(tmp_path / "inside" / "main.cwl", [tmp_path / "outside.py"])
