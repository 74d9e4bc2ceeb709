"""Logging: our own logs and those of the libraries, in one format, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from config.log_throttle import LogThrottle
from config.settings import Settings


class LibraryLogFilter(logging.Filter):
    """Throttles each message of a library, whatever its parameters are.

    While the brokers are away aiokafka logs 75 lines a second.
    """

    def __init__(self, throttle: LogThrottle | None = None) -> None:
        super().__init__()
        self._throttle = throttle or LogThrottle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the throttle admits it."""
        return self._throttle.admits((record.name, str(record.msg)))


def set_up_logs(settings: Settings) -> None:
    """Configure structlog and `logging` for BIDDEN_LOG_FORMAT."""
    as_json = settings.log_format == "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                sort_keys=False,
                # The default prints the variables of every frame, tokens and passwords among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    # Libraries' logs: warnings and errors only, in the same format, throttled.
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LibraryLogFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
