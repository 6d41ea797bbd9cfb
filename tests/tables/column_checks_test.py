"""What a person may say of a column."""

from __future__ import annotations

from typing import Any

import pytest

from stoa_contracts.types import Column, Display
from stoa_tables.column_checks import check_display, check_ucd, check_unit
from stoa_tables.problems import InvalidRequestError
from tests.tables.harness import Harness


@pytest.mark.parametrize(
    "unit",
    [
        "mJy",
        "km/s",
        "km.s**-1",
        "deg",
        "mag",
        "Angstrom",
        "erg.s**-1.cm**-2",
        "Jy/beam",
        "solMass",
        "adu",
        "pixel",
        "10**3m",
    ],
)
def test_vounits_are_taken(unit: str) -> None:
    check_unit(unit)


@pytest.mark.parametrize(
    ("unit", "suggestion"),
    [
        ("Msun", "solMass"),
        ("erg/s/cm2", "erg.cm**-2.s**-1"),
        ("photons", "photon"),
        ("bananas", None),
        ("kms^^", None),
        ("m" * 5000, None),
        ("[", None),
    ],
)
def test_what_is_no_unit_is_refused_with_what_was_meant(unit: str, suggestion: str | None) -> None:
    with pytest.raises(InvalidRequestError, match="no unit in the VOUnits syntax") as caught:
        check_unit(unit)
    found = caught.value.members["suggestion"]
    if suggestion is None:
        assert found is None
        return
    assert sorted(found.split(".")) == sorted(suggestion.split("."))
    assert f"did you mean '{found}'?" in str(caught.value)
    check_unit(found)


@pytest.mark.parametrize(
    "ucd", ["pos.eq.ra;meta.main", "phot.mag;em.opt.V", "meta.id", "POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN", "ID_MAIN"]
)
def test_ucds_are_taken(ucd: str) -> None:
    check_ucd(ucd)


@pytest.mark.parametrize(
    ("ucd", "suggestion"),
    [
        ("pos.eq.raa", "pos.eq.ra"),
        ("em.opt.V;phot.mag", "phot.mag;em.opt.V"),
        ("POS_EQ_RA", "pos.eq.ra"),
        ("banana", None),
        ("VOX:Image_Title", None),
        ("pos.eq.ra;" * 1000, None),
    ],
)
def test_what_is_no_ucd_is_refused_with_what_was_meant(ucd: str, suggestion: str | None) -> None:
    with pytest.raises(InvalidRequestError, match=r"is no UCD1\+") as caught:
        check_ucd(ucd)
    assert caught.value.members["suggestion"] == suggestion


@pytest.mark.parametrize(
    ("display", "kind", "shown"),
    [
        ("link", "string?", True),
        ("image", "File", True),
        ("fits", ["null", "File"], True),
        ("fits", {"type": "array", "items": "File"}, True),
        ("sexagesimal", "double", True),
        ("sexagesimal", "Any", True),
        ("sexagesimal", "string", False),
        ("link", "int", False),
        ("image", "Directory", False),
        ("fits", {"type": "enum", "symbols": ["a"]}, False),
    ],
)
def test_how_values_are_shown_fits_their_type(display: Display, kind: Any, shown: bool) -> None:
    column = Column(name="x", role="input", type=kind, display=display)
    if shown:
        check_display(column)
        return
    with pytest.raises(InvalidRequestError, match=f"The column x holds .* what is shown as {display} is"):
        check_display(column)


async def test_a_column_is_described_only_with_what_makes_sense(stoa: Harness) -> None:
    await stoa.plain("t", {"ra": "double", "name": "string"})
    said = {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "display": "sexagesimal", "description": "Right ascension"}
    detail = await stoa.patch("/tables/t/columns/ra", said)
    column = detail["columns"][0]
    assert {name: column[name] for name in said} == said
    head = await stoa.head()
    for wrong in ({"unit": "degrees of freedom"}, {"ucd": "pos.eq.raa"}, {"display": "image"}, {"display": "hologram"}):
        await stoa.patch("/tables/t/columns/ra", {**wrong, "label": "RA"}, expect=422)
    assert await stoa.head() == head
    detail = await stoa.patch("/tables/t/columns/ra", {"display": None, "unit": None})
    assert (detail["columns"][0]["display"], detail["columns"][0]["unit"]) == (None, None)
    columns = [{"name": "x", "type": "double", "unit": "furlong"}]
    await stoa.post("/tables", {"name": "u", "columns": columns}, expect=422)
    columns = [{"name": "x", "type": "File", "display": "fits"}]
    created = await stoa.post("/tables", {"name": "u", "columns": columns})
    assert created["columns"][0]["display"] == "fits"
    assert stoa.rebuilt()[1] == []


async def test_a_new_workflow_keeps_how_a_column_is_shown(quick: Harness) -> None:
    await quick.worktable("t", {"ra": "double"}, {"y": "int"})
    await quick.patch("/tables/t/columns/ra", {"display": "sexagesimal"})
    tool = b'{"cwlVersion": "v1.2", "class": "CommandLineTool", "baseCommand": "false", "inputs": {"ra": "double"}, "outputs": {}}'
    response = await quick.request("PUT", "/tables/t/workflow", files=[("files", ("main.cwl", tool))], expect=200)
    assert response.json()["columns"][0]["display"] == "sexagesimal"
