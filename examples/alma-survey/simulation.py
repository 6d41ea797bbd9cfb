"""The simulated sky and telescope behind the example archive.

Kept apart from ``make_archive.py``, which only loads it where there is something to make: checking an intact archive
takes no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import EarthLocation
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.signal import fftconvolve

__all__ = ["write_archive"]

#: Image size in pixels, and the share of the image's half width at which the primary beam falls to its cutoff.
SIZE = 256
FILLING = 0.95
#: Response of the primary beam below which an image is blank, as in ALMA's products.
CUTOFF = 0.2
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
NAMED = {"image": "{stem}.image.fits", "pb": "{stem}.pb.fits", "pbcor": "{stem}.image.pbcor.fits"}


@dataclass(frozen=True)
class Plan:
    """What an observation looks at and which files its product directory holds.

    Attributes
    ----------
    target
        Name of the target.
    ra, dec
        Its position in degrees, ICRS.
    band
        ALMA's receiver band.
    files
        File name by what the file really is. ``{stem}`` is ALMA's usual name, ``{target}`` the target's.
    beam_unit
        Whether the primary beam image wrongly claims Jy/beam, as some old writers did.
    extended
        Whether a bright extended source fills the middle of the field.
    """

    target: str
    ra: float
    dec: float
    band: int
    files: dict[str, str] = field(default_factory=lambda: dict(NAMED))
    beam_unit: bool = False
    extended: bool = False


def _only(*roles: str) -> dict[str, str]:
    return {role: NAMED[role] for role in roles}


def _numbered(image: int | None, pb: int | None, pbcor: int | None) -> dict[str, str]:
    numbers = {"image": image, "pb": pb, "pbcor": pbcor}
    return {role: f"{{target}}_B{{band}}_cont_{n}.fits" for role, n in numbers.items() if n is not None}


#: The interesting cases come first, so that a smaller archive holds them too.
PLANS = (
    Plan("Cen_A", 201.36506, -43.01911, 6),
    # The corrected image is missing and can be made from the other two.
    Plan("TW_Hya", 165.46627, -34.70473, 7, _only("image", "pb")),
    # The two names were swapped when the files were archived: the image named pbcor is the one that is not corrected.
    Plan("NGC_253", 11.88806, -25.28880, 6, {**NAMED, "image": NAMED["pbcor"], "pbcor": NAMED["image"]}),
    # Without a primary beam there is no way to a corrected image.
    Plan("Circinus", 213.29146, -65.33922, 3, _only("image")),
    Plan("NGC_1068", 40.66963, -0.01329, 6, _numbered(image=2, pb=3, pbcor=1), beam_unit=True),
    # The image is corrected, but emission fills the middle of the field, so that its noise seems not to rise outwards.
    Plan("Sgr_B2", 266.83333, -28.38500, 6, _numbered(None, pb=2, pbcor=1), extended=True),
    # "pb" stands for "corrected for the primary beam" here, and the primary beam has CASA's old name for it.
    Plan(
        "HL_Tau",
        67.91017,
        18.23275,
        6,
        {"image": "{target}_cont.fits", "pb": "{target}_cont_flux.fits", "pbcor": "{target}_cont_pb.fits"},
    ),
    Plan("NGC_1097", 41.57938, -30.27489, 3, _only("pbcor")),
    Plan("M_83", 204.25383, -29.86576, 3),
    Plan("HUDF", 53.16250, -27.79139, 6),
    Plan("SDP_81", 135.79771, 0.65194, 7, _numbered(image=1, pb=3, pbcor=2)),
    Plan("R_Leo", 146.88961, 11.42888, 6),
    Plan("IRAS_16293", 248.09438, -24.47556, 7, _only("image", "pb"), beam_unit=True),
    Plan("COSMOS_AzTEC_3", 150.08631, 2.58900, 6),
    Plan("NGC_4945", 196.36449, -49.46821, 3, _only("image", "pbcor")),
    Plan("HD_163296", 269.08872, -21.95618, 6),
    Plan("Arp_220", 233.73854, 23.50313, 7, _numbered(image=2, pb=1, pbcor=None)),
    Plan("30_Dor", 84.67625, -69.10083, 3),
    Plan("SPT_0346-52", 56.69500, -52.08520, 7, _only("pb", "pbcor")),
    Plan("Fomalhaut", 344.41269, -29.62224, 6, _only("pbcor")),
    Plan("Orion_KL", 83.80875, -5.37250, 6),
    Plan("NGC_3256", 156.96363, -43.90375, 3, _numbered(image=3, pb=1, pbcor=2)),
    Plan("Serpens_SMM1", 277.45417, 1.25556, 6),
    Plan("W_Hya", 207.25832, -28.36764, 7),
)

BAND_FREQUENCY_HZ = {3: 97.5e9, 6: 233.0e9, 7: 343.5e9}
BAND_NOISE_JY = {3: 2.5e-5, 6: 4.0e-5, 7: 9.0e-5}


@dataclass(frozen=True)
class Field:
    """The instrument's part of an observation.

    Attributes
    ----------
    wcs
        Celestial coordinates of the pixels.
    cell
        Pixel size in arcsec.
    major, minor
        FWHM of the synthesised beam in pixels.
    pa
        Position angle of the beam, degrees east of north.
    noise
        Noise at the centre in Jy/beam.
    pb_fwhm
        FWHM of the primary beam in pixels.
    """

    wcs: WCS
    cell: float
    major: float
    minor: float
    pa: float
    noise: float
    pb_fwhm: float

    def primary_beam(self, x: Any, y: Any) -> Any:
        """Response of the antennas at pixel positions, counted from 0; 1 at the pointing centre."""
        centre = self.wcs.wcs.crpix - 1
        radius2 = (np.asarray(x) - centre[0]) ** 2 + (np.asarray(y) - centre[1]) ** 2
        return np.exp(-4 * np.log(2) * radius2 / self.pb_fwhm**2)


def _covariance(major: float, minor: float, pa: float) -> NDArray[np.float64]:
    """Covariance in pixels of a Gaussian of these FWHMs; north is up and east is left."""
    angle = np.radians(pa + 90)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    variances = np.diag([(major / FWHM_PER_SIGMA) ** 2, (minor / FWHM_PER_SIGMA) ** 2])
    return np.asarray(rotation @ variances @ rotation.T)


def _gaussian(amplitude: float, x: float, y: float, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw an elliptical Gaussian on the image's pixels."""
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(float)
    offset = np.stack([columns - x, rows - y])
    distance2 = np.einsum("iyx,ij,jyx->yx", offset, np.linalg.inv(covariance), offset)
    return np.asarray(amplitude * np.exp(-0.5 * distance2))


def _place(rng: np.random.Generator, plan: Plan, seen: Field) -> Iterator[tuple[float, float, float, float]]:
    """Draw the sources: pixel position, signal-to-noise ratio of the observed peak, FWHM in pixels."""
    centre = seen.wcs.wcs.crpix - 1
    taken: list[tuple[float, float, float]] = []
    x, y = centre + rng.normal(0, 3, 2)
    fwhm = 22.0 if plan.extended else rng.uniform(0.3, 1.0) * seen.major
    taken.append((x, y, 2 * fwhm))
    yield x, y, (400.0 if plan.extended else rng.uniform(40, 150)), fwhm
    reach = 0.5 * seen.pb_fwhm * np.sqrt(np.log2(1 / 0.26))
    for _ in range(int(rng.integers(5, 10))):
        for _attempt in range(100):
            radius, angle = reach * np.sqrt(rng.uniform(0.02, 1)), rng.uniform(0, 2 * np.pi)
            x, y = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
            # Far enough apart that no source is a matter of deblending.
            if all(np.hypot(x - a, y - b) > 4 * seen.major + clear for a, b, clear in taken):
                break
        else:
            continue
        taken.append((x, y, 0.0))
        fwhm = rng.uniform(0.3, 0.7) * seen.major if rng.uniform() < 0.3 else 0.0
        # Counts of faint galaxies are steep: N(>S) falls as S^-1.2 here.
        yield x, y, float(min(4.5 * rng.uniform(0.02, 1) ** (-1 / 1.2), 120.0)), fwhm


def _observe(rng: np.random.Generator, plan: Plan, seen: Field) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Simulate the three images of an observation, and list the sources in them."""
    beam = _covariance(seen.major, seen.minor, seen.pa)
    sky = np.zeros((SIZE, SIZE))
    sources = []
    for sx, sy, snr, fwhm in _place(rng, plan, seen):
        size = _covariance(fwhm, fwhm, 0) if fwhm else np.zeros((2, 2))
        response = float(seen.primary_beam(sx, sy))
        peak = snr * seen.noise
        sky += _gaussian(peak, sx, sy, beam + size)
        ra, dec = seen.wcs.wcs_pix2world(sx, sy, 0)
        sources.append(
            {
                "ra": float(ra),
                "dec": float(dec),
                # A source that is larger than the beam spreads its flux over more beams than one.
                "flux": peak / response * float(np.sqrt(np.linalg.det(beam + size) / np.linalg.det(beam))),
                "peak": peak / response,
                "snr": snr,
                "fwhm": fwhm * seen.cell,
                "response": response,
            }
        )
    pb = seen.primary_beam(*np.mgrid[:SIZE, :SIZE][::-1])
    centre = SIZE // 2
    # The autocorrelation of an interferometer's noise is its beam, so the kernel is narrower by the square root of two.
    kernel = _gaussian(1.0, centre, centre, beam / 2)
    noise = fftconvolve(rng.normal(size=(2 * SIZE, 2 * SIZE)), kernel, mode="same")[:SIZE, :SIZE]
    blank = pb < CUTOFF
    image = np.where(blank, np.nan, sky + noise * (seen.noise / noise.std()))
    return {"image": image, "pb": np.where(blank, np.nan, pb), "pbcor": image / pb}, sources


def _field(rng: np.random.Generator, plan: Plan) -> Field:
    frequency = BAND_FREQUENCY_HZ[plan.band]
    # FWHM of a 12 m antenna, as in ALMA's technical handbook.
    pb_fwhm = float(np.degrees(1.13 * 299792458.0 / frequency / 12.0)) * 3600
    cutoff_radius = 0.5 * pb_fwhm * np.sqrt(np.log2(1 / CUTOFF))
    cell = float(f"{cutoff_radius / (FILLING * SIZE / 2):.2g}")
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = [plan.ra, plan.dec]
    wcs.wcs.cdelt = [-cell / 3600, cell / 3600]
    wcs.wcs.crpix = [SIZE // 2 + 1, SIZE // 2 + 1]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    major = rng.uniform(5.5, 7.0)
    return Field(
        wcs=wcs,
        cell=cell,
        major=major,
        minor=major * rng.uniform(0.7, 0.95),
        pa=rng.uniform(-90, 90),
        noise=BAND_NOISE_JY[plan.band] * rng.uniform(0.7, 1.4),
        pb_fwhm=pb_fwhm / cell,
    )


def _header(plan: Plan, seen: Field, *, role: str, names: dict[str, str], date: Time) -> fits.Header:
    """Write a header like those of CASA's ``exportfits``."""
    site = EarthLocation.from_geodetic(-67.75493 * u.deg, -23.02922 * u.deg, 5058.7 * u.m)
    frequency = BAND_FREQUENCY_HZ[plan.band]
    header = fits.Header()
    header["BMAJ"] = (seen.major * seen.cell / 3600, "[deg]")
    header["BMIN"] = (seen.minor * seen.cell / 3600, "[deg]")
    header["BPA"] = (seen.pa, "[deg] east of north")
    header["BTYPE"] = "Intensity"
    header["OBJECT"] = plan.target
    if role != "pb" or plan.beam_unit:
        header["BUNIT"] = ("Jy/beam", "Brightness (pixel) unit")
    header["RADESYS"] = "ICRS"
    header["LONPOLE"] = 180.0
    header["LATPOLE"] = plan.dec
    for axis, (ctype, value, step, pixel, unit) in enumerate(
        (
            ("RA---SIN", plan.ra, -seen.cell / 3600, SIZE // 2 + 1, "deg"),
            ("DEC--SIN", plan.dec, seen.cell / 3600, SIZE // 2 + 1, "deg"),
            ("FREQ", frequency, 7.5e9, 1.0, "Hz"),
            ("STOKES", 1.0, 1.0, 1.0, ""),
        ),
        start=1,
    ):
        header[f"CTYPE{axis}"] = ctype
        header[f"CRVAL{axis}"] = value
        header[f"CDELT{axis}"] = step
        header[f"CRPIX{axis}"] = float(pixel)
        header[f"CUNIT{axis}"] = unit
    header["PV2_1"] = 0.0
    header["PV2_2"] = 0.0
    header["RESTFRQ"] = (frequency, "Rest Frequency (Hz)")
    header["SPECSYS"] = ("TOPO", "Spectral reference frame")
    header["TELESCOP"] = "ALMA"
    header["INSTRUME"] = "ALMA"
    header["OBSERVER"] = "simulated"
    header["DATE-OBS"] = date.isot
    header["TIMESYS"] = "UTC"
    header["OBSRA"] = plan.ra
    header["OBSDEC"] = plan.dec
    for name, value in zip("XYZ", (site.x, site.y, site.z), strict=True):
        header[f"OBSGEO-{name}"] = value.to_value("m")
    header["PROPCODE"] = names["project"]
    header["GROUP"] = names["group"].removeprefix("group.")
    header["MEMBER"] = names["member"].removeprefix("member.").replace("uid___", "uid://").replace("_", "/")
    header["DATE"] = (date.isot, "Date FITS file was written")
    header["ORIGIN"] = "Stoa's example archive, simulated"
    return header


def _plans(observations: int, rng: np.random.Generator) -> Iterator[Plan]:
    yield from PLANS[:observations]
    for number in range(len(PLANS), observations):
        ra, dec = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-0.95, 0.5)))
        yield Plan(f"Field_{number + 1}", round(ra, 5), round(float(dec), 5), 6)


def write_archive(directory: Path, *, seed: int, observations: int) -> None:
    """Write a whole archive into an empty directory.

    Parameters
    ----------
    directory
        An existing, empty directory.
    seed
        What the sources, the noise and the identifiers follow from.
    observations
        How many product directories to make.
    """
    streams = np.random.default_rng(seed).spawn(observations + 1)
    names_rng = streams[-1]
    sources: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    project, year, identifier = "", 0, 0
    for number, plan in enumerate(_plans(observations, names_rng)):
        rng = streams[number]
        # A few observations in a row belong to one project, as a proposal has several targets.
        if number % 3 == 0:
            year = 2016 + number // 3 % 6
            project = f"{year}.1.{names_rng.integers(1, 1800):05d}.S"
            identifier = int(names_rng.integers(0x20, 0x8000))
        run = f"uid___A001_X{0x14C1 + number // 3:x}"
        names = {
            "project": project,
            "goal": f"science_goal.{run}_X{identifier:x}",
            "group": f"group.{run}_X{identifier + 1:x}",
            "member": f"member.{run}_X{identifier + 2:x}",
        }
        identifier += 4
        product = Path(names["project"], names["goal"], names["group"], names["member"], "product")
        (directory / product).mkdir(parents=True)
        seen = _field(rng, plan)
        images, listed = _observe(rng, plan, seen)
        date = Time(year + 1.0 + names_rng.uniform(), format="decimalyear", scale="utc", precision=6)
        stem = f"{names['member']}.{plan.target}_sci.spw25_27_29_31.cont.I"
        member = ""
        for role, pattern in plan.files.items():
            header = _header(plan, seen, role=role, names=names, date=date)
            member = header["MEMBER"]
            name = pattern.format(stem=stem, target=plan.target, band=plan.band)
            hdu = fits.PrimaryHDU(images[role][np.newaxis, np.newaxis].astype(">f4"), header)
            hdu.writeto(directory / product / name)
            files.append({"member": member, "object": plan.target, "product": str(product), "file": name, "role": role})
        sources += [{"member": member, "object": plan.target, **source} for source in listed]
    truth = directory / "truth"
    truth.mkdir()
    _write_truth(truth, sources, files, seed=seed)


def _write_truth(truth: Path, sources: list[dict[str, Any]], files: list[dict[str, Any]], *, seed: int) -> None:
    table = Table(rows=sources)
    for name, unit, text in (
        ("ra", u.deg, "right ascension, ICRS"),
        ("dec", u.deg, "declination, ICRS"),
        ("flux", u.Jy, "integrated flux density"),
        ("peak", u.Jy / u.beam, "peak in the corrected image without noise"),
        ("snr", None, "observed peak over the noise at the field's centre"),
        ("fwhm", u.arcsec, "size of the source before convolution, 0 for a point"),
        ("response", None, "primary beam at the source"),
    ):
        table[name].unit = unit
        table[name].description = text
    table.meta["seed"] = seed
    table.write(truth / "sources.ecsv", format="ascii.ecsv")
    listing = Table(rows=files)
    listing["role"].description = "image: not corrected for the primary beam; pb: the primary beam; pbcor: corrected"
    listing.meta["seed"] = seed
    listing.write(truth / "files.ecsv", format="ascii.ecsv")
