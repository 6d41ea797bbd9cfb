"""Log lines: JSON in production, coloured on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog

from stoa_chassis.settings import ServiceSettings

__all__ = ["configure_logging"]


def configure_logging(settings: ServiceSettings) -> None:
    """Send structlog's and the standard library's records to standard error in one form.

    Every line carries the service; what belongs to a request also carries its correlation id and actor, from the context
    variables that the request's middleware binds.
    """
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(settings.service),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(sort_keys=True)
    )
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not console:
        # Local variables stay out of the log: they may hold what nobody should read.
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        final.append(structlog.processors.ExceptionRenderer(transformer))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
    # The access log is ours: it knows the route, the actor and the correlation id.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("httpx", "httpcore", "nats", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _named(service: str) -> structlog.typing.Processor:
    def add_service(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        entry.setdefault("service", service)
        return entry

    return add_service
