"""What our topics are like: partitions, replicas and configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from config.settings import Settings

MIN_IN_SYNC: Final = "min.insync.replicas"
_REPLICATION: Final = 3
#: A dead letter is the original message and some headers: whatever the invitations' topic admits must fit.
_DEAD_LETTER_BYTES: Final = 8 * 1024 * 1024
#: For so long claims are kept: a backup that is older cannot be reconciled.
CLAIM_DAYS: Final = 30
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Durability:
    """How many brokers keep a topic's messages, and how many of them must have one before it is acknowledged."""

    replication: int
    min_in_sync: int

    @classmethod
    def for_brokers(cls, brokers: int) -> Self:
        """The best that so many brokers allow, and that still takes messages while one of three is away. Pure."""
        return cls(min(_REPLICATION, brokers), 2 if brokers >= _REPLICATION else 1)

    @property
    def config(self) -> dict[str, str]:
        """The topic's configuration."""
        return {MIN_IN_SYNC: str(self.min_in_sync)}

    def lacks(self, brokers: int) -> str | None:
        """What a topic of this durability lacks with so many brokers; None when nothing. Pure."""
        best = self.for_brokers(brokers)
        if self.replication < best.replication:
            return f"replication {self.replication}, and there are {brokers} brokers: use {best.replication}"
        if self.min_in_sync < best.min_in_sync:
            return f"{MIN_IN_SYNC} {self.min_in_sync}: set it to {best.min_in_sync}"
        return None


@dataclass(frozen=True, slots=True)
class Shape:
    """How a topic is created."""

    partitions: int
    config: dict[str, str]


def wanted_topics(settings: Settings, durability: Durability) -> dict[str, Shape]:
    """All our topics, by name."""
    config = durability.config
    return {
        settings.invitations_topic: Shape(settings.partitions, config),
        # Dead letters wait for a person, however long that takes.
        settings.dead_letter_topic: Shape(
            1, {**config, "max.message.bytes": str(_DEAD_LETTER_BYTES), "retention.ms": "-1"}
        ),
        # The newest outcome of each delivery, for ever.
        settings.outcomes_topic: Shape(settings.partitions, {**config, "cleanup.policy": "compact"}),
        settings.claims_topic: Shape(1, {**config, "retention.ms": str(CLAIM_DAYS * _DAY_MS)}),
    }
