"""Find for each row of a catalogue the nearest row of another one on the sky."""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table, hstack
from astropy.utils.exceptions import AstropyWarning


def read(path: Path) -> Table:
    """Read a catalogue, whatever its format."""
    for format_ in (None, "votable", "fits", "ascii.ecsv", "ascii.csv"):
        try:
            table = Table.read(path, format=format_)
        except Exception:  # noqa: BLE001, S112 - each reader has errors of its own, and the next one may read it
            continue
        if table.colnames:
            return table
    sys.exit(f"{path.name} is no table that can be read: FITS, VOTable, ECSV or CSV are.")


def positions(table: Table, ra: str, dec: str, path: Path) -> tuple[SkyCoord, np.ndarray]:
    """Give the positions of a catalogue, and which rows have one."""
    for name in (ra, dec):
        if name not in table.colnames:
            sys.exit(f"{path.name} has no column {name}; it has {', '.join(table.colnames)}.")
    values = []
    for name in (ra, dec):
        column = table[name]
        filled = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
        values.append(u.Quantity(filled, column.unit or u.deg).to_value(u.deg))
    good = np.isfinite(values[0]) & np.isfinite(values[1])
    try:
        return SkyCoord(values[0][good], values[1][good], unit="deg"), np.flatnonzero(good)
    except ValueError as error:
        sys.exit(f"The positions in {path.name} are none: {error}")


def main() -> None:
    """Match the catalogues given on the command line."""
    parser = argparse.ArgumentParser()
    for side in ("left", "right"):
        parser.add_argument(f"--{side}", type=Path, required=True)
        parser.add_argument(f"--{side}-ra", required=True)
        parser.add_argument(f"--{side}-dec", required=True)
    parser.add_argument("--radius", type=float, required=True)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", AstropyWarning)
    left, right = read(asked.left), read(asked.right)
    here, rows = positions(left, asked.left_ra, asked.left_dec, asked.left)
    there, partners = positions(right, asked.right_ra, asked.right_dec, asked.right)
    if len(here) and len(there):
        nearest, apart, _ = here.match_to_catalog_sky(there)
        near = apart <= asked.radius * u.arcsec
        rows, partners, separation = rows[near], partners[nearest[near]], apart[near].arcsec
    else:
        rows, partners, separation = rows[:0], partners[:0], np.zeros(0)
    matched = hstack([left[rows], right[partners]], table_names=["left", "right"], metadata_conflicts="silent")
    matched["separation"] = Column(separation, unit=u.arcsec, description="Distance on the sky")
    matched.write("table.vot", format="votable", overwrite=True)
    result = {"matches": len(rows), "table": {"class": "File", "path": "table.vot"}}
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
