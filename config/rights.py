"""The least that each process may do in Kafka: what `doctor` looks for, and what deploy/acls is written from. Pure.

What a user may do in the database stands in `db.rights`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from config.settings import Settings


class Process(StrEnum):
    """Who needs rights of their own. `operator` is who types the commands; `web` is `serve`."""

    WORKER = "worker"
    DISPATCHER = "dispatcher"
    WEB = "web"
    OPERATOR = "operator"
    MIGRATE = "migrate"


#: What one user needs who runs everything that goes on after `migrate`.
RUNNING: Final = (Process.WORKER, Process.DISPATCHER, Process.WEB, Process.OPERATOR)


class KafkaRight(NamedTuple):
    """An operation on a topic, a group, a transactional id or the cluster, as ACLs have it. READ and WRITE
    include DESCRIBE.
    """

    operation: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"


#: By process. The names are those of `kafka_names`. Who reads without joining a group still asks for its coordinator:
#: DESCRIBE of a group that never exists.
_KAFKA: Final[dict[Process, tuple[tuple[str, str, str], ...]]] = {
    Process.WORKER: (
        ("READ", "topic", "invitations"),
        ("READ", "group", "group"),
        ("WRITE", "topic", "dead_letters"),
        ("READ", "topic", "outcomes"),
        ("READ", "topic", "claims"),
        ("WRITE", "topic", "claims"),
        ("DESCRIBE", "group", "ledger_group"),
    ),
    Process.DISPATCHER: (
        # READ of topic and group: to commit for a group without members, after the topic has lost its end.
        ("READ", "topic", "invitations"),
        ("WRITE", "topic", "invitations"),
        ("READ", "group", "group"),
        ("WRITE", "topic", "outcomes"),
        ("WRITE", "transactional-id", "outcomes_transaction"),
        ("READ", "topic", "outcomes"),
        ("READ", "topic", "claims"),
        ("DESCRIBE", "group", "ledger_group"),
        # With BIDDEN_METRICS_PORT: dead letters that wait.
        ("READ", "topic", "dead_letters"),
        ("DESCRIBE", "group", "dead_letters_group"),
    ),
    Process.WEB: (
        ("WRITE", "topic", "invitations"),
        ("DESCRIBE_CONFIGS", "topic", "invitations"),
        ("DESCRIBE", "group", "group"),
        ("READ", "topic", "dead_letters"),
        ("DESCRIBE_CONFIGS", "topic", "dead_letters"),
        ("DESCRIBE", "group", "dead_letters_group"),
    ),
    Process.OPERATOR: (
        # READ of topic and group: `replay` commits for the group.
        ("READ", "topic", "invitations"),
        ("WRITE", "topic", "invitations"),
        ("DESCRIBE_CONFIGS", "topic", "invitations"),
        ("READ", "group", "group"),
        ("READ", "topic", "dead_letters"),
        ("DESCRIBE_CONFIGS", "topic", "dead_letters"),
        ("DESCRIBE", "group", "dead_letters_group"),
        ("READ", "topic", "outcomes"),
        ("READ", "topic", "claims"),
        ("DESCRIBE", "group", "ledger_group"),
        # Only under the group protocol `consumer`: `doctor` reads the brokers' session time-out.
        ("DESCRIBE_CONFIGS", "cluster", "cluster"),
    ),
    Process.MIGRATE: (
        ("CREATE", "topic", "invitations"),
        ("DESCRIBE", "topic", "invitations"),
        ("CREATE", "topic", "dead_letters"),
        ("DESCRIBE", "topic", "dead_letters"),
        ("CREATE", "topic", "outcomes"),
        ("DESCRIBE", "topic", "outcomes"),
        ("CREATE", "topic", "claims"),
        ("DESCRIBE", "topic", "claims"),
    ),
}  # fmt: skip
CLUSTER: Final = "kafka-cluster"


def outcomes_transaction(prefix: str) -> str:
    """The transactional id of who publishes outcomes."""
    return f"{prefix}-outcomes"


def kafka_rights(process: Process, names: dict[str, str]) -> list[KafkaRight]:
    """What the process needs, with these names of topics and of the group."""
    return [KafkaRight(operation, kind, names[name]) for operation, kind, name in _KAFKA[process]]


def kafka_names(prefix: str, group: str) -> dict[str, str]:
    """What the rights are about, by BIDDEN_TOPIC_PREFIX and BIDDEN_GROUP."""
    return {
        "invitations": f"{prefix}.invitations.v1",
        "dead_letters": f"{prefix}.invitations.dlq.v1",
        "outcomes": f"{prefix}.outcomes.v1",
        "claims": f"{prefix}.claims.v1",
        "outcomes_transaction": outcomes_transaction(prefix),
        "group": group,
        "dead_letters_group": f"{group}-dlq",
        "ledger_group": f"{group}-ledger",
        "cluster": CLUSTER,
    }


def needed(settings: Settings, processes: Iterable[Process]) -> dict[KafkaRight, list[Process]]:
    """Each right, and which of the processes need it."""
    found: dict[KafkaRight, list[Process]] = {}
    for process in processes:
        for right in kafka_rights(process, kafka_names(settings.topic_prefix, settings.group)):
            if right.kind == "cluster" and settings.kafka_group_protocol == "classic":
                continue
            found.setdefault(right, []).append(process)
    return found
