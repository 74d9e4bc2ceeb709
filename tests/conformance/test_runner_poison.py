"""What a worker does with messages that can never be processed, with either runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from config.kafka import client_config
from config.settings import Settings
from tests.acceptance.processes import eventually
from tests.conformance.conftest import Runner

pytestmark = pytest.mark.slow


def due(batch: int, member: int, **fields: Any) -> bytes:
    """The value of a message as the dispatcher writes it, unless the fields say otherwise."""
    value = {"version": 1, "batch_id": batch, "event_id": 1, "member_id": member, "action": "invite"}
    return json.dumps(value | {"roles": ["Student"]} | fields).encode()


def letters(settings: Settings, count: int) -> list[Message]:
    """The first dead letters of the topic."""
    consumer = Consumer(client_config(settings, "test") | {"group.id": "test-letters"}, logger=None)
    found: list[Message] = []
    try:
        consumer.assign([TopicPartition(settings.dead_letter_topic, 0, 0)])

        def complete() -> bool:
            found.extend(message for message in consumer.consume(count, 0.2) if message.error() is None)
            return len(found) >= count

        eventually(complete, f"{count} dead letters")
    finally:
        consumer.close()
    return found


def test_poison_is_set_aside(make_runner: Callable[..., Runner]) -> None:
    """FM-20: poison goes to the dead-letter topic as it came, with its reason, and the partition goes on.

    FM-41: every message has a letter of its own, also one that repeats another.
    """
    runner = make_runner(partitions=1)
    runner.people(2, events=2)
    batch = runner.invite()
    poison: list[tuple[bytes | None, bytes | None, str]] = [
        (b"1", b'{"version": 1, "batch_id"', "JSON"),
        (b"1", b"\xff\x00\xfe", "JSON"),
        (b"1", b"", "JSON"),
        (b"1", None, "empty value"),
        (None, None, "empty value"),
        (b"1", b"[]", "object"),
        (b"1", b"x" * 900_000, "JSON"),
        (b"1", due(batch, 1, version=2), "version"),
        (b"1", due(batch, 1, roles=[]), "roles"),
        (b"1", due(batch, 1, surprise=True), "surprise"),
        (b"2", due(batch, 1), "key"),
        (b"01", due(batch, 1), "key"),
        (None, due(batch, 1), "key"),
        (b"1", due(4711, 1), "unknown batch 4711"),
        (b"1", due(batch, 1, event_id=4712), "unknown event 4712"),
        (b"4713", due(batch, 4713), "unknown member 4713"),
        # FM-41: repeats in one poll, word for word and not, of an unknown member and of a known one with another key.
        (b"4713", due(batch, 4713), "unknown member 4713"),
        (b"4713", due(batch, 4713, roles=["Coach"]), "unknown member 4713"),
        (b"2", due(batch, 1), "key"),
        (b"1", due(4711, 1), "unknown batch 4711"),
        (b"1", due(batch, 2**63 - 1), "key"),
    ]
    producer = Producer(client_config(runner.settings, "test") | {"message.max.bytes": 1_000_000}, logger=None)
    for key, value, _ in poison:
        producer.produce(runner.settings.invitations_topic, value, key, partition=0)
    assert producer.flush(30) == 0
    after = runner.invite(event=2)  # what follows the poison
    began = datetime.now(UTC) - timedelta(seconds=1)
    worker = runner.worker()
    runner.books.wait_completed(batch, after)
    found = letters(runner.settings, len(poison))
    by_offset = {dict(letter.headers() or [])["bidden-offset"]: letter for letter in found}
    for n, (key, value, reason) in enumerate(poison):
        letter = by_offset[b"%d" % (2 + n)]
        assert (letter.key(), letter.value()) == (key, value)
        headers = dict(letter.headers() or [])
        assert isinstance(headers["bidden-reason"], bytes)
        assert reason in headers["bidden-reason"].decode(), (reason, headers)
        assert headers["bidden-topic"] == runner.settings.invitations_topic.encode()
        assert headers["bidden-partition"] == b"0"
        assert isinstance(headers["bidden-time"], bytes)
        assert began < datetime.fromisoformat(headers["bidden-time"].decode()) < datetime.now(UTC)
    runner.wait_committed()
    worker.stop()
    runner.books.check()
    runner.books.check(event=2)
    assert runner.books.sink.count() == 2 + 2
    latest = Consumer(client_config(runner.settings, "test") | {"group.id": "test-letters"}, logger=None)
    assert latest.get_watermark_offsets(TopicPartition(runner.settings.dead_letter_topic, 0), timeout=10) == (
        0,
        len(poison),
    )
    latest.close()
