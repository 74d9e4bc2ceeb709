"""What `doctor` says of dead letters: how many wait for a person, and whether workers can write more of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from config.kafka import client_config
from config.settings import Settings
from db.connect import Connection
from db.dead_letters import handled
from producers.dead_letters import DeadLetterReader

_TIMEOUT_SECONDS: Final = 10.0
_SIZE: Final = "max.message.bytes"


def waiting(conn: Connection, settings: Settings) -> int:
    """How many dead letters were neither redriven nor discarded. KafkaException, UnreachableError."""
    reader = DeadLetterReader(settings)
    return reader.waiting(handled(conn, reader.topic_id))


def obstacle(settings: Settings) -> str | None:
    """Why a dead letter could not be written to its topic, as far as the topics' settings tell."""
    admin = AdminClient(client_config(settings, "bidden-doctor"))
    name = settings.dead_letter_topic
    largest = _largest(admin, settings)
    if largest is not None and largest[name] < largest[settings.invitations_topic]:
        return (
            f"{name} admits messages of {largest[name]:,} bytes, and {settings.invitations_topic} larger ones, of "
            f"{largest[settings.invitations_topic]:,}: raise its {_SIZE}"
        )
    return None


def _largest(admin: AdminClient, settings: Settings) -> dict[str, int] | None:
    """The bytes of the largest message that each topic admits; None where that may not be asked."""
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, topic)
        for topic in (settings.invitations_topic, settings.dead_letter_topic)
    ]
    with suppress(KafkaException):
        found = admin.describe_configs(resources, request_timeout=_TIMEOUT_SECONDS)
        return {
            resource.name: int(future.result(timeout=2 * _TIMEOUT_SECONDS)[_SIZE].value)
            for resource, future in found.items()
        }
    return None
