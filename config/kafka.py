"""The settings of Kafka clients, from ours. Pure: the clients themselves stand where they are used."""

from __future__ import annotations

from typing import Any, Final

from config.settings import Settings

#: For producers that put messages of others on a topic. The brokers' limits are on compressed bytes, so a message that
#: came compressed may be larger than any of them: it goes on compressed, too, and the client's own limit, which is on
#: what it is before, is lifted as far as it goes. Not zstd: librdkafka's readers give up on large messages in it.
ANY_SIZE: Final[dict[str, Any]] = {"compression.type": "gzip", "message.max.bytes": 1_000_000_000}


def client_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """What every librdkafka client of ours begins with. Holds the password: never log it."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.require_kafka(),
        "client.id": client_id,
        "security.protocol": settings.kafka_security_protocol,
        # A broker that restarts is found again within a second, not after a back-off of ten.
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 30_000,
        # It reports each failed connection, many a second; our own logs say what is waited for.
        "log_level": 0,
    }
    if settings.kafka_sasl_mechanism:
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        if settings.kafka_sasl_password:
            config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_ca_file:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    return config


def producer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """An idempotent producer: what it retries by itself lands once and in order."""
    return {
        **client_config(settings, client_id),
        "enable.idempotence": True,
        "linger.ms": 2,
        "partitioner": "murmur2_random",
        # Below the claim, so that a message given up is not on its way any more when its item is due again.
        "message.timeout.ms": 20_000,
        "queue.buffering.max.messages": 500_000,
    }


def observer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """A consumer that never joins the group, to ask for the group's offsets.

    Not the admin client: its requests to a group's coordinator end the whole process (an assertion of librdkafka,
    its issue 4605) or find no answer any more, once the brokers were away while one of them was on its way.
    """
    return {**client_config(settings, client_id), "group.id": settings.group, "enable.auto.commit": False}
