"""Take the corrected image of a product, or make it from the image and the primary beam."""

import argparse
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits


def locate(directory: Path, name: str, what: str) -> Path:
    """Find a file that a person or a guess has named."""
    path = directory / name
    if Path(name).name != name or not path.is_file():
        held = ", ".join(sorted(entry.name for entry in directory.iterdir()))
        sys.exit(f"The product directory has no file '{name}' that could be the {what}; it holds {held}.")
    return path


def read(path: Path) -> tuple[np.ndarray, fits.Header]:
    """Read an image and its header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # astropy only warns of a truncated file
            data, header = fits.getdata(path, header=True)
    except (OSError, TypeError, ValueError, Warning) as error:
        sys.exit(f"{path.name} cannot be read as FITS: {error}")
    return data, header


def divide(image: Path, pb: Path, target: Path) -> None:
    """Divide an image by the primary beam."""
    (data, header), (response, _) = read(image), read(pb)
    if data.shape != response.shape:
        sys.exit(f"{image.name} and {pb.name} differ in size, so that one cannot be divided by the other.")
    if not (np.nanmin(response) >= 0 and np.nanmax(response) <= 1.01):
        sys.exit(
            f"{pb.name} is not a primary beam: its values lie between {np.nanmin(response):.3g} and "
            f"{np.nanmax(response):.3g}, not between 0 and 1."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected = np.where(response > 0, data / response, np.nan)
    header.add_history(f"divided by {pb.name}")
    fits.writeto(target, corrected.astype(">f4"), header)


def main() -> None:
    """Read the command line and leave the corrected image in the working directory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("product", type=Path)
    for role in ("image", "pb", "pbcor"):
        # A cell that a person has emptied may arrive as text without a character.
        parser.add_argument(f"--{role}", default="", type=str.strip)
    given = parser.parse_args()
    if given.pbcor:
        found = locate(given.product, given.pbcor, "corrected image")
        read(found)
        target = Path(found.name)
        shutil.copyfile(found, target)
    else:
        missing = [what for what, name in (("image", given.image), ("primary beam", given.pb)) if not name]
        if missing:
            sys.exit(
                "There is no corrected image and it cannot be made, because the product lacks the "
                f"{' and the '.join(missing)}."
            )
        image = locate(given.product, given.image, "image")
        target = Path(image.name.removesuffix(".fits") + ".pbcor.fits")
        divide(image, locate(given.product, given.pb, "primary beam"), target)
    result = {"corrected": {"class": "File", "path": target.name}, "derived": not given.pbcor}
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
