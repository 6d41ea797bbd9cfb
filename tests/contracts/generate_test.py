"""The published documents are what the models say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoa_contracts.generate import SCHEMAS, asyncapi, documents, incompatibilities, main
from stoa_contracts.registry import event_types


def test_the_documents_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_drift_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    assert main(["--check", "--folder", str(tmp_path)]) == 0
    (tmp_path / "tables" / "rows-added.1.json").unlink()
    (tmp_path / "tables" / "rows-eaten.1.json").write_text("{}")
    assert main(["--check", "--folder", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "tables/rows-added.1.json is not what the models say" in message
    assert "tables/rows-eaten.1.json describes an event version that the registry no longer holds" in message


def test_an_incompatible_change_of_a_version_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    file = tmp_path / "tables" / "rows-removed.1.json"
    older = json.loads(file.read_text())
    older["properties"]["reason"] = {"type": "string"}
    older["description"] = "Another description."
    file.write_text(json.dumps(older))
    assert main(["--folder", str(tmp_path)]) == 1
    assert (
        "tables/rows-removed.1.json: /properties: reason was removed; give the event a new version"
        in capsys.readouterr().err
    )
    assert json.loads(file.read_text()) == older


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda schema: schema.update(description="Told otherwise"), []),
        (lambda schema: schema["properties"].pop("rows"), ["/properties: rows was removed"]),
        (lambda schema: schema["required"].append("extra"), ["/required: changed from"]),
        (lambda schema: schema["properties"]["table"].update(type="integer"), ["/properties/table/type: changed from"]),
        (
            lambda schema: schema["properties"].update(description={"type": "string"}),
            ["/properties: description was added"],
        ),
    ],
)
def test_what_is_incompatible(change: Callable[[dict[str, Any]], Any], expected: list[str]) -> None:
    old = documents()["tables/rows-removed.1.json"]
    new = copy.deepcopy(old)
    change(new)
    found = list(incompatibilities(old, new))
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))


def test_the_asyncapi_document_holds_every_event() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == {f"{t.service}.{t.name}" for t in event_types()}
    for key, channel in document["channels"].items():
        service, name = key.split(".", 1)
        assert channel["address"] == f"stoa.{service}.{{stream}}.{name}"
        assert channel["description"]
        assert document["components"]["messages"][key]["payload"]["allOf"][1]["properties"]["data"]["properties"]
    assert "$defs" not in json.dumps(document["components"]["messages"])


def test_the_documents_stand_beside_the_contracts() -> None:
    assert (SCHEMAS / "asyncapi.json").is_file()
