"""The worktables of the example: their documents are sound, and they find what was put into the archive."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from cwl_utils.parser import load_document_by_uri
from cwltool.main import main as cwltool

from tests.examples.conftest import EXAMPLE, Archive, Engine, Script, ToolError

ROLES = ("image", "pb", "pbcor")
#: The targets whose files the classification mistakes.
MISTAKEN = {"NGC_253", "Sgr_B2", "HL_Tau"}
NOT_DERIVABLE = "There is no corrected image and it cannot be made, because the product lacks the primary beam."

CommandLine = Callable[..., CompletedProcess[str]]


@pytest.fixture(params=["sep", "source-extractor"])
def finder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Leaves one source finder only."""
    if request.param == "sep":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif shutil.which("source-extractor") is None:
        pytest.skip("source-extractor is not installed; sep is tested")
    return str(request.param)


def project() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLE / "project.yaml").read_text())
    return loaded


def parameters(table: dict[str, Any]) -> tuple[set[str], set[str]]:
    process = load_document_by_uri((EXAMPLE / table["workflow"]["main"]).as_uri())
    return tuple({p.id.split("#")[-1].split("/")[-1] for p in group} for group in (process.inputs, process.outputs))  # type: ignore[return-value]


def arguments(guess: dict[str, Any], **corrections: str) -> list[str]:
    """Write the roles as options of the script that corrects."""
    chosen = {role: guess[role] for role in ROLES} | corrections
    return [f"--{role}={name}" for role, name in chosen.items() if name]


def offsets(truth: Any, found: dict[str, Any]) -> np.ndarray:
    """Distances in arcsec between each true and each found source."""
    ra, dec = (np.asarray(found[key])[np.newaxis] for key in ("ra", "dec"))
    true_ra, true_dec = (np.asarray(truth[key])[:, np.newaxis] for key in ("ra", "dec"))
    return np.asarray(np.hypot((ra - true_ra) * np.cos(np.radians(true_dec)), dec - true_dec) * 3600)


# -- documents


@pytest.mark.parametrize("document", sorted(path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.cwl")), ids=str)
def test_documents_are_valid_and_every_parameter_is_explained(document: Path) -> None:
    assert cwltool(["--quiet", "--validate", str(EXAMPLE / document)]) == 0
    process = load_document_by_uri((EXAMPLE / document).as_uri())
    assert process.cwlVersion == "v1.2"
    for described in (process, *process.inputs, *process.outputs):
        assert described.label, described.id
        assert described.doc, described.id


def test_the_project_file_fits_its_schema() -> None:
    schema = json.loads((EXAMPLE.parent / "project.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(project(), schema)


def test_the_project_file_names_all_files_and_only_columns_that_exist() -> None:
    tables = {table["name"]: table for table in project()["tables"]}
    columns: dict[str, set[str]] = {}
    for name, table in tables.items():
        if "join" in table:
            join = table["join"]
            for pair in join["match"]:
                assert pair[0] in columns[join["left"]]
                assert pair[1] in columns[join["right"]]
            for source in join["columns"].values():
                parent, column = source.split(".")
                assert column in columns[parent], source
            columns[name] = set(join["columns"])
        else:
            inputs, outputs = parameters(table)
            columns[name] = inputs | outputs
            for row in table.get("rows", []):
                assert row.keys() <= inputs
            for link in table.get("links", []):
                assert link["mapping"].keys() <= inputs
                assert set(link["mapping"].values()) <= columns[link["parent"]]
                assert set(link["keys"]) <= link["mapping"].keys()
            bundle = {table["workflow"]["main"], *table["workflow"]["files"]}
            folder = (EXAMPLE / table["workflow"]["main"]).parent
            on_disk = {p.relative_to(EXAMPLE).as_posix() for p in folder.iterdir() if p.suffix in {".cwl", ".py"}}
            assert bundle == on_disk
        assert table["columns"].keys() <= columns[name]


# -- products and coordinates


def test_products_gives_the_real_paths_of_the_product_directories(
    archive: Archive, engine: Engine, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(archive.directory)
    found = engine("products/products.cwl", archive=link)["product"]
    assert found == sorted(map(str, archive.products().values()))


def test_an_archive_without_products_says_so(script: Script, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolError, match=r"There is no directory named 'product' under .*/empty"):
        script("products/list_products.py", tmp_path / "empty")


def test_coordinates_are_those_of_the_target(archive: Archive, engine: Engine) -> None:
    read = engine("grabcoords/grabcoords.cwl", product=archive.products()["Sgr_B2"])
    assert read["member"] == archive.sources("Sgr_B2")["member"][0]
    assert read["object"] == "Sgr_B2"
    assert (read["ra"], read["dec"]) == (266.83333, -28.385)
    assert read["frequency"] == pytest.approx(233.0)


# -- the guess


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_guess_is_wrong_where_names_and_statistics_mislead_and_nowhere_else(
    generator: ModuleType, archive: Archive, script: Script, tmp_path: Path, seed: int
) -> None:
    if seed != 1:
        generator.make_archive(tmp_path / "archive", seed=seed, observations=24)
        archive = Archive(tmp_path / "archive")
    wrong = set()
    for target, product in archive.products().items():
        guess = script("classify/classify.py", product)
        if {role: guess[role] for role in ROLES if guess[role]} != archive.roles(target):
            wrong.add(target)
    assert wrong == MISTAKEN


def test_the_guess_says_what_it_rests_on(archive: Archive, engine: Engine) -> None:
    guess = engine("classify/classify.cwl", product=archive.products()["HL_Tau"])
    assert guess["pb"] == "HL_Tau_cont_pb.fits"
    assert guess["pbcor"] is None
    assert "pb by name" in guess["why"]
    assert "HL_Tau_cont_flux.fits looks like pb too" in guess["why"]


def test_a_damaged_image_is_named(archive: Archive, script: Script, tmp_path: Path) -> None:
    product = tmp_path / "product"
    shutil.copytree(archive.products()["NGC_1097"], product)
    image = next(product.iterdir())
    image.write_bytes(image.read_bytes()[:100_000])
    for arguments_ in (("classify/classify.py",), ("sources/correct.py", f"--pbcor={image.name}")):
        with pytest.raises(ToolError, match=f"{image.name} cannot be read as FITS"):
            script(arguments_[0], product, *arguments_[1:])


# -- the corrected image


def test_a_missing_corrected_image_is_made_by_division(archive: Archive, script: Script) -> None:
    from astropy.io import fits

    product, roles = archive.products()["Cen_A"], archive.roles("Cen_A")
    made = script("sources/correct.py", product, f"--image={roles['image']}", f"--pb={roles['pb']}")
    assert made["derived"] is True
    np.testing.assert_allclose(fits.getdata(made["corrected"]), fits.getdata(product / roles["pbcor"]), rtol=1e-5)


def test_a_name_that_is_not_in_the_product_is_answered_with_those_that_are(archive: Archive, script: Script) -> None:
    product = archive.products()["HL_Tau"]
    with pytest.raises(
        ToolError, match=r"no file 'HL_Tau\.fits' that could be the corrected image; it holds HL_Tau_cont\.fits, "
    ):
        script("sources/correct.py", product, "--pbcor=HL_Tau.fits")
    outside = next(archive.products()["Cen_A"].iterdir())
    with pytest.raises(ToolError, match="no file"):
        script("sources/correct.py", product, f"--pbcor={outside}")


def test_where_the_primary_beam_is_missing_the_run_fails_with_one_sentence(
    archive: Archive, command_line: CommandLine
) -> None:
    image = archive.roles("Circinus")["image"]
    ended = command_line("sources/sources.cwl", product=archive.products()["Circinus"], image=image)
    assert ended.returncode == 1
    assert NOT_DERIVABLE in ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr


# -- the sources


def test_sources_are_those_that_were_put_in(archive: Archive, script: Script, finder: str) -> None:
    """Hold the finder to the README: complete from S/N 8, nothing that is not there, positions and fluxes within errors.

    Positions agree to five standard errors and from S/N 20 to a tenth of the beam; fluxes to five standard errors, from
    S/N 50 to 10 percent, and in the median to 3 percent.
    """
    names = {"sep": "sep", "source-extractor": "SExtractor"}
    ratios, pulls, missed, spurious, compared = [], [], [], [], 0
    for target, product in archive.products().items():
        roles = archive.roles(target)
        if target == "Circinus":
            continue
        made = script("sources/correct.py", product, *arguments({role: roles.get(role) for role in ROLES}))
        found = script("sources/find_sources.py", made["corrected"], 5.0)
        assert found["finder"].split()[0] == names[finder]
        # In a corrected image the noise rises as the primary beam falls, to its cutoff at 0.2.
        assert 3 < found["noise_rise"] < 5.5, target
        truth, beam = archive.sources(target), archive.beam(target)
        distance = offsets(truth, found)
        nearest = distance.argmin(axis=1)
        missed += [
            (target, row["snr"]) for row, near in zip(truth, distance.min(axis=1), strict=True) if near > 0.5 * beam
        ]
        spurious += [(target, found["snr"][i]) for i in np.flatnonzero(distance.min(axis=0) > 0.5 * beam)]
        for row, i, near in zip(truth, nearest, distance.min(axis=1), strict=True):
            if row["snr"] < 8 or near > 0.5 * beam:
                continue
            compared += 1
            assert near < 5 * found["position_error"][i], target
            if row["snr"] > 20:
                assert near < 0.1 * max(beam, row["fwhm"]), target
            if row["snr"] > 50:
                assert found["flux"][i] == pytest.approx(row["flux"], rel=0.1), target
            ratios.append(found["flux"][i] / row["flux"])
            # An aperture is good to 2 percent, however little noise there is.
            pulls.append((found["flux"][i] - row["flux"]) / np.hypot(found["flux_error"][i], 0.02 * row["flux"]))
    assert compared > 70
    assert [entry for entry in missed if entry[1] >= 8] == []
    assert spurious == []
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    # The errors are honest: deviations are as large as they say.
    assert 0.7 < np.std(pulls) < 1.4
    assert np.abs(pulls).max() < 5


def test_an_empty_field_has_no_sources(archive: Archive, script: Script, finder: str) -> None:
    corrected = archive.products()["NGC_1097"] / archive.roles("NGC_1097")["pbcor"]
    found = script("sources/find_sources.py", corrected, 1e6)
    assert finder in {"sep", "source-extractor"}
    assert [found[name] for name in ("ra", "dec", "position_error", "flux", "flux_error", "peak", "snr")] == [[]] * 7


def test_the_chain_of_documents_finds_a_known_source(archive: Archive, engine: Engine) -> None:
    product = archive.products()["TW_Hya"]
    guess = engine("classify/classify.cwl", product=product)
    found = engine("sources/sources.cwl", product=product, **{role: guess[role] for role in ROLES})
    assert found["derived"] is True
    assert found["corrected"]["basename"] == guess["image"].removesuffix(".fits") + ".pbcor.fits"
    assert found["member"] == archive.sources("TW_Hya")["member"][0]
    lists = {name: value for name, value in found.items() if isinstance(value, list)}
    assert len({len(value) for value in lists.values()}) == 1
    assert len(lists["ra"]) >= 5
    truth = archive.sources("TW_Hya")
    distance = offsets(truth, found)
    assert (distance.min(axis=1)[truth["snr"] >= 8] < 0.5 * archive.beam("TW_Hya")).all()


# -- wrong guesses: how they show, and what a correction does


def test_swapped_names_give_fluxes_that_are_too_low_until_corrected(archive: Archive, engine: Engine) -> None:
    product, truth = archive.products()["NGC_253"], archive.sources("NGC_253")
    guess = engine("classify/classify.cwl", product=product)
    inputs = {role: guess[role] for role in ROLES}
    outer = (truth["response"] < 0.6) & (truth["snr"] > 8)
    assert outer.any()

    def fluxes(found: dict[str, Any]) -> np.ndarray:
        measured = np.asarray(found["flux"])[offsets(truth[outer], found).argmin(axis=1)]
        return np.asarray(measured / truth["flux"][outer])

    wrong = engine("sources/sources.cwl", product=product, **inputs)
    assert wrong["noise_rise"] < 1.5
    assert (fluxes(wrong) < 0.75).all()
    right = engine("sources/sources.cwl", product=product, **inputs | {"pbcor": guess["image"]})
    assert 3 < right["noise_rise"] < 5.5
    assert fluxes(right) == pytest.approx(1, abs=0.3)


def test_an_image_corrected_twice_shows_in_its_noise(archive: Archive, script: Script) -> None:
    product = archive.products()["Sgr_B2"]
    guess = script("classify/classify.py", product)
    wrong = script("sources/correct.py", product, *arguments(guess))
    assert script("sources/find_sources.py", wrong["corrected"], 5.0)["noise_rise"] > 8
    right = script("sources/correct.py", product, *arguments(guess, pbcor=guess["image"]))
    assert right["derived"] is False
    assert 3 < script("sources/find_sources.py", right["corrected"], 5.0)["noise_rise"] < 5.5


def test_a_corrected_image_taken_for_the_beam_fails_with_one_sentence(archive: Archive, script: Script) -> None:
    product = archive.products()["HL_Tau"]
    guess = script("classify/classify.py", product)
    with pytest.raises(
        ToolError,
        match=r"^HL_Tau_cont_pb\.fits is not a primary beam: its values lie between .* not between 0 and 1\.$",
    ):
        script("sources/correct.py", product, *arguments(guess))
    right = script("sources/correct.py", product, *arguments(guess, pbcor=guess["pb"]))
    assert right["corrected"].name == "HL_Tau_cont_pb.fits"


def test_the_readme_corrects_the_wrong_guesses_with_the_right_names(archive: Archive) -> None:
    named = set(re.findall(r"stoa table edit sources ROW pbcor=(\S+)", (EXAMPLE / "README.md").read_text()))
    assert named == {archive.roles(target)["pbcor"] for target in MISTAKEN}
