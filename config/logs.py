"""Logs: our own and those of the libraries, in one format, on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from config.settings import Settings

#: How often at most a library may say the same, in seconds. While the brokers are away aiokafka has something to
#: say 75 times a second.
SAY_AGAIN_SECONDS: Final = 30.0


class SayOnce(logging.Filter):
    """Lets a message through once in a while, whatever its parameters are."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was not said lately."""
        now, what = self._monotonic(), (record.name, str(record.msg))
        if now - self._said.get(what, -SAY_AGAIN_SECONDS) < SAY_AGAIN_SECONDS:
            return False
        # A text with its parameters in it is a new one each time: no more of them are kept than can be said again.
        self._said = {key: at for key, at in self._said.items() if now - at < SAY_AGAIN_SECONDS}
        self._said[what] = now
        return True


def set_up_logs(settings: Settings) -> None:
    """As BIDDEN_LOG_FORMAT says."""
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
                # Its own choice prints the variables of every frame, and so tokens and passwords.
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
    # Libraries' own logs: only what is wrong, in the same place and format, and not again and again.
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(SayOnce())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
