"""Worktable files of 2018 are read and written, and damaged ones refused."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_tables.problems import InvalidRequestError
from stoa_tables.worktable_file import (
    FileColumn,
    FileRow,
    ServiceFile,
    WorktableFile,
    read_service,
    read_worktable_file,
    write_service,
    write_worktable_file,
)

TOOL = b"""cwlVersion: v1.0
class: CommandLineTool
baseCommand: sex
inputs: {image: {type: File}, sigma: float}
outputs: {ra: {type: {type: array, items: double}}}
"""

TABLE = """\
__bindex__ image sigma name ra
K_int I_file I_float K_str O_float
  meta.ref.url  pos.eq.ra
# a comment
0 example/a.fits 3.5 "NGC 253" 11.25
0 example/a.fits 3.5 "NGC 253" 11.5
1 example/b.fits - Barnard's -
"""


def archive(how: int = zipfile.ZIP_STORED, /, **members: bytes | str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", how) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return written.getvalue()


def old_file(**members: bytes | str) -> bytes:
    whole: dict[str, bytes | str] = {
        "workflow__cwl": TOOL,
        "template__yml": "sigma: 5\nname: x\n",
        "table__txt": TABLE,
        "tracking__txt": "COMPLETE\nCOMPLETE\nPENDING\n",
        "links__txt": "archive.wtx\nfolder/catalogue.wtx,other.wtx\n",
        "run__sh": "echo\n",
        **members,
    }
    return archive(**whole)


def read(content: bytes) -> WorktableFile:
    return read_worktable_file(content, "sources.wtx", most_rows=1000)


def test_a_file_of_2018_is_read() -> None:
    found = read(old_file())
    assert found.name == "sources"
    assert list(found.columns) == [
        FileColumn("image", "I", "file", None),
        FileColumn("sigma", "I", "float", "meta.ref.url"),
        FileColumn("name", "K", "str", None),
        FileColumn("ra", "O", "float", "pos.eq.ra"),
    ]
    assert list(found.rows) == [
        FileRow(
            0, 5, [["example/a.fits", "3.5", "NGC 253", "11.25"], ["example/a.fits", "3.5", "NGC 253", "11.5"]], True
        ),
        FileRow(1, 7, [["example/b.fits", None, "Barnard's", None]], False),
    ]
    assert dict(found.template) == {"sigma": 5, "name": "x"}
    assert (list(found.parents), list(found.children)) == (["archive"], ["catalogue", "other"])
    assert set(found.workflow) == {"workflow.cwl", "run.sh"}


def test_what_may_be_missing_is_missing() -> None:
    bare = archive(table__txt="__bindex__ a\nK_int K_int\n0 1\n")
    found = read(bare)
    assert (found.workflow, found.template, found.parents, found.children) == ({}, {}, [], [])
    assert found.rows[0].complete
    assert "workflow.cwl" not in read(archive(table__txt="__bindex__\nK_int\n\n", workflow__cwl="{}")).workflow


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04 and then nothing", "no worktable file that can be read"),
        (old_file()[:-40], "no worktable file that can be read"),
        (archive(workflow__cwl=TOOL), "no table.txt"),
        (old_file(table__txt=""), "ends before its names"),
        (old_file(table__txt="image\nI_file\n"), "has to be __bindex__"),
        (old_file(table__txt="__bindex__ a\nK_int\n"), "2 columns and 1 types"),
        (old_file(table__txt="__bindex__ a\nK_int I_complex\n"), "I_complex"),
        (old_file(table__txt="__bindex__ a a\nK_int I_int I_int\n"), "two columns called a"),
        (old_file(table__txt="__bindex__ a\nK_int I_int\n\n0 1 2\n"), "Line 4 of table.txt"),
        (old_file(table__txt="__bindex__ a\nK_int I_int\n\nx 1\n"), "no index"),
        (old_file(table__txt='__bindex__ a\nK_int I_str\n\n0 "open\n'), "no closing quotation"),
        (old_file(table__txt=b"\xff\xfe"), "UTF-8"),
        (old_file(template__yml="[1, 2]"), "name: value"),
        (old_file(template__yml="a: [1"), "no YAML"),
        (old_file(workflow__cwl="a: [1"), "no YAML"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        read(content)


@pytest.mark.parametrize("name", ["../evil.cwl", "/etc/passwd", "a/../../b", "C:\\evil", "..\\evil"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("table.txt", TABLE)
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        file.writestr(entry, b"")
    with pytest.raises(InvalidRequestError, match="leads out"):
        read(written.getvalue())


def test_what_unpacks_to_far_more_than_it_is_is_refused() -> None:
    bomb = archive(zipfile.ZIP_DEFLATED, table__txt=b"0" * 20_000_000)
    assert len(bomb) < 100_000
    with pytest.raises(InvalidRequestError, match="far more than it is"):
        read(bomb)


def test_a_table_with_too_many_lines_is_refused() -> None:
    lines = "".join(f"{number} 1\n" for number in range(11))
    with pytest.raises(InvalidRequestError, match="more than 10 lines"):
        read_worktable_file(archive(table__txt=f"__bindex__ a\nK_int I_int\n\n{lines}"), "a.wtx", most_rows=10)


def test_a_service_names_its_position_columns() -> None:
    service = read_service(b"sources.wtx\nra\ndec\n", "sources.service")
    assert service == ServiceFile("sources", "ra", "dec")
    assert write_service(service) == b"sources.wtx\nra\ndec\n"
    with pytest.raises(InvalidRequestError, match="three"):
        read_service(b"sources\nra\n", "s.service")


NAMES = st.text("abcdefgh_", min_size=1, max_size=5)
# A minus alone is the format's word for nothing, and a line ends a row.
WORDS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12).filter(
    lambda t: t != "-"
)


@st.composite
def worktables(draw: st.DrawFn) -> WorktableFile:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    columns = [
        FileColumn(
            name,
            draw(st.sampled_from(["I", "O", "K"])),
            draw(st.sampled_from(["int", "unique", "float", "str", "file"])),
            draw(st.none() | st.sampled_from(["pos.eq.ra", "meta.id;meta.main"])),
        )
        for name in names
    ]
    line = 4
    rows = []
    for index in range(draw(st.integers(0, 4))):
        elements = draw(st.lists(st.lists(WORDS, min_size=len(names), max_size=len(names)), min_size=1, max_size=3))
        rows.append(FileRow(index, line, elements, draw(st.booleans())))
        line += len(elements)
    workflow = draw(st.sampled_from([{}, {"workflow.cwl": TOOL}, {"workflow.cwl": TOOL, "bin/run.sh": b"\x00\xff"}]))
    template = draw(st.dictionaries(NAMES, st.integers() | st.text("abc ", max_size=5) | st.booleans(), max_size=3))
    return WorktableFile("sources", workflow, template, columns, rows, draw(st.lists(NAMES, max_size=2)), [])


@given(worktables())
def test_what_was_written_is_read_again(file: WorktableFile) -> None:
    written = write_worktable_file(file)
    assert read(written) == file
    assert write_worktable_file(read(written)) == written
