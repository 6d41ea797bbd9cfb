"""Read target and pointing from the FITS headers of a product directory."""

import json
import sys
from pathlib import Path

from astropy.io import fits


def main() -> None:
    """Read the first image of the directory given on the command line: all of a product show the same field."""
    directory = Path(sys.argv[1])
    images = sorted(directory.glob("*.fits"))
    if not images:
        sys.exit("There is no FITS file in the product directory.")
    path = images[0]
    try:
        header = fits.getheader(path)
    except OSError as error:
        sys.exit(f"{path.name} cannot be read as FITS: {error}")
    try:
        if (header["CTYPE1"][:4], header["CTYPE2"][:4], header["RADESYS"]) != ("RA--", "DEC-", "ICRS"):
            sys.exit(f"The coordinates in {path.name} are not ICRS right ascension and declination.")
        result = {
            "member": header["MEMBER"],
            "object": header["OBJECT"],
            "ra": header["CRVAL1"],
            "dec": header["CRVAL2"],
            "date": header["DATE-OBS"],
            "frequency": header["RESTFRQ"] / 1e9,
        }
    except KeyError as error:
        sys.exit(f"The header of {path.name} lacks a keyword. {error.args[0]}")
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
