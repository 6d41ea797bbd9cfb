"""Find the sources in a corrected radio image with SExtractor, or with its algorithms from the package sep."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

#: Pixels above this share of the threshold belong to a source.
OUTSKIRTS = 0.6
#: Kron's factor and the least radius of an aperture, as SExtractor's PHOT_AUTOPARAMS.
KRON_FACTOR, KRON_LEAST = 2.5, 3.5
#: Rings around the pointing centre in which the noise is measured.
RINGS = 8
#: SExtractor leaves out pixels whose noise is this large.
BLANK = 1e30

#: For each source: pixel position counted from 0, brightest pixel, its extent (standard deviation along the major
#: axis) in pixels, sum over an elliptical aperture, the aperture's semi-axes in pixels and its angle in radians from the
#: x axis.
Detections = dict[str, np.ndarray]


def noise_map(data: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, float, float]:
    """Estimate the noise at each pixel, and give with it the noise at the centre and at the edge.

    In a single pointing it depends on the distance from the pointing centre only. Sources are positive, so the negative
    pixels of a ring tell its noise undisturbed.
    """
    y, x = np.indices(data.shape)
    radius = np.hypot(x - centre[0], y - centre[1])
    edges = np.linspace(0, radius[np.isfinite(data)].max(), RINGS + 1)
    # The innermost rings are small and often full of the target.
    edges = np.delete(edges, [1, 2])
    middles, levels = [], []
    for inner, outer in pairwise(edges):
        negative = data[(radius >= inner) & (radius < outer) & (data < 0)]
        if negative.size >= 100:
            middles.append((inner + outer) / 2)
            levels.append(1.4826 * np.median(np.abs(negative)))
    if not levels:
        sys.exit("The noise cannot be estimated, because the image has next to no negative pixels.")
    everywhere = np.exp(np.interp(radius, middles, np.log(levels)))
    return np.where(np.isfinite(data), everywhere, BLANK), float(levels[0]), float(levels[-1])


def run_sextractor(program: str, data: np.ndarray, noise: np.ndarray, threshold: float, area: int) -> Detections:
    """Run SExtractor, which reads and writes files."""
    names = ["XWIN_IMAGE", "YWIN_IMAGE", "FLUX_MAX", "FLUX_AUTO", "A_IMAGE", "B_IMAGE", "KRON_RADIUS", "THETA_IMAGE"]
    fits.writeto("detect.fits", data.astype("f4"))
    fits.writeto("noise.fits", noise.astype("f4"))
    Path("columns.param").write_text("\n".join(names) + "\n")
    options = {
        "CATALOG_NAME": "found.txt",
        "CATALOG_TYPE": "ASCII",
        "PARAMETERS_NAME": "columns.param",
        "FILTER": "N",
        "BACK_TYPE": "MANUAL",
        "BACK_VALUE": "0",
        "WEIGHT_TYPE": "MAP_RMS",
        "WEIGHT_IMAGE": "noise.fits",
        "WEIGHT_THRESH": str(BLANK / 10),
        "DETECT_THRESH": str(threshold),
        "ANALYSIS_THRESH": str(threshold),
        "DETECT_MINAREA": str(area),
        "DEBLEND_MINCONT": "0.01",
        "CLEAN": "N",
        "PHOT_AUTOPARAMS": f"{KRON_FACTOR},{KRON_LEAST}",
        "VERBOSE_TYPE": "QUIET",
    }
    Path("default.sex").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    ended = subprocess.run([program, "detect.fits", "-c", "default.sex"], capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{program} failed: {ended.stderr.strip() or ended.stdout.strip()}")
    lines = Path("found.txt").read_text().splitlines()
    found = np.array([line.split() for line in lines], dtype=float).reshape(-1, len(names)).T
    columns = dict(zip(names, found, strict=True))
    return {
        "x": columns["XWIN_IMAGE"] - 1,
        "y": columns["YWIN_IMAGE"] - 1,
        "peak": columns["FLUX_MAX"],
        "extent": columns["A_IMAGE"],
        "sum": columns["FLUX_AUTO"],
        "a": columns["A_IMAGE"] * columns["KRON_RADIUS"],
        "b": columns["B_IMAGE"] * columns["KRON_RADIUS"],
        "theta": np.radians(columns["THETA_IMAGE"]),
    }


def run_sep(data: np.ndarray, noise: np.ndarray, threshold: float, area: int) -> Detections:
    """Run sep in the same way."""
    import sep  # noqa: PLC0415 - not needed where SExtractor is installed

    mask = noise >= BLANK
    found = sep.extract(
        data, threshold, err=noise, mask=mask, minarea=area, filter_kernel=None, deblend_cont=0.01, clean=False
    )
    x, y, a, b, theta = (found[name] for name in ("x", "y", "a", "b", "theta"))
    kron, _ = sep.kron_radius(data, x, y, a, b, theta, 6.0, mask=mask)
    scale = np.maximum(KRON_FACTOR * np.nan_to_num(kron), KRON_LEAST)
    total, _, _ = sep.sum_ellipse(data, x, y, a, b, theta, scale, mask=mask)
    # SExtractor's windowed positions: the window's sigma follows from the radius that holds half of the flux.
    half, _ = sep.flux_radius(data, x, y, 6.0 * a, 0.5, normflux=total, mask=mask)
    x_window, y_window, _ = sep.winpos(data, x, y, 2 / 2.3548 * half, mask=mask)
    return {
        # The window finds no rest where a source has no positive flux; its pixels still have a middle.
        "x": np.where(np.isfinite(x_window), x_window, x),
        "y": np.where(np.isfinite(y_window), y_window, y),
        "peak": found["peak"],
        "extent": a,
        "sum": total,
        "a": a * scale,
        "b": b * scale,
        "theta": theta,
    }


def find(data: np.ndarray, noise: np.ndarray, threshold: float, area: int) -> tuple[str, Detections]:
    """Run the finder that is there, and name it."""
    program = shutil.which("source-extractor")
    if program:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        return "SExtractor " + told.split("version")[-1].split()[0], run_sextractor(
            program, data, noise, threshold, area
        )
    try:
        from sep import __version__  # noqa: PLC0415 - not needed where SExtractor is installed
    except ImportError:
        sys.exit("There is no source finder here: install source-extractor, or the Python package sep.")
    return f"sep {__version__}", run_sep(data, noise, threshold, area)


def share_in_aperture(beam: np.ndarray, a: float, b: float, theta: float) -> float:
    """Tell how much of a point source's flux falls into an elliptical aperture.

    Parameters
    ----------
    beam
        Covariance matrix of the beam in pixels.
    a, b, theta
        Semi-axes of the aperture in pixels, and its angle in radians from the x axis.
    """
    turn = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    # Scaled so that the aperture becomes the unit circle, then integrated over the angle.
    scaled = np.diag([1 / a, 1 / b]) @ turn
    inverse = np.linalg.inv(scaled @ beam @ scaled.T)
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    rays = np.stack([np.cos(angles), np.sin(angles)])
    steepness = np.einsum("ia,ij,ja->a", rays, inverse, rays)
    inside = (1 - np.exp(-0.5 * steepness)) / steepness
    return float(inside.sum() / (1 / steepness).sum())


def measure(path: Path, threshold: float) -> dict[str, object]:
    """Find and measure the sources in an image."""
    with fits.open(path, memmap=False) as hdus:  # the step before has read it without complaint
        header = hdus[0].header
        data = np.squeeze(hdus[0].data).astype(np.float64)
    missing = [key for key in ("BMAJ", "BMIN", "BPA", "MEMBER") if key not in header]
    if missing:
        sys.exit(f"The header of {path.name} lacks {' and '.join(missing)}.")
    if data.ndim != 2:
        sys.exit(f"{path.name} is not an image of two dimensions.")
    with warnings.catch_warnings():
        # astropy tells that it filled in dates and the observatory's place, which nobody uses here.
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header).celestial
    cell = math.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    major, minor = (header[key] / cell / math.sqrt(8 * math.log(2)) for key in ("BMAJ", "BMIN"))
    beam_area = 2 * math.pi * major * minor
    north = math.radians(header["BPA"] + 90)
    turn = np.array([[math.cos(north), -math.sin(north)], [math.sin(north), math.cos(north)]])
    beam = turn @ np.diag([major**2, minor**2]) @ turn.T

    noise, centre_noise, edge_noise = noise_map(data, tuple(wcs.wcs.crpix - 1))
    finder, found = find(np.nan_to_num(data), noise, OUTSKIRTS * threshold, max(3, round(beam_area / 4)))
    columns = np.rint(found["x"]).astype(int).clip(0, data.shape[1] - 1)
    rows = np.rint(found["y"]).astype(int).clip(0, data.shape[0] - 1)
    local = noise[rows, columns]
    snr = found["peak"] / local
    keep = (snr >= threshold) & (local < BLANK)
    # The brightest comes first.
    order = np.flatnonzero(keep)[np.argsort(-snr[keep], kind="stable")]
    names = ("x", "y", "peak", "extent", "sum", "a", "b", "theta")
    x, y, peak, extent, total, a, b, theta = (found[name][order] for name in names)
    share = np.array([share_in_aperture(beam, *shape) for shape in zip(a, b, theta, strict=True)])
    # Noise is correlated over a beam: an aperture holds as many independent values as beams.
    error = local[order] * np.sqrt(np.maximum(np.pi * a * b / beam_area, 1))
    ra, dec = wcs.wcs_pix2world(x, y, 0)
    # The rule of submillimetre surveys, 0.6 FWHM over S/N (Ivison et al. 2007); a large source has a less certain middle.
    width = np.maximum(major, extent) * math.sqrt(8 * math.log(2)) * cell * 3600
    return {
        "member": header["MEMBER"],
        "finder": finder,
        "noise": centre_noise,
        "noise_rise": round(edge_noise / centre_noise, 3),
        "ra": ra.tolist(),
        "dec": dec.tolist(),
        "position_error": (0.6 * width / snr[order]).tolist(),
        "flux": (total / beam_area / share).tolist(),
        "flux_error": (error / share).tolist(),
        "peak": peak.tolist(),
        "snr": snr[order].tolist(),
    }


def main() -> None:
    """Measure the image with the threshold, both given on the command line."""
    result = measure(Path(sys.argv[1]), float(sys.argv[2]))
    Path("cwl.output.json").write_text(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
