"""The envelope is a CloudEvent that others can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stoa_contracts.canonical import canonical_json
from stoa_contracts.envelope import MEDIA_TYPE, Envelope, batch, read_batch
from stoa_contracts.registry import Event, UnknownEventError, event, load_event, upcaster
from stoa_contracts.types import Frozen

CORPUS = sorted((Path(__file__).resolve().parents[2] / "contracts" / "golden").rglob("*.json"))
SCHEMAS = Path(__file__).resolve().parents[2] / "contracts" / "schemas"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_cloudevents_package_reads_ours(file: Path) -> None:
    content = file.read_bytes()
    read = from_http_event(HTTPMessage({"content-type": MEDIA_TYPE}, content))
    ours = Envelope.from_bytes(content)
    assert read.get_id() == ours.id
    assert read.get_source() == ours.source
    assert read.get_type() == ours.type
    assert read.get_subject() == ours.subject
    assert read.get_time() == ours.time
    assert read.get_extension("position") == ours.position
    assert read.get_extension("correlationid") == ours.correlationid
    assert read.get_data() == ours.data


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_published_schemas_describe_what_is_written(file: Path) -> None:
    envelope = json.loads(file.read_bytes())
    jsonschema.validate(envelope, json.loads((SCHEMAS / "envelope.json").read_text()))
    service = envelope["source"].rsplit(":", 1)[1]
    schema = json.loads((SCHEMAS / service / f"{file.parent.name}.json").read_text())
    jsonschema.validate(envelope["data"], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(envelope["data"] | {"unknown": 1}, schema)


@given(json_values)
def test_the_canonical_form_reads_back_as_the_same_value(value: Any) -> None:
    written = canonical_json(value)
    assert json.loads(written) == value
    assert canonical_json(json.loads(written)) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"x": float("-inf")}]])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_batch_keeps_every_byte() -> None:
    contents = [file.read_bytes() for file in CORPUS]
    assert [envelope.to_bytes() for envelope in read_batch(batch(contents))] == contents


def test_events_never_change_and_take_no_unknown_field() -> None:
    fact = Envelope.from_bytes(CORPUS[0].read_bytes()).event()
    with pytest.raises(ValidationError, match="frozen"):
        fact.table = "another"  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(fact).model_validate(fact.model_dump() | {"surprise": 1})


def test_old_data_is_carried_forward_by_its_upcasters() -> None:
    class Measured(Event):
        """Something was measured."""

        value_deg: float

    event("observatory", "measured", 3)(Measured)
    upcaster("observatory", "measured", 1)(lambda data: {"value_arcsec": data["value"]})
    upcaster("observatory", "measured", 2)(lambda data: {"value_deg": data["value_arcsec"] / 3600})
    try:
        assert load_event("observatory", "measured", 1, {"value": 7200}) == Measured(value_deg=2)
        assert load_event("observatory", "measured", 3, {"value_deg": 2}) == Measured(value_deg=2)
        with pytest.raises(UnknownEventError, match="no event observatory/measured version 4"):
            load_event("observatory", "measured", 4, {})
        with pytest.raises(ValueError, match="registered twice"):
            event("observatory", "measured", 3)(Measured)
    finally:
        from stoa_contracts import registry

        del registry._types["observatory", "measured", 3]


def test_shared_values_are_frozen() -> None:
    assert Frozen.model_config["frozen"]
    assert Frozen.model_config["extra"] == "forbid"
