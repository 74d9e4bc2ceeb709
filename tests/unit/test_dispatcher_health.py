"""A dispatcher's health, and which server an outage is put down to."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException

from config.settings import Settings
from producers.dispatch import Dispatcher, server_of
from schemas.errors import UnreachableError


def test_a_dispatcher_lives_while_its_loop_turns() -> None:
    """Not alive once no step has ended for longer than any may take."""
    now = [0.0]
    values: dict[str, Any] = {"database_url": "postgresql://h/d", "kafka_bootstrap": "127.0.0.1:1"}
    settings = Settings(**values)
    dispatcher = Dispatcher(settings, lambda: datetime.now(UTC), lambda: now[0], threading.Event())
    assert dispatcher.why_not_alive() is None
    now[0] = 89.0
    assert dispatcher.why_not_alive() is None
    now[0] = 91.0
    assert dispatcher.why_not_alive() == "no progress for 91 s"
    dispatcher._beat()
    assert dispatcher.why_not_alive() is None


def _caused(cause: Exception | None) -> UnreachableError:
    error = UnreachableError("away")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "server"),
    [
        (psycopg.OperationalError("gone"), "postgresql"),
        (ConnectionResetError(), "postgresql"),
        (_caused(psycopg.OperationalError("refused")), "postgresql"),
        (KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), "kafka"),
        (_caused(None), "kafka"),
    ],
)
def test_an_outage_is_of_one_server(error: Exception, server: str) -> None:
    """By the error itself, or by what caused it."""
    assert server_of(error) == server
