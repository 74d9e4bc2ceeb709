"""Kafka, asked for a page: with less patience than a command has, and its errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaException

from config import driver_errors

#: Seconds for each answer. Somebody looks at a page that does not come, and a request takes one of few threads.
PATIENCE: Final = 3.0


@contextmanager
def worded() -> Iterator[None]:
    """What Kafka's client says when the brokers go away, as an UnreachableError."""
    try:
        yield
    except (KafkaException, TimeoutError) as error:
        words = driver_errors.translate_error(error)
        assert words is not None
        raise words from error
