"""What the documentation says can be checked: links, code, examples, names of settings."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from stoa_chassis.settings import ServiceSettings
from stoa_contracts import events
from stoa_contracts.envelope import Envelope

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "changelog.d").glob("*.md"),
        *(ROOT / "examples").glob("*/*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^ *```", page.read_text())
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) for indent, block in found]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{_name(page)} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{_name(page)} links to {target}, which has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_in_python_yaml_and_json_can_be_read(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(block)
    for block in _blocks(page, "yaml"):
        yaml.safe_load(block)
    for block in _blocks(page, "json"):
        json.loads(block)


def test_the_event_that_is_shown_is_an_event() -> None:
    (block,) = _blocks(ROOT / "docs" / "subscribing.md", "json")
    envelope = Envelope.from_bytes(block)
    assert isinstance(envelope.event(), events.tables.RowEdited)
    assert envelope.event().model_dump(mode="json", exclude_none=True) == envelope.data
    assert envelope.bus_subject.startswith("stoa.tables.")


def _settings() -> list[type[ServiceSettings]]:
    for path in (ROOT / "services").glob("*/stoa_*/settings.py"):
        importlib.import_module(f"{path.parent.name}.settings")
    return [ServiceSettings, *ServiceSettings.__subclasses__()]


@pytest.mark.parametrize("settings", _settings())
def test_operations_names_every_setting(settings: type[ServiceSettings]) -> None:
    missing = set(settings.model_fields) - _settings_named()
    assert not missing, "docs/operations.md does not say what these settings mean"


def test_operations_names_no_setting_that_does_not_exist() -> None:
    assert _settings_named() <= {name for kind in _settings() for name in kind.model_fields}


def _settings_named() -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text().partition("## Settings")[2].partition("## What is where")[0]
    return {word for row in re.findall(r"(?m)^\| (`.*?) \|", text) for word in re.findall(r"`(\w+)`", row)}


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_the_picture_can_be_drawn_and_read_aloud() -> None:
    from xml.etree import ElementTree as ET

    root = ET.parse(ROOT / "docs" / "worktables.svg").getroot()  # noqa: S314 - likewise
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "docs/worktables.svg" in (ROOT / "README.md").read_text()
