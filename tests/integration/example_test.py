"""The example as a newcomer meets it: it fills, a correction cures a row, it stops, and comes back as it was."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from tests.support.stoa import RunningStoa

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "alma-survey"
TABLES = ("products", "grabcoords", "classify", "sources", "catalogue")
SERVICES = ("tables", "scheduler", "executor")
OBSERVATIONS = 24

#: Stated in the example's README: a source of this signal to noise is always found.
COMPLETE_FROM_SNR = 8

#: Rows whose guess is wrong and cured below, or whose product lacks an image: their fluxes say nothing yet.
MISTAKEN = {"HL_Tau", "NGC_253", "Sgr_B2", "Circinus"}


@pytest.fixture(scope="module")
def stoa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoa]:
    stoa = RunningStoa(tmp_path_factory.mktemp("example") / "data", "--example", str(EXAMPLE))
    try:
        stoa.start()
        until_said(stoa, "The example is ready")
        yield stoa
    finally:
        stoa.close()


def until_said(stoa: RunningStoa, words: str, times: int = 1, timeout: float = 400) -> None:
    deadline = time.monotonic() + timeout
    while stoa.said().count(words) < times:
        assert time.monotonic() < deadline, stoa.said()
        assert stoa.process is not None
        assert stoa.process.poll() is None, stoa.said()
        time.sleep(0.2)


def catalogue(stoa: RunningStoa) -> Table:
    rows = [row["values"] for row in stoa.rows("catalogue")]
    return Table(rows=[{key: value for key, value in row.items() if value is not None} for row in rows])


def row_of(stoa: RunningStoa, target: str) -> dict[str, Any]:
    members = {row["values"]["object"]: row["values"]["product"] for row in stoa.rows("grabcoords")}
    (row,) = [row for row in stoa.rows("sources") if row["values"]["product"] == members[target]]
    return row


def settle_all(stoa: RunningStoa) -> None:
    heads: list[int] = []
    while heads != (heads := [stoa.head(service) for service in SERVICES]):
        stoa.settle(*TABLES)
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_fills_as_its_readme_says(stoa: RunningStoa) -> None:
    counts = {table: stoa.counts(table) for table in TABLES}
    assert counts["products"] == {"current": 1}
    assert counts["grabcoords"] == counts["classify"] == {"current": OBSERVATIONS}
    assert counts["sources"] == {"current": OBSERVATIONS - 2, "failed": 2}
    assert counts["catalogue"].keys() == {"current"}
    for target, words in [("Circinus", "lacks the primary beam"), ("HL_Tau", "is not a primary beam")]:
        row = row_of(stoa, target)
        assert row["status"] == "failed"
        assert words in row["reason"]
        assert "\n" not in row["reason"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_detected_sources_are_those_that_were_put_in(stoa: RunningStoa) -> None:
    found = catalogue(stoa)
    truth = Table.read(stoa.data / "archive" / "truth" / "sources.ecsv")
    truth = truth[[str(name) not in MISTAKEN for name in truth["object"]]]
    found = found[[str(name) not in MISTAKEN for name in found["object"]]]
    here = SkyCoord(found["ra"], found["dec"], unit="deg")
    there = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    index, separation, _ = here.match_to_catalog_sky(there)
    # Every detection is a source that was put in, within five times its stated error and a floor of 0.1 arcsec.
    assert np.all(separation < np.maximum(5 * np.asarray(found["position_error"]), 0.1) * u.arcsec)
    strong = np.flatnonzero(truth["snr"] >= COMPLETE_FROM_SNR)
    assert set(strong) <= set(index)
    ratio = np.asarray(found["flux"]) / np.asarray(truth["flux"][index])
    bright = np.asarray(found["snr"]) > 30
    assert bright.sum() > 20
    assert abs(np.median(ratio[bright]) - 1) < 0.03
    assert np.all(abs(ratio[bright] - 1) < 0.25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_corrected_guess_reruns_one_row_and_fills_the_catalogue(stoa: RunningStoa) -> None:
    row, before = row_of(stoa, "HL_Tau"), len(stoa.rows("catalogue"))
    sources = stoa.checked(stoa.client.get("/api/tables/sources"))["id"]
    position = stoa.head("executor")
    stoa.checked(stoa.client.patch(f"/api/tables/sources/rows/{row['row']}", json={"pbcor": "HL_Tau_cont_pb.fits"}))
    settle_all(stoa)
    started = Counter((e.subject, e.data["row"]) for e in stoa.events("executor", position) if e.name == "job-started")
    assert started == Counter({(sources, row["row"]): 1})
    cured = row_of(stoa, "HL_Tau")
    assert cured["status"] == "current"
    assert cured["elements"] > 0
    assert len(stoa.rows("catalogue")) == before + cured["elements"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_directory_that_was_added_runs_just_that_directory(stoa: RunningStoa) -> None:
    archive = stoa.data / "archive"
    product = next(path for path in archive.rglob("product") if list(path.glob("*.pbcor.fits")))
    tables = {stoa.checked(stoa.client.get(f"/api/tables/{name}"))["id"]: name for name in TABLES}
    rows = {name: {row["row"]: row["revision"] for row in stoa.rows(name)} for name in TABLES}
    position = stoa.head("executor")
    added = archive / "added" / "product"
    shutil.copytree(product, added)
    for path in added.glob("*.fits"):
        # Another observation, else its results would be taken from the one that it is a copy of.
        fits.setval(path, "OBJECT", value="Added")
    stoa.checked(stoa.client.post("/api/files/recheck", json={}))
    deadline = time.monotonic() + 120
    while len(stoa.rows("sources")) == OBSERVATIONS:
        assert time.monotonic() < deadline, stoa.counts("products")
        time.sleep(0.2)
    settle_all(stoa)
    ended = [event.data for event in stoa.events("executor", position) if event.name == "job-finished"]
    executed = Counter(tables[data["table"]] for data in ended if data["reused_from"] is None)
    assert executed == {"products": 1, "grabcoords": 1, "classify": 1, "sources": 1}
    for name in ("grabcoords", "classify", "sources", "catalogue"):
        present = {row["row"]: row["revision"] for row in stoa.rows(name)}
        assert present | rows[name] == present, f"rows of {name} that have nothing to do with it were touched"
    assert stoa.counts("sources") == {"current": OBSERVATIONS, "failed": 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_stops_everything_and_a_second_start_recomputes_nothing(stoa: RunningStoa) -> None:
    settle_all(stoa)
    heads, rows = [stoa.head(service) for service in SERVICES], stoa.rows("catalogue")
    processes = stoa.processes()
    assert stoa.stop(signal.SIGINT) == 0
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    stoa.start()
    until_said(stoa, "The example is ready", times=2)
    assert [stoa.head(service) for service in SERVICES] == heads
    assert stoa.rows("catalogue") == rows
