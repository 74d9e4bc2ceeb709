"""Logging: our own logs and those of the libraries, in one format, on stderr. A log call never raises, nor blocks."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any, TextIO, cast

import structlog

from config import standard_streams
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


class _SafeRenderer:
    """The last processor. A value that cannot be rendered costs its log entry, not the caller's work."""

    def __init__(self, processors: list[Any]) -> None:
        self._processors = processors

    def __call__(self, logger: Any, method: str, entry: Any) -> str:
        event = str(entry.get("event"))
        try:
            for processor in self._processors:
                entry = processor(logger, method, entry)
            return str(entry)
        except Exception as error:  # of any kind: a repr() may raise anything
            return json.dumps({"event": event, "level": method, "not_rendered": type(error).__name__})


class _Stderr:
    """stderr as it is when something is logged: a caller may have replaced, and closed, the one of the set-up."""

    def write(self, text: str) -> None:
        """Write it, if there is somewhere to write to."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """As `write`."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


def set_up_logs(settings: Settings) -> None:
    """Configure structlog and `logging` for BIDDEN_LOG_FORMAT."""
    standard_streams.protect()
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
    output = standard_streams.output()
    if output is not None:
        output.describe_dropped = lambda lines: str(
            _SafeRenderer([*shared, *rendered])(
                None, "warning", {"event": "log lines were dropped: stderr could not be written", "lines": lines}
            )
        )
    structlog.configure(
        processors=[*shared, _SafeRenderer(rendered)],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr())),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    # Libraries' logs: warnings and errors only, in the same format, throttled.
    handler = logging.StreamHandler(_Stderr())
    handler.addFilter(LibraryLogFilter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
