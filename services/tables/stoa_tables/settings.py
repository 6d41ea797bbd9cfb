"""Settings of the tables service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stoa_chassis.settings import ServiceSettings

__all__ = ["TablesSettings"]


class TablesSettings(ServiceSettings):
    """What the tables service can be told, beside what every service can."""

    service: ClassVar[str] = "tables"

    max_rows_per_request: int = Field(
        default=100_000, ge=1, description="Rows that one request may add, edit or remove."
    )
    max_import_rows: int = Field(default=1_000_000, ge=1, description="Rows that an imported file may have.")
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="Size of a JSON or CSV request.")
    max_upload_bytes: int = Field(default=1024 * 1024 * 1024, ge=1, description="Size of a file that is imported.")
    max_unpacked_bytes: int = Field(
        default=4 * 1024**3, ge=1, description="Size to which a compressed file that is imported may unfold."
    )
    import_memory_bytes: int = Field(
        default=2 * 1024**3,
        ge=512 * 1024**2,
        description="Memory that the reading of one file may take, in a process of its own.",
    )
    import_seconds: int = Field(
        default=600, ge=1, description="Seconds of processor time that the reading of one file may take."
    )
    event_bytes: int = Field(
        default=256 * 1024,
        ge=1024,
        description="About how large an event may become before its rows go on in the next one.",
    )
    snapshot_events: int = Field(
        default=20_000, ge=1, description="Events of a table from one snapshot of it to the next, at least."
    )
    snapshot_bytes: int = Field(
        default=32 * 1024 * 1024,
        ge=1,
        description="Bytes of events from one snapshot of a table to the next, if that comes earlier.",
    )
    history_bytes: int = Field(
        default=2 * 1024**3, ge=0, description="Disk for tables as they were, kept for the next page that is asked for."
    )
    change_frames_per_second: float = Field(
        default=10.0, gt=0, description="How often a live view is told of changes at most."
    )
