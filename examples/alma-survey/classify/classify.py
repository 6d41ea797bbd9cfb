"""Guess which FITS file of a product directory is what."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

#: The word in a file's name that says what it is; the first that fits counts.
WORDS = {"pbcor": "pbcor", "pb": "pb", "image": "image"}


def by_name(path: Path) -> str | None:
    """Look for a telling word in the file's name."""
    words = re.split(r"[._-]", path.stem.lower())
    return next((role for word, role in WORDS.items() if word in words), None)


def looks_like_beam(header: fits.Header, data: np.ndarray) -> bool:
    """Tell whether an image has no brightness, or no value beyond 0 to 1 and nearly 1 in the middle."""
    if not header.get("BUNIT", "").strip():
        return True
    return bool(np.nanmin(data) >= 0 and 0.9 < np.nanmax(data) <= 1)


def rise(data: np.ndarray) -> float:
    """Compare the scatter in the outer part of the field with that in the middle."""
    y, x = np.indices(data.shape)
    radius = np.hypot(x - data.shape[1] / 2, y - data.shape[0] / 2)
    reach = radius[np.isfinite(data)].max()

    def scatter(part: np.ndarray) -> float:
        values = part[np.isfinite(part)]
        return float(np.median(np.abs(values - np.median(values))))

    return scatter(data[radius > 0.8 * reach]) / scatter(data[radius < 0.25 * reach])


def classify(images: dict[str, tuple[fits.Header, np.ndarray]]) -> tuple[dict[str, str], list[str]]:
    """Give each role to at most one file, and say why."""
    roles: dict[str, str] = {}
    why: list[str] = []

    def settle(role: str, name: str, reason: str) -> None:
        if role in roles:
            why.append(f"{name} looks like {role} too ({reason}) and was left out")
        else:
            roles[role] = name
            why.append(f"{role} by {reason}")

    rest = []
    for name in images:
        role = by_name(Path(name))
        if role:
            settle(role, name, "name")
        else:
            rest.append(name)
    for name in list(rest):
        if looks_like_beam(*images[name]):
            settle("pb", name, "header and range of values")
            rest.remove(name)
    rises = {name: rise(images[name][1]) for name in rest}
    for name in sorted(rest, key=rises.__getitem__):
        corrected = rises[name] > 1.5
        settle("pbcor" if corrected else "image", name, f"noise at the edge {rises[name]:.1f} times that in the middle")
    return roles, why


def main() -> None:
    """Classify the files in the directory given on the command line."""
    images = {}
    for path in sorted(Path(sys.argv[1]).glob("*.fits")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # astropy only warns of a truncated file
                with fits.open(path, memmap=False) as hdus:
                    images[path.name] = (hdus[0].header, np.squeeze(hdus[0].data))
        except (OSError, TypeError, ValueError, Warning) as error:
            sys.exit(f"{path.name} cannot be read as FITS: {error}")
        if images[path.name][1].ndim != 2:
            del images[path.name]
    if not images:
        sys.exit("There is no FITS image in the product directory.")
    roles, why = classify(images)
    result = {**{role: roles.get(role) for role in ("image", "pb", "pbcor")}, "why": "; ".join(why)}
    Path("cwl.output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
