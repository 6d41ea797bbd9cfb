"""What the documentation says can be checked: links, code, examples, names of settings."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from stoa_chassis.settings import ServiceSettings
from stoa_contracts import events
from stoa_contracts.envelope import Envelope
from stoa_scheduler.settings import SchedulerSettings
from stoa_tables.settings import TablesSettings

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


@pytest.mark.parametrize("settings", [ServiceSettings, TablesSettings, SchedulerSettings])
def test_operations_names_every_setting_and_no_other(settings: type[ServiceSettings]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text().partition("## Settings")[2].partition("## What is where")[0]
    named = {word for row in re.findall(r"(?m)^\| (`.*?) \|", text) for word in re.findall(r"`(\w+)`", row)}
    assert set(settings.model_fields) <= named, "a setting is missing in docs/operations.md"
    everything = {name for kind in (ServiceSettings, TablesSettings, SchedulerSettings) for name in kind.model_fields}
    assert named <= everything, "docs/operations.md names a setting that does not exist"


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
