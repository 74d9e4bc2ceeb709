"""What `doctor` says of the group's protocol: under `consumer` the brokers decide what workers otherwise set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from config.kafka import client_config
from config.rights import CLUSTER, Process
from config.settings import Settings
from producers.rights import is_forbidden
from streams.watchdog import LIMIT_SECONDS

_TIMEOUT_SECONDS: Final = 10.0
_SESSION: Final = "group.consumer.session.timeout.ms"
_LEAST_SESSION: Final = "group.consumer.min.session.timeout.ms"
_PROTOCOLS: Final = "group.coordinator.rebalance.protocols"
_WANTED_MS: Final = 10_000


def check(settings: Settings, processes: Sequence[Process]) -> tuple[bool, str]:
    """Whether workers can use the protocol that is set, and what it means for them. KafkaException."""
    if settings.kafka_group_protocol == "classic":
        return True, "classic; workers set their session time-out to 10 s"
    admin = AdminClient(client_config(settings, "bidden-doctor"))
    broker = min(admin.list_topics(timeout=_TIMEOUT_SECONDS).brokers)
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    try:
        found = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource]
        config = {name: str(entry.value) for name, entry in found.result(timeout=2 * _TIMEOUT_SECONDS).items()}
    except KafkaException as error:
        # No fault of a worker's user: who operates checks it.
        fits = is_forbidden(error) and Process.OPERATOR not in processes
        right = f"DESCRIBE_CONFIGS on cluster {CLUSTER} ({Process.OPERATOR})"
        lacks = f"this user lacks {right}" if is_forbidden(error) else error.args[0].str()
        return fits, f"consumer; the brokers' {_SESSION} cannot be read: {lacks}"
    problem = judge(config)
    return problem is None, f"consumer; {problem or f'{_SESSION} is {config[_SESSION]}'}"


def judge(config: Mapping[str, str]) -> str | None:
    """What a broker's configuration means for workers under the protocol `consumer`; None if nothing bad. Pure."""
    if _SESSION not in config or "consumer" not in config.get(_PROTOCOLS, "").split(","):
        return (
            "the brokers do not support it, or have it switched off: set BIDDEN_KAFKA_GROUP_PROTOCOL to classic, or "
            f"{_PROTOCOLS} of the brokers to classic,consumer (Apache Kafka 4.0 or newer)"
        )
    seconds = int(config[_SESSION]) / 1000
    if seconds >= LIMIT_SECONDS:
        return (
            f"the brokers' {_SESSION} is {config[_SESSION]}: for {seconds:g} s nobody has the partitions of a killed "
            f"worker, and after {LIMIT_SECONDS:g} s a worker counts as standing still: set it, and {_LEAST_SESSION}, "
            f"to {_WANTED_MS}"
        )
    return None
