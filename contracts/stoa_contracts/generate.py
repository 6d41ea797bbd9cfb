"""Write the JSON Schema of every event version and the AsyncAPI document: ``python -m stoa_contracts.generate``.

With ``--check`` nothing is written: the exit status is 1 if a file differs from what would be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stoa_contracts.envelope import MEDIA_TYPE, Envelope
from stoa_contracts.jobs import JobRequest
from stoa_contracts.registry import EventType, event_types
from stoa_contracts.subjects import EVENT_STREAM

__all__ = ["asyncapi", "documents", "event_schema", "incompatibilities", "main"]

#: Where the documents are kept: ``contracts/schemas`` of the checkout.
SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(event_type: EventType) -> dict[str, Any]:
    """Give the JSON Schema of the data of one event version."""
    schema = event_type.model.model_json_schema(mode="serialization")
    return {"$schema": _DIALECT, "$id": event_type.dataschema, **schema, "description": event_type.documentation}


def asyncapi() -> dict[str, Any]:
    """Describe for subscribers what is told on which subject (AsyncAPI 3.0)."""
    newest: dict[tuple[str, str], EventType] = {}
    for event_type in event_types():
        newest[event_type.service, event_type.name] = event_type
    channels, messages, operations = {}, {}, {}
    for (service, name), event_type in newest.items():
        key = f"{service}.{name}"
        channels[key] = {
            "address": event_type.subject("{stream}"),
            "description": event_type.documentation,
            "parameters": {"stream": {"description": "The id of the table that the event is about."}},
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
        }
        messages[key] = {
            "name": event_type.type,
            "title": name,
            "summary": event_type.documentation.split("\n\n")[0].replace("\n", " "),
            "contentType": MEDIA_TYPE,
            "payload": {
                "allOf": [
                    {"$ref": "#/components/schemas/Envelope"},
                    {
                        "type": "object",
                        "properties": {
                            "type": {"const": event_type.type},
                            "dataschema": {"const": event_type.dataschema},
                            "data": _inlined(event_type),
                        },
                    },
                ]
            },
        }
        operations[f"tell-{service}-{name}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": f"The {service} service tells {name}.",
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stoa: events",
            "version": "0.1.0",
            "description": (
                "Every event is a CloudEvents 1.0 structured JSON message on the JetStream stream "
                f"{EVENT_STREAM}. The same bytes are in each service's feed, GET /events?after=POSITION."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": MEDIA_TYPE,
        "servers": {"nats": {"host": "localhost:4222", "protocol": "nats"}},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"Envelope": Envelope.model_json_schema(mode="serialization")}},
    }


def _inlined(event_type: EventType) -> dict[str, Any]:
    # A reference inside a payload is resolved from the document's root, so a model's own definitions are put in place.
    schema = event_type.model.model_json_schema(mode="serialization")
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rsplit("/", 1)[1]]) | {
                    k: v for k, v in node.items() if k != "$ref"
                }
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def documents() -> dict[str, dict[str, Any]]:
    """Give every document by its path below the folder of schemas."""
    found = {f"{t.service}/{t.name}.{t.version}.json": event_schema(t) for t in event_types()}
    found["envelope.json"] = {"$schema": _DIALECT, **Envelope.model_json_schema(mode="serialization")}
    found["job-request.json"] = {"$schema": _DIALECT, **JobRequest.model_json_schema(mode="serialization")}
    found["asyncapi.json"] = asyncapi()
    return found


def incompatibilities(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Tell what a new schema of the same version refuses or gives otherwise than the old one.

    A subscriber that was written for the old schema must understand data of the new one, and stored data of the old one
    must load as the new one: fields may be documented anew, and nothing else. What changes the data needs a new version.

    Yields
    ------
    str
        One sentence for each difference.
    """
    silent = {"description", "title", "examples"}
    place = where or "the schema"
    if isinstance(old, dict) and isinstance(new, dict):
        # A property may well be called "description": only keywords of the schema are silent.
        keywords = silent if not where.endswith(("/properties", "/$defs")) else set()
        for key in sorted((old.keys() | new.keys()) - keywords):
            if key not in new:
                yield f"{place}: {key} was removed"
            elif key not in old:
                yield f"{place}: {key} was added"
            else:
                yield from incompatibilities(old[key], new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from incompatibilities(one, other, f"{where}/{number}")
    elif old != new or type(old) is not type(new):
        yield f"{place}: changed from {json.dumps(old)} to {json.dumps(new)}"


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the documents.

    Returns
    -------
    int
        0 if all is well; 1 if a document differs, is left over, or a version was changed incompatibly.
    """
    parser = argparse.ArgumentParser(prog="python -m stoa_contracts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a file differs")
    parser.add_argument("--folder", type=Path, default=SCHEMAS, help="where the documents are kept")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    wanted = documents()
    problems = []
    for path, document in wanted.items():
        file = folder / path
        present = file.read_text() if file.exists() else None
        if present == _text(document):
            continue
        if present is not None and "/" in path:
            problems += [
                f"{path}: {difference}; give the event a new version"
                for difference in incompatibilities(json.loads(present), document)
            ]
        if options.check:
            problems.append(f"{path} is not what the models say: run 'make schemas'")
        elif not problems:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_text(document))
    problems += [
        f"{file.relative_to(folder)} describes an event version that the registry no longer holds"
        for file in sorted(folder.rglob("*.json"))
        if str(file.relative_to(folder)) not in wanted
    ]
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
