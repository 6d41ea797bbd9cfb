"""What the web service can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from stoa_chassis.settings import ServiceSettings

__all__ = ["WebSettings"]


class WebSettings(ServiceSettings):
    """The settings of the web service: ``STOA_WEB_…``, or the section ``[web]``."""

    service: ClassVar[str] = "web"

    connect_timeout: float = Field(default=5.0, gt=0, description="Seconds that a service may take to be connected.")
    answer_timeout: float = Field(
        default=600.0,
        gt=0,
        description=(
            "Seconds that a service may stay silent before the request is given up; large imports take their time."
            " Live updates may stay silent for ever."
        ),
    )
