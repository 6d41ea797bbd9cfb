"""Every version ever written loads for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stoa_contracts.envelope import Envelope
from stoa_contracts.registry import event_type, event_types

GOLDEN = Path(__file__).resolve().parents[2] / "contracts" / "golden"
FILES = sorted(GOLDEN.rglob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(GOLDEN)))
def test_a_golden_event_loads(file: Path) -> None:
    content = file.read_bytes()
    envelope = Envelope.from_bytes(content)
    newest = max(
        (t for t in event_types() if (t.service, t.name) == (envelope.service, envelope.name)), key=lambda t: t.version
    )
    assert isinstance(envelope.event(), newest.model)
    assert envelope.to_bytes() == content, "the canonical bytes of a stored event changed"
    assert file.parent.name == f"{envelope.name}.{envelope.schema_version}"


def test_the_corpus_is_append_only() -> None:
    lines = (line.split("  ", 1) for line in (GOLDEN / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in lines}
    found = {str(file.relative_to(GOLDEN)): hashlib.sha256(file.read_bytes()).hexdigest() for file in FILES}
    assert found == sums


def test_every_version_has_a_golden_event() -> None:
    folders = {(file.parent.parent.name, *file.parent.name.rsplit(".", 1)) for file in FILES}
    assert {(t.service, t.name, str(t.version)) for t in event_types()} <= folders


def test_every_golden_event_is_of_a_known_owner_and_subject() -> None:
    for file in FILES:
        envelope = Envelope.from_bytes(file.read_bytes())
        registered = event_type(envelope.service, envelope.name, envelope.schema_version)
        assert envelope.bus_subject == registered.subject(envelope.subject)
        assert envelope.dataschema == registered.dataschema
