"""Kafka's admin client, made from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.kafka import client_config
from config.kafka_causes import Causes
from config.settings import Settings
from schemas.errors import SettingsError, UnreachableError

#: Between two questions for the controller.
_PAUSE_SECONDS: Final = 0.1
#: The longest that the library takes. A request to a coordinator that it gives up ends the process, by an assertion,
#: once the coordinator is there again (librdkafka's issue 4605): so it must not give one up.
_REQUEST_SECONDS: Final = 3600.0


def make_admin_client(settings: Settings, causes: Causes) -> AdminClient:
    """A client that notes in `causes` why brokers cannot be used. SettingsError for settings that make no sense."""
    config = {**client_config(settings, "bidden-admin"), "socket.timeout.ms": 10_000, "error_cb": causes.note}
    try:
        return AdminClient(config)
    except KafkaException as error:
        # Nothing was sent yet: the client itself rejects the configuration.
        cause = error.args[0].str()
        name = "BIDDEN_KAFKA_CA_FILE" if "ssl.ca.location" in cause else "BIDDEN_KAFKA_BOOTSTRAP"
        raise SettingsError(f"{name}, or another Kafka setting, makes no sense: {cause}", field=name) from error


def await_controller(admin: AdminClient, timeout: float) -> dict[int, tuple[str, int]]:
    """The brokers, by id, as host and port, once they name a controller.

    Each broker may be fenced for a moment, as after a freeze of the only one. A client whose first answer came then
    does not ask again by itself: what only the controller answers would time out. UnreachableError when none is named
    for so many seconds, KafkaException when no broker answers.
    """
    end = time.monotonic() + timeout
    while True:
        metadata = admin.list_topics(timeout=max(0.1, end - time.monotonic()))
        if metadata.controller_id >= 0:
            return {broker.id: (str(broker.host), int(broker.port)) for broker in metadata.brokers.values()}
        if time.monotonic() >= end:
            raise UnreachableError("Kafka answers, but names no broker that is alive: look at the brokers' logs")
        time.sleep(_PAUSE_SECONDS)


def ask_coordinator(
    request: Callable[..., Mapping[Any, Future[Any]]], about: object, timeout: float, **options: object
) -> Any:
    """The coordinator's answer to a request of the client about one group. Waits for so many seconds (ADR 15).

    UnreachableError when none came, KafkaException for an error.
    """
    (future,) = request([about], request_timeout=_REQUEST_SECONDS, **options).values()
    try:
        return future.result(timeout)
    except TimeoutError:
        raise UnreachableError(f"no coordinator of the consumer group answered within {timeout:g} s") from None
