"""Worktable files of 2018 become tables, and tables become worktable files."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from stoa_tables.worktable_file import read_worktable_file
from tests.tables.harness import Harness

DETECT = b"""cwlVersion: v1.0
class: CommandLineTool
baseCommand: detect
inputs:
  image: File
  sigma: {type: float, doc: Threshold}
outputs:
  ra: {type: {type: array, items: double}}
  snr: {type: {type: array, items: float}}
"""

MEASURE = b"""cwlVersion: v1.0
class: CommandLineTool
baseCommand: measure
inputs: {ra: double, aperture: float}
outputs: {flux: {type: double}}
"""

ARCHIVE = """\
__bindex__ name image
K_int I_str I_file
 meta.id
0 M87 a.fits
1 "NGC 253" b.fits
"""

DETECTIONS = """\
__bindex__ image sigma ra snr
K_int I_file I_float O_float O_float
   pos.eq.ra
0 a.fits 5.0 187.5 8.0
0 a.fits 5.0 187.75 6.5
1 b.fits - - -
"""

FLUXES = """\
__bindex__ ra aperture flux
K_int K_float I_float O_float

0 187.5 2.0 1.25
1 187.8 3.0 -
"""

JOINED = """\
__bindex__ name image sigma ra snr
K_int K_str K_file K_float K_float K_float

0 M87 a.fits 5.0 187.5 8.0
1 M87 a.fits 5.0 187.75 6.5
"""

KEPT = {
    name: {"class": "File", "location": f"sha256:{digit * 64}", "basename": name}
    for name, digit in (("a.fits", "a"), ("b.fits", "b"))
}


def archive(table: str, tracking: str = "", links: str = "\n\n", workflow: bytes = b"{}") -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("table.txt", table)
        file.writestr("tracking.txt", tracking)
        file.writestr("links.txt", links)
        file.writestr("workflow.cwl", workflow)
        file.writestr("template.yml", "sigma: 4.5\n")
    return written.getvalue()


def survey() -> dict[str, bytes]:
    pending = "COMPLETE\nPENDING\n"
    return {
        "fluxes.wtx": archive(FLUXES, pending, "detections.wtx\n\n", workflow=MEASURE),
        "archive.wtx": archive(ARCHIVE, "", "\njoined.wtx\n"),
        "joined.wtx": archive(JOINED, "", "archive.wtx,detections.wtx\n\n"),
        "detections.wtx": archive(DETECTIONS, "COMPLETE\nCOMPLETE\nPENDING\n", "\nfluxes.wtx\n", workflow=DETECT),
        "detections.service": b"detections.wtx\nra\nsnr\n",
    }


async def bring(stoa: Harness, files: dict[str, bytes], status: int = 201, **form: str) -> Any:
    upload = [("files", (name, content)) for name, content in files.items()]
    answer = await stoa.client.post("/api/worktable-files", files=upload, data=form)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_files_come_with_their_links_statuses_and_results(stoa: Harness) -> None:
    import json

    imported = await bring(stoa, survey(), project="old", kept=json.dumps(KEPT))
    counts = {table["name"]: table["counts"] for table in imported["tables"]}
    assert counts == {
        "archive": {"current": 2},
        "detections": {"current": 1, "stale": 1},
        "fluxes": {"current": 1, "stale": 1},
        "joined": {"current": 2},
    }
    assert [table["notes"] for table in imported["tables"]] == [[], [], [], []]
    rows = await stoa.rows("detections")
    assert rows[0]["values"]["image"]["location"] == f"sha256:{'a' * 64}"
    assert (rows[0]["values"]["ra"], rows[0]["elements"]) == ([187.5, 187.75], 2)
    assert rows[1]["values"]["sigma"] == 4.5
    columns = {column["name"]: column for column in (await stoa.get("/tables/detections"))["columns"]}
    assert (columns["ra"]["ucd"], columns["snr"]["ucd"]) == ("pos.eq.ra;meta.main", "pos.eq.dec;meta.main")

    # A person had corrected a position, and that is what it still is.
    fluxes = await stoa.rows("fluxes")
    assert [(row["values"]["ra"], row["values"]["flux"]) for row in fluxes] == [(187.5, 1.25), (187.8, None)]
    assert fluxes[0]["derived_from"]["corrected"] == {}
    assert list(fluxes[1]["derived_from"]["corrected"]) == ["ra"]
    joined = await stoa.rows("joined")
    assert [(row["values"]["name"], row["values"]["ra"]) for row in joined] == [("M87", 187.5), ("M87", 187.75)]
    history = await stoa.get("/tables/detections/rows/1/history")
    assert any("detections.wtx" in event["summary"] for event in history["events"])
    assert stoa.rebuilt()[1] == []


async def test_what_came_in_goes_out_again(quick: Harness) -> None:
    import json

    await bring(quick, survey(), kept=json.dumps(KEPT))
    address = "http://stoa/api/files/"
    written = {}
    for name in ("archive", "detections", "fluxes", "joined"):
        answer = await quick.client.get(f"/api/tables/{name}/worktable-file", params={"files_url": address})
        assert answer.status_code == 200, answer.text
        written[f"{name}.wtx"] = answer.content
    detections = read_worktable_file(written["detections.wtx"], "detections.wtx", most_rows=10)
    assert detections.rows[0].elements[0] == [f"{address}{'a' * 64}", "5.0", "187.5", "8.0"]
    assert ([row.complete for row in detections.rows], detections.children) == ([True, False], ["fluxes", "joined"])
    service = (await quick.client.get("/api/tables/detections/service-file")).content
    assert service == b"detections.wtx\nra\nsnr\n"
    assert (await quick.client.get("/api/tables/fluxes/service-file")).status_code == 409

    before = {name: await quick.rows(name) for name in ("detections", "fluxes", "joined", "archive")}
    for name in ("fluxes", "joined", "detections", "archive"):
        await quick.request("DELETE", f"/tables/{name}")
    await bring(quick, written)
    for name, rows in before.items():
        again = await quick.rows(name)
        assert [_shown(row) for row in again] == [_shown(row) for row in rows], name


def _shown(row: dict[str, Any]) -> Any:
    values = {name: value["location"] if isinstance(value, dict) else value for name, value in row["values"].items()}
    return values, row["status"]


async def test_nothing_is_imported_where_something_is_wrong(quick: Harness) -> None:
    broken = survey() | {"detections.wtx": archive(DETECTIONS.replace("187.75", "east"), workflow=DETECT)}
    refused = await bring(quick, broken, 422, base="file:///data")
    assert "line 5, ra" in refused["detail"]
    assert (await quick.get("/tables"))["tables"] == []
    unknown = await bring(quick, survey(), 422)
    assert "a.fits" in unknown["detail"]
    circle = {
        "a.wtx": archive(ARCHIVE, "", "b.wtx\n\n"),
        "b.wtx": archive(ARCHIVE, "", "a.wtx\n\n"),
    }
    assert "depend on each other" in (await bring(quick, circle, 422))["detail"]
    lost = {"x.service": b"nowhere.wtx\nra\ndec\n"}
    assert "nowhere.wtx" in (await bring(quick, lost, 422))["detail"]
    assert (await quick.get("/tables"))["tables"] == []


async def test_rows_that_their_parent_would_not_give_stay_as_they_are(quick: Harness) -> None:
    fluxes = FLUXES + "2 10.0 1.0 4.0\n"
    fluxes_file = archive(fluxes, "", "detections.wtx\n\n", workflow=MEASURE)
    files = survey() | {"fluxes.wtx": fluxes_file}
    del files["joined.wtx"]
    imported = await bring(quick, files, base="file:///data")
    (table,) = [table for table in imported["tables"] if table["name"] == "fluxes"]
    assert "3 rows where its parent gives 2" in table["notes"][0]
    assert (await quick.get("/tables/fluxes"))["links"] == []
    assert len(await quick.rows("fluxes")) == 3
    rows = await quick.rows("detections")
    assert rows[0]["values"]["image"]["location"] == "file:///data/a.fits"
