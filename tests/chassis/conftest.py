"""Fixtures of the chassis' tests."""

from __future__ import annotations

from tests.support.brokers import broker, made_broker

__all__ = ["broker", "made_broker"]
