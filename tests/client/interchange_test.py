"""Files go in and come out with the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.conftest import Command


@pytest.fixture
def table(at_stoa: Command, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A plain table of two columns and one row."""
    name = str(request.node.name)[:60]
    file = tmp_path / "first.csv"
    file.write_text("k,name\n1,one\n")
    assert at_stoa("table", "import", file, "--name", name).status == 0
    return name


def test_rows_are_previewed_imported_and_exported(at_stoa: Command, table: str, tmp_path: Path) -> None:
    file = tmp_path / "more.csv"
    file.write_text("K,label\n2,two\nx,three\n")
    preview = at_stoa("table", "import", table, file, "--map", "label=name", "--preview")
    assert preview.output.startswith("1 of 2 rows would be imported."), preview.errors
    assert "line 3: k:" in preview.errors
    refused = at_stoa("table", "import", table, file, "--map", "label=name")
    assert refused.status == 2
    assert "1 of 2 rows cannot be taken, so nothing was imported: line 3: k:" in refused.errors
    done = at_stoa("table", "import", table, file, "--map", "label=name", "--partial")
    assert done.output == f"Imported 1 rows into {table}.\n"
    assert "line 3: k:" in done.errors

    assert at_stoa("table", "export", table, "-").output.splitlines() == ["k,name", "1,one", "2,two"]
    before = at_stoa("table", "show", table, "--json").json["table"]["position"] - 1
    assert at_stoa("table", "export", table, "-", "--as-of", before).output.splitlines() == ["k,name", "1,one"]
    target = tmp_path / "out.vot"
    told = at_stoa("table", "export", table, target, "--columns", "name", "--sort", "-k")
    assert told.output == f"Exported {table} as {target} ({target.stat().st_size:,} bytes).\n"
    assert target.read_text().index("two") < target.read_text().index("one")
    again = at_stoa("table", "import", target, "--name", f"{table}-2", "--json")
    assert again.json["report"]["columns"][0]["column"] == "name"


def test_what_cannot_be_is_refused_and_leaves_no_file(at_stoa: Command, table: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    for words in (
        ("export", table, kept),
        ("export", table, tmp_path / "x.doc"),
        ("export", table, tmp_path / "new.fits", "--columns", "zz"),
        ("export", "no-such-table", tmp_path / "new.csv"),
        ("export", table, tmp_path / "nowhere" / "new.csv"),
        ("import", table, tmp_path / "nothing.csv"),
        ("import", table, kept, "--map", "k"),
        ("import", table, kept, "--name", "x"),
        ("import", table, "a", "b"),
        ("import", "no-such-table", kept),
    ):
        answer = at_stoa("table", *words)
        assert answer.status == 2, words
        assert answer.errors.startswith("stoa: "), answer.errors
    assert kept.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.csv", "kept.csv"]


def test_a_bad_file_is_one_sentence(at_stoa: Command, table: str, tmp_path: Path) -> None:
    bomb = tmp_path / "x.vot"
    bomb.write_text('<?xml version="1.0"?><!DOCTYPE v [<!ENTITY a "b">]><VOTABLE/>')
    before = json.loads(at_stoa("table", "ls", "--json").output)
    answer = at_stoa("table", "import", bomb, "--name", "never")
    assert answer.status == 2
    assert "declares a document type or entities" in answer.errors
    assert json.loads(at_stoa("table", "ls", "--json").output) == before
