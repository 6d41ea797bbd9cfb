"""What a user types, at a running Stoa."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.client.conftest import Command
from tests.support.stoa import RunningStoa

ADDS = """\
cwlVersion: v1.2
class: CommandLineTool
doc: Adds two numbers.
requirements: {InlineJavascriptRequirement: {}}
baseCommand: ["true"]
inputs:
  a: {type: int}
  b: {type: "int?"}
  name: {type: string, default: unnamed}
outputs:
  sum: {type: int, outputBinding: {outputEval: "$(inputs.a + (inputs.b === null ? 0 : inputs.b))"}}
"""

FAILS_ON_ODD = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'test $(($0 % 2)) = 0 || { echo "$0 is odd" >&2; exit 3; }']
inputs:
  number: {type: int, inputBinding: {position: 1}}
outputs:
  text: {type: stdout}
stdout: text.txt
"""


@pytest.fixture
def adding(at_stoa: Command, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A worktable that adds."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    document = tmp_path / "add.cwl"
    document.write_text(ADDS)
    created = at_stoa("table", "create", name, "--cwl", document, "--json").json
    assert [column["name"] for column in created["columns"]] == ["a", "b", "name", "sum"]
    return name


def test_a_table_is_filled_run_watched_and_shown(at_stoa: Command, adding: str) -> None:
    assert at_stoa("table", "add", adding, "a=1", "b=2").output == "Added row 1.\n"
    assert at_stoa("table", "add", adding, "--csv", "-", input="a,b,name\n3,4,x\n5,,y\n").output == "Added 2 rows.\n"
    assert at_stoa("table", "add", adding, "--json-rows", "-", "--json", input='[{"a": 7}]').json["rows"] == [4]

    ran = at_stoa("table", "run", adding, "--watch")
    assert ran.status == 0, ran.errors
    assert ran.output.splitlines() == ["Queued 4 jobs.", "The run has ended: 4 succeeded."]

    shown = at_stoa("table", "show", adding, "--json").json
    assert [row["values"]["sum"] for row in shown["rows"]] == [3, 7, 5, 7]
    assert {row["status"] for row in shown["rows"]} == {"current"}
    sums = at_stoa("table", "show", adding, "--filter", "sum>5", "--sort", "-a", "--json").json
    assert [row["row"] for row in sums["rows"]] == [4, 2]

    for_people = at_stoa("table", "show", adding, "--limit", "2", "--columns", "sum,a").output
    assert re.search(r"1 +✓ current +3 +1\b", for_people)
    assert "Only the first 2 are shown" in for_people
    assert "name" not in for_people


def test_a_workflow_is_given_as_its_document_or_as_its_files(at_stoa: Command, tmp_path: Path) -> None:
    (tmp_path / "main.cwl").write_text(
        "cwlVersion: v1.2\nclass: Workflow\ninputs: {a: int}\noutputs: {sum: {type: int, outputSource: add/sum}}\n"
        "steps: {add: {run: add.cwl, in: {a: a}, out: [sum]}}\n"
    )
    (tmp_path / "add.cwl").write_text(ADDS)
    (tmp_path / "notes.txt").write_text("beside the point")
    files = [tmp_path / name for name in ("main.cwl", "add.cwl", "notes.txt")]

    def names(*arguments: object) -> set[str]:
        return {file["name"] for file in at_stoa("table", "create", *arguments, "--json").json["workflow"]["files"]}

    assert names("document-alone", files[0]) == {"main.cwl", "add.cwl"}
    assert names("all-files", *files) == {"main.cwl", "add.cwl", "notes.txt"}
    assert names("named-document", "--cwl", *files[:2]) == {"main.cwl", "add.cwl"}
    refused = at_stoa("table", "create", "no-document")
    assert refused.status == 2
    assert "CWL document" in refused.errors


def test_an_edit_makes_a_row_stale_and_guards_against_others(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "add", adding, "a=1")
    edited = at_stoa("table", "edit", adding, 1, "b=10", "name=10", "--json").json
    # The value of a text column stays text, whatever it looks like.
    assert edited["values"] | {"sum": None} == {"a": 1, "b": 10, "name": "10", "sum": None}
    late = at_stoa("table", "edit", adding, 1, "b=11", "--if-revision", edited["revision"] - 1)
    assert late.status == 2
    assert late.errors.startswith("stoa: ")
    assert (
        at_stoa("table", "edit", adding, 1, "b=null", "--if-revision", edited["revision"], "--json").json["values"]["b"]
        is None
    )
    history = at_stoa("table", "history", adding, 1, "--json").json
    assert [event["type"] for event in history][:2] == ["rows-added", "row-edited"]
    assert at_stoa("table", "history", adding, 1).status == 0


def test_rows_are_removed_and_a_table_deleted(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "add", adding, "--json-rows", "-", input='[{"a": 1}, {"a": 2}, {"a": 3}]')
    assert at_stoa("table", "rm", adding, 1, 3).output == "Removed 2 rows.\n"
    assert [row["row"] for row in at_stoa("table", "show", adding, "--json").json["rows"]] == [2]
    assert at_stoa("table", "delete", adding, input="n\n").status == 1
    assert at_stoa("table", "delete", adding, "--yes", "--json").json == {"deleted": adding}
    assert at_stoa("table", "show", adding).status == 2


def test_a_run_that_fails_exits_with_1_and_says_why(at_stoa: Command, stoa: RunningStoa) -> None:
    stoa.create_worktable("odd", FAILS_ON_ODD)
    at_stoa("table", "add", "odd", "--csv", "-", input="number\n1\n2\n3\n")
    ran = at_stoa("table", "run", "odd", "--watch")
    assert ran.status == 1
    assert "2 failed" in ran.output
    assert "1 succeeded" in ran.output
    watched = at_stoa("table", "watch", "odd", "--json")
    assert watched.status == 1
    assert json.loads(watched.output)["failed"] == 2
    shown = at_stoa("table", "show", "odd", "--status", "failed")
    assert re.search(r"^row 1: .*", shown.output, re.MULTILINE)
    status = at_stoa("status", "--json").json
    assert next(item["counts"] for item in status if item["table"] == "odd") == {"current": 1, "failed": 2}
    assert re.search(r"odd +3 +1 +2", at_stoa("status").output)
    at_stoa("table", "edit", "odd", 1, "number=4")
    assert at_stoa("table", "run", "odd", 1, "--watch", "--json").json["states"] == {"succeeded": 1}


def test_watch_follows_tables_until_nothing_is_left(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "add", adding, "--json-rows", "-", input=json.dumps([{"a": number} for number in range(20)]))
    at_stoa("table", "mode", adding, "automatic")
    deadline = time.monotonic() + 30
    while "current" not in at_stoa("table", "watch", adding, "--json").json["counts"].popitem()[1]:
        # What is automatic is queued a moment later.
        assert time.monotonic() < deadline
    assert at_stoa("table", "watch", adding).output == "Nothing is queued or running.\n"
    rows = at_stoa("table", "show", adding, "--json").json["rows"]
    assert [row["values"]["sum"] for row in rows] == list(range(20))


def test_jobs_are_cancelled(at_stoa: Command, stoa: RunningStoa) -> None:
    stoa.create_worktable("sleeping", "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: [sleep]\ninputs: "
                          "{s: {type: int, inputBinding: {position: 1}}}\noutputs: []\n")  # fmt: skip
    at_stoa("table", "add", "sleeping", "--csv", "-", input="s\n" + "60\n" * 5)
    assert at_stoa("table", "run", "sleeping", "--json").json["jobs"] == 5
    assert at_stoa("cancel", "sleeping", 5, "--json").json == {"cancelled": 1}
    assert at_stoa("cancel", "sleeping").output == "4 jobs were cancelled.\n"
    assert stoa.settle("sleeping")["sleeping"] == {"cancelled": 5}


def test_a_table_is_filled_from_another(at_stoa: Command, adding: str, tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text("number,object\n4,Cen A\n5,M 87\n")
    name = adding.replace("filled", "parent")
    imported = at_stoa("table", "import", tmp_path / "catalogue.csv", "--name", name)
    assert imported.output == f"Imported 2 rows and 2 columns as {name}.\n", imported.errors
    described = at_stoa("table", "describe", name, "number", "--unit", "Jy", "--ucd", "phot.flux.density", "--json")
    assert described.status == 0, described.errors
    assert at_stoa("table", "describe", name, "number").status == 2
    linked = at_stoa("table", "link", adding, name, "a=number", "name=object", "--key", "name")
    assert linked.status == 0, linked.errors
    at_stoa("table", "run", adding, "--watch")
    rows = at_stoa("table", "show", adding, "--json").json["rows"]
    assert [(row["values"]["name"], row["values"]["sum"]) for row in rows] == [("Cen A", 4), ("M 87", 5)]
    listed = {table["name"]: table for table in at_stoa("table", "ls", "--json").json}
    assert listed[name]["kind"] == "plain"
    assert "Jy" in at_stoa("table", "show", name).output


def test_elements_are_shown_one_by_one(at_stoa: Command, stoa: RunningStoa) -> None:
    stoa.create_worktable(
        "elements",
        "cwlVersion: v1.2\nclass: ExpressionTool\nrequirements: {InlineJavascriptRequirement: {}}\n"
        "inputs: {n: int}\noutputs: {x: {type: 'int[]'}, y: {type: 'int[]'}}\n"
        'expression: "${var x = []; for (var i = 0; i < inputs.n; i++) x.push(i); return {x: x, y: x};}"\n',
    )
    at_stoa("table", "add", "elements", "n=3")
    assert at_stoa("table", "run", "elements", "--watch").status == 0
    elements = at_stoa("table", "show", "elements", "--elements", "--json").json["elements"]
    assert [(item["element"], item["values"]["x"]) for item in elements] == [(0, 0), (1, 1), (2, 2)]
    assert re.search(r"1\.2 +✓ current +3 +2 +2", at_stoa("table", "show", "elements", "--elements").output)


COUNTS_WORDS = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [cat]
inputs:
  texts: {type: "File[]", inputBinding: {position: 1}}
  more: {type: "File?", inputBinding: {position: 2}}
outputs:
  all: {type: string, outputBinding: {glob: all.txt, loadContents: true, outputEval: "$(self[0].contents)"}}
stdout: all.txt
"""


def test_files_of_this_machine_are_brought_along(at_stoa: Command, stoa: RunningStoa, tmp_path: Path) -> None:
    stoa.create_worktable("words", COUNTS_WORDS)
    paths = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for path in paths:
        path.write_text(f"{path.name} ")
    at_stoa("table", "add", "words", f"texts=@{paths[0]},@{paths[1]}")
    at_stoa("table", "edit", "words", 1, f"more=@{paths[2]}")
    assert at_stoa("table", "run", "words", "--watch").status == 0
    (row,) = at_stoa("table", "show", "words", "--json").json["rows"]
    assert row["values"]["all"] == "a.txt b.txt c.txt "
    assert row["values"]["more"]["basename"] == "c.txt"
    missing = at_stoa("table", "edit", "words", 1, "more=@/nowhere.txt")
    assert missing.status == 2
    assert "/nowhere.txt cannot be read" in missing.errors


def test_what_looks_like_markup_is_shown_as_it_is(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "add", adding, "a=1", "name=[red]M[/] 31 [x")
    assert "[red]M[/] 31 [x" in at_stoa("table", "show", adding).output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table", "show", "nowhere"], "nowhere"),
        (["table", "show", "a/../b"], "a/../b"),
        (["table", "show", "{adding}", "--filter", "mass>1"], "mass"),
        (["table", "show", "{adding}", "--columns", "mass"], "mass"),
        (["table", "add", "{adding}", "a"], "COLUMN=VALUE"),
        (["table", "add", "{adding}", "mass=1"], "mass"),
        (["table", "add", "{adding}", "a=heavy"], "heavy"),
        (["table", "add", "{adding}", "a=1", "--csv", "-"], "one of them"),
        (["table", "add", "{adding}", "--csv", "/nowhere.csv"], "/nowhere.csv"),
        (["table", "add", "{adding}", "--json-rows", "/dev/null"], "JSON"),
        (["table", "edit", "{adding}", "77", "a=1"], "77"),
        (["table", "link", "{adding}", "nowhere", "a"], "INPUT=COLUMN"),
        (["table", "create", "{adding}", "--cwl", "/nowhere.cwl"], "/nowhere.cwl"),
        (["table", "show", "{adding}", "--limit", "0"], "limit"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    at_stoa: Command, adding: str, arguments: list[str], said: str
) -> None:
    answer = at_stoa(*(argument.replace("{adding}", adding) for argument in arguments))
    assert answer.status == 2
    assert said in answer.errors
    assert answer.output == ""
    assert "Traceback" not in answer.errors


def test_a_row_that_is_not_there_is_left_out_and_the_others_run(at_stoa: Command, adding: str) -> None:
    at_stoa("table", "add", adding, "a=1")
    answer = at_stoa("table", "run", adding, 1, 77, "--watch")
    assert answer.status == 0, answer.errors
    assert "row 77 was left out" in answer.output
    assert "1 succeeded" in answer.output


def test_the_logs_of_this_machine_are_read_verified_and_rebuilt(
    at_stoa: Command, adding: str, stoa: RunningStoa
) -> None:
    at_stoa("table", "add", adding, "a=1")
    verified = at_stoa("log", "verify", "--data", stoa.data, "--json").json
    assert {item["service"] for item in verified} == {"tables", "scheduler", "executor"}
    assert all(item["broken"] is None for item in verified)
    last = at_stoa("log", "tail", "tables", "-n", 1, "--data", stoa.data, "--json").json
    assert "rows-added" in last["type"]
    assert "rows-added" in at_stoa("log", "tail", "tables", "-n", 1, "--data", stoa.data).output
    rebuilt = at_stoa("log", "rebuild", "tables", "--data", stoa.data, "--json").json
    assert rebuilt["events"] == stoa.head("tables")
    assert at_stoa("table", "show", adding, "--json").json["rows"][0]["values"]["a"] == 1
    unknown = at_stoa("log", "tail", "kitchen", "--data", stoa.data)
    assert unknown.status == 2
    assert "kitchen" in unknown.errors


def test_migrate_makes_databases(command: Command, tmp_path: Path) -> None:
    assert set(command("migrate", "all", "--data", tmp_path, "--json").json["migrated"]) == {
        "tables",
        "scheduler",
        "executor",
    }
    assert (tmp_path / "tables.sqlite").exists()
    refused = command("migrate", "web", "--data", tmp_path)
    assert refused.status == 2
    assert "web" in refused.errors
    assert all(item["events"] == 0 for item in command("log", "verify", "--data", tmp_path, "--json").json)


def test_one_changed_byte_is_found(command: Command, tmp_path: Path, stoa: RunningStoa) -> None:
    import sqlite3

    copy = tmp_path / "tables.sqlite"
    table = stoa.create_worktable("to-be-forged")
    stoa.add_rows(table, [{"number": 1}])
    with sqlite3.connect(stoa.data / "tables.sqlite") as source, sqlite3.connect(copy) as target:
        source.backup(target)
    with sqlite3.connect(copy) as forged:
        for (trigger,) in forged.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            forged.execute(f"DROP TRIGGER {trigger}")
        (position,) = forged.execute("SELECT max(position) FROM event").fetchone()
        forged.execute(
            "UPDATE event SET data = replace(CAST(data AS TEXT), ?, ?) WHERE position = ?",
            ('"number":1', '"number":2', position),
        )
    answer = command("log", "verify", "tables", "--data", tmp_path)
    assert answer.status == 1
    assert f"position {position}" in answer.output


def test_without_a_stoa_its_start_is_suggested(command: Command) -> None:
    answer = command("status")
    assert answer.status == 1
    assert answer.errors == ("stoa: No Stoa answers at http://127.0.0.1:9; start it with 'stoa up', or set STOA_URL\n")


def test_an_address_that_is_none_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOA_URL", "not an address")
    answer = command("status")
    assert answer.status == 1
    assert "not an address" in answer.errors


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_code_for_completion_is_printed(command: Command, shell: str) -> None:
    assert "_STOA_COMPLETE" in command("completion", shell).output
