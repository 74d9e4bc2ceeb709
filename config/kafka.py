"""The configuration of Kafka clients, made from the settings. Pure: the clients are made where they are used."""

from __future__ import annotations

import os
import re
import socket
from typing import Any, Final

from config.settings import Settings

#: For producers of messages that others wrote. The brokers' limits are on compressed bytes, so a message that came
#: compressed may exceed them uncompressed: it is compressed again, and the client's limit, which is on the uncompressed
#: size, is the largest possible. Not zstd: librdkafka's consumers fail on large messages in it.
ANY_SIZE: Final[dict[str, Any]] = {"compression.type": "gzip", "message.max.bytes": 1_000_000_000}


def worker_client_id() -> str:
    """A worker's name where the group's members are listed: by host and process, as several may run on one address."""
    host = re.sub(r"[^A-Za-z0-9.\-]", "_", socket.gethostname())[:100]
    return f"bidden-worker-{host}-{os.getpid()}"


def client_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """The configuration that all our librdkafka clients share. Contains passwords: never log it."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.require_kafka(),
        "client.id": client_id,
        "security.protocol": settings.kafka_security_protocol,
        # Reconnects to a restarted broker within a second, not after the default back-off of ten.
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 30_000,
        # librdkafka logs each failed connection, many per second; our own logs name the server that is away.
        "log_level": 0,
    }
    if settings.kafka_sasl_mechanism:
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        if settings.kafka_sasl_password:
            config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_ca_file:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_cert_file:
        config["ssl.certificate.location"] = str(settings.kafka_cert_file)
        config["ssl.key.location"] = str(settings.kafka_key_file)
        if settings.kafka_key_password:
            config["ssl.key.password"] = settings.kafka_key_password.get_secret_value()
    return config


def producer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """An idempotent producer: its own retries neither duplicate nor reorder messages."""
    return {
        **client_config(settings, client_id),
        "enable.idempotence": True,
        "linger.ms": 2,
        "partitioner": "murmur2_random",
        # Below the publish claim: a message that failed is no longer in flight when its item is due again.
        "message.timeout.ms": 20_000,
        "queue.buffering.max.messages": 500_000,
    }


def observer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """A consumer that never joins the group, to read the group's offsets.

    Not the admin client: when the brokers go away during a request to the group's coordinator, librdkafka aborts the
    process (an assertion, its issue 4605) or never answers again.
    """
    return {**client_config(settings, client_id), "group.id": settings.group, "enable.auto.commit": False}
