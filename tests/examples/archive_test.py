"""The archive of the example: small, reproducible, restored where damaged, and what it claims to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from tests.examples.conftest import EXAMPLE, Archive


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "make_archive.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seed_gives_the_same_archive_each_time_and_another_seed_another(
    generator: ModuleType, tmp_path: Path
) -> None:
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        generator.make_archive(tmp_path / name, seed=seed, observations=2)
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first.keys() != other.keys()
    assert not set(first.values()) & set(other.values())


def test_the_archive_is_small_and_holds_every_case(archive: Archive) -> None:
    size = sum(path.stat().st_size for path in archive.directory.rglob("*") if path.is_file())
    assert size < 40e6
    assert len(list(archive.directory.rglob("product"))) == 24
    held = {target: set(archive.roles(target)) for target in archive.products()}
    assert {"image"} in held.values()
    assert {"image", "pb"} in held.values()
    assert {"pbcor"} in held.values()
    assert sum(roles == {"image", "pb", "pbcor"} for roles in held.values()) > 12


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_images_are_what_the_truth_says(archive: Archive) -> None:
    product = archive.products()["Cen_A"]
    read = {role: fits.getdata(product / name).squeeze() for role, name in archive.roles("Cen_A").items()}
    assert np.nanmax(read["pb"]) == 1
    np.testing.assert_allclose(read["image"] / read["pb"], read["pbcor"], rtol=1e-5)
    assert np.array_equal(np.isnan(read["pb"]), np.isnan(read["image"]))
    header = fits.getheader(product / archive.roles("Cen_A")["image"])
    assert {key: header[key] for key in ("OBJECT", "BUNIT", "RADESYS", "CTYPE1", "CTYPE2", "TELESCOP")} == {
        "OBJECT": "Cen_A",
        "BUNIT": "Jy/beam",
        "RADESYS": "ICRS",
        "CTYPE1": "RA---SIN",
        "CTYPE2": "DEC--SIN",
        "TELESCOP": "ALMA",
    }
    assert header["BMAJ"] > header["BMIN"] > 0
    brightest = archive.sources("Cen_A")
    brightest = brightest[np.argmax(brightest["snr"])]
    x, y = WCS(header).celestial.wcs_world2pix(brightest["ra"], brightest["dec"], 0)
    assert read["image"][round(float(y)), round(float(x))] == pytest.approx(
        brightest["peak"] * brightest["response"], rel=0.1
    )


def test_the_beam_is_elongated_along_its_position_angle(archive: Archive) -> None:
    # The longest correlation of the noise lies along the beam's major axis, counted from north through east (left).
    for target in ("M_83", "HUDF", "R_Leo", "Orion_KL"):
        product = archive.products()[target]
        name = archive.roles(target)["image"]
        header, data = fits.getheader(product / name), np.nan_to_num(fits.getdata(product / name).squeeze())
        noise = np.median(np.abs(data[data != 0])) * 1.48
        clipped = np.clip(data, -3 * noise, 3 * noise)
        correlation = np.fft.fftshift(np.fft.ifft2(np.abs(np.fft.fft2(clipped)) ** 2).real)
        y, x = np.indices(correlation.shape) - correlation.shape[0] // 2
        weight = np.where(np.hypot(x, y) < 6, correlation, 0)
        xx, yy, xy = (np.sum(weight * moment) for moment in (x * x, y * y, x * y))
        longest = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) - 90
        assert abs((longest - header["BPA"] + 90) % 180 - 90) < 30, target


def test_a_second_run_over_an_intact_archive_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "archive"
    made = command(directory, "--observations", 2)
    assert (made.returncode, made.stderr) == (0, "")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = command(directory, "--observations", 2)
    assert (again.returncode, again.stderr) == (0, "")
    assert "intact" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_damaged_and_missing_files_are_restored_and_a_users_own_file_stays(
    generator: ModuleType, tmp_path: Path
) -> None:
    directory = tmp_path / "archive"
    generator.make_archive(directory, observations=2)
    before = contents(directory)
    damaged, missing = sorted(directory.rglob("*.fits"))[:2]
    damaged.write_bytes(damaged.read_bytes()[:5000])
    missing.unlink()
    (directory / "notes.txt").write_text("mine")
    written = generator.make_archive(directory, observations=2)
    assert {directory / name for name in written} == {damaged, missing}
    assert contents(directory) == {**before, "notes.txt": b"mine"}


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused = command(tmp_path)
    assert refused.returncode == 1
    assert (
        refused.stderr
        == f"make_archive: {tmp_path} is not empty and holds no archive of this script; give another directory\n"
    )
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_archive_of_another_seed_is_refused(generator: ModuleType, tmp_path: Path) -> None:
    generator.make_archive(tmp_path / "archive", observations=1)
    with pytest.raises(generator.ArchiveError, match="1 observations with seed 1, not of 1 with seed 2"):
        generator.make_archive(tmp_path / "archive", seed=2, observations=1)


def test_a_manifest_that_cannot_be_read_is_reported_with_its_path(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(generator.ArchiveError, match=r"manifest\.json cannot be read .* remove"):
        generator.make_archive(tmp_path)


def test_a_run_that_breaks_off_leaves_nothing(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(directory: Path, **_: int) -> None:
        (directory / "half.fits").write_bytes(b"SIMPLE")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["simulation"], "write_archive", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        generator.make_archive(tmp_path / "archive")
    assert list(tmp_path.iterdir()) == []
