"""Which of its rights a Kafka user lacks, as the brokers tell: for `doctor`. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from config.kafka_causes import Causes
from config.rights import KafkaRight, Process, needed
from config.settings import Settings
from producers.admin_client import ask_coordinator, await_controller, make_admin_client

_TIMEOUT_SECONDS: Final = 10.0
#: How brokers answer who may not even ask.
FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
#: Operations that do not include DESCRIBE: nothing is known of them where that is refused.
_APART: Final = frozenset({"CREATE", "DESCRIBE_CONFIGS"})
#: What has no rights yet.
_ABSENT: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND})


def missing(settings: Settings, processes: Iterable[Process]) -> list[str]:
    """What the user lacks of what these processes need: `READ on topic bidden.invitations.v1 (worker)`.

    Nothing is known of a topic that does not exist yet, nor, where even DESCRIBE lacks, of what does not include it.
    KafkaException, UnreachableError.
    """
    admin = make_admin_client(settings, Causes())
    await_controller(admin, _TIMEOUT_SECONDS)
    held: dict[tuple[str, str], set[str] | None] = {}
    found = []
    for right, processes_ in needed(settings, processes).items():
        place = right.kind, right.name
        if place not in held:
            held[place] = _operations(admin, right)
        operations = held[place]
        if operations is None or (not operations and right.operation in _APART):
            continue
        if right.operation not in operations:
            found.append(f"{right} ({', '.join(processes_)})")
    return found


def is_forbidden(error: KafkaException) -> bool:
    """Whether that is how brokers answer a user who may not ask."""
    return error.args[0].code() in FORBIDDEN


def _operations(admin: AdminClient, right: KafkaRight) -> set[str] | None:
    """What the user may do there; None where that cannot be known.

    Brokers do not tell of transactional ids, and of the cluster only who may describe it.
    """
    if right.kind in ("transactional-id", "cluster"):
        return None
    try:
        described: Any = _describe(admin, right)
    except KafkaException as error:
        code = error.args[0].code()
        if code in FORBIDDEN:
            return set()
        if code in _ABSENT:
            return None
        raise
    # Who may describe it has at least that: brokers that say nothing do not know.
    return {operation.name for operation in described.authorized_operations or ()} or None


def _describe(admin: AdminClient, right: KafkaRight) -> Any:
    if right.kind == "group":
        return ask_coordinator(
            admin.describe_consumer_groups, right.name, _TIMEOUT_SECONDS, include_authorized_operations=True
        )
    topics = admin.describe_topics(
        TopicCollection([right.name]), include_authorized_operations=True, request_timeout=_TIMEOUT_SECONDS
    )
    return topics[right.name].result(timeout=2 * _TIMEOUT_SECONDS)
