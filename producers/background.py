"""What a thread of a dispatcher repeats for as long as its process lives: it waits out outages, and outlives errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog
from confluent_kafka import KafkaException

from config.log_throttle import LogThrottle
from db.connect import OUTAGES
from schemas.errors import UnreachableError, first_line

log = structlog.get_logger()

_OUTAGE_SECONDS: Final = 2.0
#: After an error that waiting may not cure.
_ERROR_SECONDS: Final = 10.0


def repeat(work: Callable[[], None], stop: threading.Event, *, waits: str, fails: str) -> None:
    """Call `work`, which returns once `stop` is set, again and again until then.

    `waits` is logged while a server is away, `fails` with the stack of any other error: a dead thread would be silent.
    """
    throttle = LogThrottle()
    while not stop.is_set():
        try:
            work()
        except (*OUTAGES, KafkaException, UnreachableError) as error:
            # A stop cancels what the thread does, which looks the same.
            if not stop.is_set() and throttle.admits(waits):
                log.warning(waits, seconds=_OUTAGE_SECONDS, cause=first_line(error))
            stop.wait(_OUTAGE_SECONDS)
        # Kafka's client raises a fatal error as SystemError.
        except Exception:
            if throttle.admits(fails):
                log.exception(fails, seconds=_ERROR_SECONDS)
            stop.wait(_ERROR_SECONDS)
