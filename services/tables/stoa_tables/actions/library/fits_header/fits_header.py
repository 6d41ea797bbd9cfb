"""Read what most observatories write into the header of a FITS file."""

import json
import math
import sys
import warnings
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

# Output to the keywords that may hold it; the first one that is there counts.
TEXTS = {
    "object": ["OBJECT"],
    "telescope": ["TELESCOP"],
    "instrument": ["INSTRUME"],
    "filter": ["FILTER", "FILTER1", "FILTNAM"],
    "date_obs": ["DATE-OBS"],
}
NUMBERS = {"exposure": ["EXPTIME", "EXPOSURE"]}


def text(header: fits.Header, keywords: list[str]) -> str | None:
    """Give the first value that is not blank."""
    for keyword in keywords:
        value = str(header.get(keyword, "")).strip()
        if value:
            return value
    return None


def number(header: fits.Header, keywords: list[str]) -> float | None:
    """Give the first value that is a finite number."""
    for keyword in keywords:
        value = header.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def centre(header: fits.Header) -> tuple[float | None, float | None]:
    """Give the position of the image centre, where the header says how pixels lie on the sky."""
    try:
        wcs = WCS(header, naxis=2)
        if not wcs.has_celestial:
            return None, None
        middle = [(header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2]
        position = wcs.celestial.pixel_to_world(*middle).icrs
    except (KeyError, ValueError, AttributeError):
        return None, None
    return float(position.ra.deg), float(position.dec.deg)


def main() -> None:
    """Read the header of the file and unit given on the command line."""
    path, hdu = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore", AstropyWarning)
    try:
        with fits.open(path) as units:
            if not 0 <= hdu < len(units):
                sys.exit(f"{path.name} has {len(units)} units; there is no unit {hdu}.")
            own, primary = units[hdu].header, units[0].header
    except OSError as error:
        sys.exit(f"{path.name} cannot be read as FITS: {error}")
    header = primary.copy()
    header.update(own)
    result: dict[str, str | float | None] = {name: text(header, keywords) for name, keywords in TEXTS.items()}
    result |= {name: number(header, keywords) for name, keywords in NUMBERS.items()}
    result["ra"], result["dec"] = centre(own)
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
