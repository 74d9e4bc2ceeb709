"""Replay: publish a batch's items again, or move the consumer group's offsets. Neither mails a member twice.

The message of a settled item costs one ledger query (FM-22). What is published again has the headers and the timestamp
of the message before. Publishing again works while workers run; a group's offsets can be moved only while it has no
members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from config.settings import Settings
from db import batch_actions
from db.connect import Connection
from producers.dispatch import CHUNK
from producers.publish import Publisher
from producers.topics import Topics
from schemas.errors import NotFoundError, RefusedError


@dataclass(frozen=True, slots=True)
class Replayed:
    """A batch's planned items, and how many of them were published again."""

    items: int
    published: int


def replay_batch(conn: Connection, settings: Settings, clock: Callable[[], datetime], batch_id: int) -> Replayed:
    """Publish all planned items of the batch again, settled or not. `conn` must be in autocommit mode.

    Stops when the brokers do not acknowledge a whole chunk. What was due stays due.
    """
    if batch_actions.find_batch(conn, batch_id) is None:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    topics = Topics(settings)
    topics.check_reachable()
    topic_id = topics.require_id()
    publisher = Publisher(settings, clock, "bidden-replay")
    items = batch_actions.items_to_replay(conn, batch_id)
    published = 0
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        acknowledged = publisher.publish(conn, topic_id, chunk)
        published += acknowledged
        if acknowledged < len(chunk):
            break
    return Replayed(len(items), published)


@dataclass(frozen=True, slots=True)
class MovedOffset:
    """The group's committed offset in a partition, before (None: no commit yet) and after."""

    before: int | None
    after: int


class GroupOffsets:
    """Moves the committed offsets of the workers' group. RefusedError, with its members, while the group has any."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = Topics(settings)
        self._topics.check_reachable()
        self._topics.require_id()
        self._partitions = self._topics.partitions()

    def from_beginning(self) -> dict[int, MovedOffset]:
        """To the earliest offset of every partition: all that the topic still holds is read again."""
        self._require_inactive()
        return self._move(self._topics.earliest(self._partitions))

    def since(self, time: datetime) -> dict[int, MovedOffset]:
        """To the first message at or after that time, which must have a zone."""
        assert time.tzinfo is not None
        self._require_inactive()
        return self._move(self._topics.offsets_since(self._partitions, int(time.timestamp() * 1000)))

    def to(self, offsets: Mapping[int, int]) -> dict[int, MovedOffset]:
        """To these offsets; partitions that are not named keep theirs."""
        topic = self._settings.invitations_topic
        earliest, latest = self._topics.earliest(self._partitions), self._topics.latest(self._partitions)
        for partition, offset in offsets.items():
            if partition not in latest:
                raise RefusedError(
                    f"{topic} has no partition {partition}: it has 0 to {len(latest) - 1}", field="to-offset"
                )
            if not earliest[partition] <= offset <= latest[partition]:
                raise RefusedError(
                    f"partition {partition} of {topic} holds no offset {offset}: "
                    f"choose from {earliest[partition]} to {latest[partition]}",
                    field="to-offset",
                )
        self._require_inactive()
        return self._move(offsets)

    def _move(self, offsets: Mapping[int, int]) -> dict[int, MovedOffset]:
        before = self._topics.committed(self._partitions)
        if not self._topics.move_group(offsets):
            # A worker joined since the check above.
            self._require_inactive()
            raise RefusedError(self._refusal("a worker has just joined or left"))
        return {p: MovedOffset(before.get(p), offset) for p, offset in sorted(offsets.items())}

    def _require_inactive(self) -> None:
        members = self._topics.members()
        if members:
            raise RefusedError(self._refusal(", ".join(sorted(member.name for member in members))))

    def _refusal(self, who: str) -> str:
        return (
            f"group {self._settings.group} is active: {who}. Stop its workers first (a killed one is a member for "
            "10 s more), or use `bidden replay --batch`, which works while they run"
        )
