"""``stoa files`` at a running Stoa."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.client.conftest import Command
    from tests.support.stoa import RunningStoa

COUNT = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [wc, -c]
inputs:
  image: {type: File, inputBinding: {position: 1}}
outputs:
  text: {type: stdout}
"""


def test_a_changed_file_is_found_when_asked(at_stoa: Command, stoa: RunningStoa) -> None:
    archive = stoa.data.parent / "archive"
    image, other = archive / "image.fits", archive / "other.fits"
    image.write_text("pixels")
    other.write_text("pixels")
    table = stoa.create_worktable("reads-files", COUNT)
    position = stoa.add_rows(table, [{"image": str(image)}, {"image": str(other)}])
    stoa.run(table, after=position)
    assert stoa.settle(table) == {table: {"current": 2}}

    looked = at_stoa("files", "recheck", image, "/nowhere")
    assert looked.output == "Looked at 1 file; none changed.\n"
    assert looked.errors == "/nowhere was read by no row\n"
    image.write_text("more pixels")
    other.unlink()
    found = at_stoa("files", "recheck").output.splitlines()
    assert sorted(found[:2]) == [f"{image.as_uri()} has changed", f"{other.as_uri()} is gone"]
    assert found[2:] == ["Looked at 2 files; 2 changed."]
    assert at_stoa("files", "recheck", "--json").json["changed"] == 0
    told = [event for event in stoa.events("executor") if event.name == "file-changed"]
    assert {event.data["location"] for event in told} == {image.as_uri(), other.as_uri()}
