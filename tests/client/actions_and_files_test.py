"""Actions and worktable files, as a user types them at a running Stoa."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.client.conftest import Command
from tests.support.stoa import RunningStoa

COUNT = """\
cwlVersion: v1.0
class: CommandLineTool
baseCommand: [sh, -c, 'echo "{\\"lines\\": $(wc -l < "$0")}" > cwl.output.json']
inputs:
  text: {type: File, inputBinding: {position: 1}}
outputs:
  lines: {type: int}
"""


def test_an_action_becomes_a_table_that_runs(at_stoa: Command, stoa: RunningStoa, tmp_path: Path) -> None:
    listed = {item["name"] for item in at_stoa("action", "ls", "--json").json}
    assert {"find_files", "fits_header", "cone_search", "tap_query", "download", "match_sky"} == listed
    assert "Find files" in at_stoa("action", "ls").output
    used = at_stoa("action", "use", "download", "fetched")
    assert used.output == "Created fetched with the inputs url, sha256.\n"
    at_stoa("table", "add", "fetched", "url=ftp://example.org/a.fits")
    at_stoa("table", "run", "fetched", "--watch")
    (row,) = stoa.rows("fetched")
    assert (row["status"], row["reason"]) == (
        "failed",
        "ftp://example.org/a.fits is no address of the web: it has to begin with http:// or https://.",
    )
    assert at_stoa("action", "use", "astrology").status == 2


def test_an_action_is_copied_to_be_changed(at_stoa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copied = at_stoa("action", "copy", "fits_header")
    assert "stoa table create NAME --cwl fits_header/fits_header.cwl" in copied.output
    assert at_stoa("table", "create", "headers", "--cwl", "fits_header/fits_header.cwl", "--json").json["workflow"]
    again = at_stoa("action", "copy", "fits_header")
    assert (again.status, "nothing was written" in again.errors) == (2, True)


def test_a_command_line_is_wrapped(at_stoa: Command, tmp_path: Path) -> None:
    written = tmp_path / "sort.cwl"
    assert at_stoa("action", "wrap", "sort -r < names.txt > sorted.txt", "-o", written).output == ""
    created = at_stoa("table", "create", "sorted", "--cwl", written, "--json").json
    assert [column["name"] for column in created["columns"]] == ["r", "stdin", "sorted"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    at_stoa("table", "add", "sorted", f"stdin=@{tmp_path / 'names.txt'}")
    assert at_stoa("table", "run", "sorted", "--watch").status == 0
    told = at_stoa("action", "wrap", "sex img.fits -c default.sex")
    assert told.output.startswith("cwlVersion: v1.2")
    assert "default.sex is taken as the value of -c" in told.errors
    refused = at_stoa("action", "wrap", "ls | wc")
    assert (refused.status, "a pipe" in refused.errors) == (2, True)


def test_worktable_files_come_in_with_their_data_and_go_out(
    at_stoa: Command, stoa: RunningStoa, tmp_path: Path
) -> None:
    old = tmp_path / "counts.wtx"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("workflow.cwl", COUNT)
        archive.writestr("table.txt", "__bindex__ text lines\nK_int I_file O_int\n\n0 one.txt 1\n1 two.txt -\n")
        archive.writestr("tracking.txt", "COMPLETE\nPENDING\n")
        archive.writestr("one.txt", "a\n")
        archive.writestr("two.txt", "a\nb\n")
    imported = at_stoa("wtx", "import", old)
    assert imported.output == "Created counts with 1 current, 1 stale rows.\n", imported.errors
    assert at_stoa("table", "run", "counts", "--watch").status == 0
    assert [row["values"]["lines"] for row in stoa.rows("counts")] == [1, 2]
    exported = at_stoa("wtx", "export", "counts", "--folder", tmp_path / "out")
    assert exported.output == f"Wrote {tmp_path / 'out' / 'counts.wtx'}.\n"
    with zipfile.ZipFile(tmp_path / "out" / "counts.wtx") as archive:
        assert archive.read("tracking.txt") == b"COMPLETE\nCOMPLETE\n"
    broken = tmp_path / "broken.wtx"
    broken.write_bytes(old.read_bytes()[:-30])
    assert at_stoa("wtx", "import", broken).status == 2
