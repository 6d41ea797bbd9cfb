"""``stoa up``: all services and the broker on one machine, as processes of their own."""

from __future__ import annotations

__all__ = ["ADDRESSES"]

#: The file in the data folder that says where the services answer; a TOML file as ``STOA_CONFIG`` names it.
ADDRESSES = "services.toml"
