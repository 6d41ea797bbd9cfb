"""The envelope of every event: CloudEvents 1.0, structured JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stoa_contracts.canonical import canonical_json
from stoa_contracts.registry import Event, load_event
from stoa_contracts.types import Timestamp

__all__ = ["BATCH_MEDIA_TYPE", "MEDIA_TYPE", "Envelope", "batch", "read_batch"]

#: One event (CloudEvents JSON format, section 3).
MEDIA_TYPE = "application/cloudevents+json"

#: A list of events (CloudEvents JSON format, section 4).
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"

_timestamp = TypeAdapter(Timestamp)


class Envelope(BaseModel):
    """One event as it stands in the feed, in a message and in an export: the same bytes everywhere.

    Beside the attributes of CloudEvents 1.0 there are these extensions: ``position`` (the place in the owner's log, a
    decimal string because CloudEvents integers end at 2^31), ``streamversion`` (the place in the stream), ``actor``,
    ``correlationid`` and ``causationid``, and ``traceparent`` of the distributed tracing extension.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = Field(pattern=r"^urn:stoa:[a-z]+$")
    type: str
    subject: str = Field(description="The stream: a table's id.")
    time: Timestamp
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    position: str = Field(pattern=r"^[1-9][0-9]*$")
    streamversion: int = Field(ge=1)
    actor: str
    correlationid: str
    causationid: str | None = None
    traceparent: str | None = None
    data: dict[str, Any]

    @property
    def service(self) -> str:
        """The owner of the event."""
        return self.source.removeprefix("urn:stoa:")

    @property
    def name(self) -> str:
        """The event's name without its owner."""
        return self.type.rsplit(".", 1)[1]

    @property
    def schema_version(self) -> int:
        """The version in which the data was written."""
        return int(self.dataschema.rsplit(":", 1)[1])

    @property
    def log_position(self) -> int:
        """The position in the owner's log."""
        return int(self.position)

    @property
    def bus_subject(self) -> str:
        """The NATS subject on which the event is told."""
        return f"stoa.{self.service}.{self.subject}.{self.name}"

    @property
    def written_time(self) -> str:
        """The time as it is written."""
        written: str = _timestamp.dump_python(self.time, mode="json")
        return written

    def event(self) -> Event:
        """Read the data as the newest version of the event; a second call gives what the first one read.

        Raises
        ------
        stoa_contracts.registry.UnknownEventError
            If this version of the contracts does not know the event.
        """
        return self._event

    @cached_property
    def _event(self) -> Event:
        return load_event(self.service, self.name, self.schema_version, self.data)

    def to_bytes(self, data: bytes | None = None) -> bytes:
        """Write the envelope in its one canonical form.

        Parameters
        ----------
        data
            The canonical form of the data, where it is known already: nothing is as large as the data.
        """
        # Nothing is as large as the data: it is written at most once, and put where its name belongs in the order.
        head = self.model_dump(mode="json", exclude_none=True, exclude={"data"}) | {"data": None}
        written = canonical_json(self.data) if data is None else data
        before, _, after = canonical_json(head).partition(b'"data":null')
        return b"".join((before, b'"data":', written, after))

    @classmethod
    def from_bytes(cls, content: bytes | str) -> Envelope:
        """Read an envelope.

        Raises
        ------
        pydantic.ValidationError
            If the content is not an envelope of ours.
        """
        return cls.model_validate_json(content)


def batch(envelopes: Sequence[bytes]) -> bytes:
    """Put written envelopes into a batch without changing a byte of them."""
    return b"[" + b",".join(envelopes) + b"]"


def read_batch(content: bytes) -> list[Envelope]:
    """Read a batch of envelopes in the order in which they stand."""
    return [Envelope.model_validate(item) for item in json.loads(content)]
