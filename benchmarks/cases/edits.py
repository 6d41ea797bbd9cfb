"""What an edit costs in tables of different size, and how fast a catalogue comes in."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.table import Table

from benchmarks.harness import Result, case, median_ms
from tests.support.stoa import RunningStoa, running_stoa

SIZES = {"edit_ms_100": 100, "edit_ms_10k": 10_000, "edit_ms_100k": 100_000}
EDITS = 60
WARM_UP = 5


@case(*SIZES)
def edits(folder: Path) -> Iterator[Result]:
    """Change one cell and read the row again, in tables of 100, 10,000 and 100,000 rows, in turn."""
    draw = random.Random(1)
    with running_stoa(folder / "data") as stoa:
        tables = {}
        for name, size in SIZES.items():
            tables[name] = stoa.create_worktable(name)
            stoa.add_rows(tables[name], [{"number": number} for number in range(size)])
        durations: dict[str, list[float]] = {name: [] for name in SIZES}
        for number in range(WARM_UP + EDITS):
            for name, size in SIZES.items():
                row = draw.randint(1, size)
                started = time.perf_counter()
                _edit(stoa, tables[name], row, -number - 1)
                if number >= WARM_UP:
                    durations[name].append((time.perf_counter() - started) * 1000)
    medians = {name: float(np.median(values)) for name, values in durations.items()}
    for name, value in medians.items():
        yield Result(
            name,
            value,
            "ms",
            "the same in 100 rows",
            value / medians["edit_ms_100"],
            note="change a cell, read the row again",
        )


def _edit(stoa: RunningStoa, table: str, row: int, value: int) -> None:
    stoa.checked(stoa.client.patch(f"/api/tables/{table}/rows/{row}", json={"number": value}))
    seen = stoa.checked(stoa.client.get(f"/api/tables/{table}/rows/{row}"))
    if seen["values"]["number"] != value or seen["status"] != "stale":
        message = f"The edit is not visible: {seen}"
        raise RuntimeError(message)


@case("import_100k_rows_s")
def imports(folder: Path) -> Iterator[Result]:
    """Import a FITS catalogue of 100,000 rows and 10 columns as a plain table."""
    random_numbers = np.random.default_rng(1)
    catalogue = Table({f"value{number}": random_numbers.normal(size=100_000) for number in range(7)})
    catalogue["source_id"] = np.arange(100_000) + 6_917_528_997_577_384_320
    catalogue["flag"] = random_numbers.random(100_000) > 0.5
    catalogue["name"] = [f"source {number}" for number in range(100_000)]
    file = folder / "catalogue.fits"
    catalogue.write(file)
    with running_stoa(folder / "data") as stoa:
        started = time.perf_counter()
        with file.open("rb") as content:
            answer = stoa.client.post(
                "/api/tables/import",
                data={"name": "catalogue"},
                files={"file": ("catalogue.fits", content)},
                timeout=300,
            )
        answer.raise_for_status()
        seconds = time.perf_counter() - started
        if answer.json()["rows"] != 100_000:
            raise RuntimeError(answer.text)
    peer = median_ms(lambda: Table.read(file).as_array().tolist(), 3) / 1000
    yield Result("import_100k_rows_s", seconds, "s", "astropy reads the file into Python values", seconds / peer)
