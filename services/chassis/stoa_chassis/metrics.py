"""Numbers for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Metrics"]


class Metrics:
    """What every service counts, in a registry of the process.

    Parameters
    ----------
    service
        Becomes the label of each metric.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.service = service
        self.requests = Histogram(
            "stoa_request_seconds",
            "Time to answer a request.",
            ["service", "method", "route", "status"],
            registry=self.registry,
        )
        self.log_position = Gauge(
            "stoa_log_position", "The head of the service's log.", ["service"], registry=self.registry
        )
        self.relay_position = Gauge(
            "stoa_relay_position", "The last event that the bus has.", ["service"], registry=self.registry
        )
        self.relayed = Counter("stoa_relayed_events", "Events sent to the bus.", ["service"], registry=self.registry)
        self.followed = Counter(
            "stoa_followed_events", "Events of other services applied.", ["service", "source"], registry=self.registry
        )
        self.bus_connected = Gauge(
            "stoa_bus_connected", "1 while the bus is connected.", ["service"], registry=self.registry
        )
