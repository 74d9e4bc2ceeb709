"""Kafka for the pages of the site: shorter timeouts than commands have, and errors for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaException

from config import driver_errors

#: For each answer of Kafka. A person waits for the page, and the request occupies one of few threads.
PAGE_TIMEOUT_SECONDS: Final = 3.0


@contextmanager
def kafka_errors_translated() -> Iterator[None]:
    """Turns the errors of Kafka's client into ours: UnreachableError when the brokers are away."""
    try:
        yield
    except (KafkaException, TimeoutError) as error:
        translated = driver_errors.translate_error(error)
        assert translated is not None
        raise translated from error
