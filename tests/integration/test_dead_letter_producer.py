"""The worker's end of the dead-letter topic: what a letter keeps, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from structlog.testing import capture_logs

from config.kafka import client_config
from config.kafka_producer import BatchProducer, OutgoingMessage
from config.settings import Settings
from db.connect import Connection
from monitoring.dead_letters import obstacle
from producers.dead_letters import DeadLetter, DeadLetterReader
from producers.redrive import Redriver
from producers.topics import Topics
from schemas.errors import NoProgressError
from streams.dead_letters import DeadLetterProducer
from streams.records import Headers, Heartbeat, InvalidRecord, Record
from tests.acceptance.processes import eventually

AT = datetime(2026, 4, 9, 18, 30, tzinfo=UTC)
HEADERS: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1-2-3"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("twice", b"one"),
    ("twice", b"two"),
    ("binary", bytes(range(256))),
    ("empty", b""),
    ("null", None),
    ("bidden-reason", b"not ours"),
    ("bidden-header-bidden-offset", b"4711"),
    ("", b"no name"),
    ("ünï", b"x"),
)
TIMESTAMP = 1_767_225_600_123
#: Compresses badly.
LARGE = random.Random(1).randbytes(20_000)
PROBE = b"a probe of the test"


@pytest.fixture
def kafka(settings_for: Callable[..., Settings]) -> Settings:
    """Settings with topics of their own."""
    settings = settings_for()
    Topics(settings).create()
    return settings


def invalid(settings: Settings, value: bytes | None = b"{", headers: Headers = HEADERS) -> InvalidRecord:
    record = Record(settings.invitations_topic, 0, 17, b"5", value, lambda: headers, TIMESTAMP)
    return InvalidRecord(record, "the reason")


def admit(settings: Settings, size: int) -> None:
    """Lets the dead-letter topic take messages of so many bytes; returns once the broker has applied it."""
    admin = AdminClient(client_config(settings, "test"))
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.dead_letter_topic)
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(entry)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=30)
    producer = BatchProducer(client_config(settings, "test"))
    is_small = size < len(LARGE)

    def is_at_the_limit() -> bool:
        (result,) = producer.produce_all(settings.dead_letter_topic, [OutgoingMessage(None, PROBE + LARGE)], 10)
        return isinstance(result, str) == is_small

    eventually(is_at_the_limit, "the topic admits other sizes")


def consumed(settings: Settings) -> list[Message]:
    """What is on the invitations topic."""
    consumer = Consumer(client_config(settings, "test") | {"group.id": "test"}, logger=None)
    try:
        consumer.assign([TopicPartition(settings.invitations_topic, p, 0) for p in range(settings.partitions)])
        found: list[Message] = []

        def arrived() -> bool:
            found.extend(consumer.consume(100, 0.5))
            return bool(found)

        eventually(arrived, "a message is on the topic")
        assert [message.error() for message in found] == [None] * len(found)
        return found
    finally:
        consumer.close()


def letters(settings: Settings) -> list[DeadLetter]:
    """What is on the dead-letter topic, without the probes of `admit`."""
    return [letter for letter in DeadLetterReader(settings).read_all() if not (letter.value or b"").startswith(PROBE)]


async def put(settings: Settings, *records: InvalidRecord, limit: float = 180.0) -> None:
    producer = DeadLetterProducer(settings, lambda: AT, Heartbeat(), limit_seconds=limit)
    await producer.put(records)


def test_a_redriven_message_is_the_original(kafka: Settings, conn: Connection) -> None:
    """FM-41: key, bytes, headers and timestamp: twice, binary, null and named like ours included."""
    asyncio.run(put(kafka, invalid(kafka)))
    (letter,) = letters(kafka)
    assert letter.info.reason == "the reason"
    assert letter.info.offset == 17
    assert letter.info.timestamp == TIMESTAMP
    assert set(HEADERS) - set(letter.headers) == {HEADERS[8], HEADERS[9]}, "kept as they are, except names like ours"
    redriver = Redriver(kafka, DeadLetterReader(kafka))
    conn.autocommit = True
    assert [line.offset for line in redriver.redrive(conn, [letter]).redriven] == [0]
    (message,) = consumed(kafka)
    assert (message.key(), message.value()) == (b"5", b"{")
    assert tuple(message.headers() or ()) == HEADERS
    assert message.timestamp()[1] == TIMESTAMP


def test_a_letter_of_an_earlier_version_is_redriven(kafka: Settings, conn: Connection) -> None:
    """Its original's headers and timestamp are unknown: the message has none of ours, and the time of the redrive."""
    producer = Producer(client_config(kafka, "test"), logger=None)
    ours = [("bidden-reason", b"r"), ("bidden-topic", kafka.invitations_topic.encode()), ("bidden-offset", b"1")]
    producer.produce(kafka.dead_letter_topic, b"{", b"5", headers=[*ours])
    assert producer.flush(30) == 0
    conn.autocommit = True
    Redriver(kafka, DeadLetterReader(kafka)).redrive(conn, letters(kafka))
    (message,) = consumed(kafka)
    assert not message.headers()
    assert message.timestamp()[1] > datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000


def test_a_letter_that_is_too_large_is_waited_for_and_then_ends_the_worker(kafka: Settings) -> None:
    """FM-41: a topic that refuses is said, with its name and the cause; after the limit the worker ends with 70."""
    admit(kafka, 2_000)
    large = invalid(kafka, LARGE)
    with capture_logs() as logged, pytest.raises(NoProgressError, match=kafka.dead_letter_topic) as caught:
        asyncio.run(asyncio.wait_for(put(kafka, large, invalid(kafka), limit=3.0), 60))
    assert caught.value.exit_code == 70
    assert "size" in caught.value.detail.lower()
    (said,) = [entry for entry in logged if "does not take dead letters" in entry["event"]]
    assert said["topic"] == kafka.dead_letter_topic
    assert "size" in said["cause"].lower()
    assert [letter.value for letter in letters(kafka)] == [b"{"], "the other letter was stored, once"


def test_a_topic_that_admits_letters_again(kafka: Settings) -> None:
    """FM-41: what was refused for a while is stored once it is admitted, and only once."""
    admit(kafka, 2_000)
    large = invalid(kafka, LARGE)

    async def repaired() -> None:
        putting = asyncio.create_task(put(kafka, large))
        await asyncio.sleep(3)
        assert not putting.done()
        await asyncio.to_thread(admit, kafka, 1_000_000)
        await asyncio.wait_for(putting, 60)

    asyncio.run(repaired())
    assert [letter.value for letter in letters(kafka)] == [large.record.value]


def test_an_outage_of_the_brokers_has_no_limit(settings_for: Callable[..., Settings]) -> None:
    """FM-30: brokers that are away are waited for, and the watchdog knows."""
    settings = settings_for(kafka_bootstrap="127.0.0.1:1")
    heartbeat, now = Heartbeat(), [0.0]
    slept = 0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += 1
        now[0] += 1000
        if slept == 2:
            raise TimeoutError

    producer = DeadLetterProducer(
        settings, lambda: AT, heartbeat, limit_seconds=1.0, monotonic=lambda: now[0], sleep=sleep
    )
    with pytest.raises(TimeoutError):
        asyncio.run(producer.put([invalid(settings)]))
    assert heartbeat.beats == 2


def test_doctor_says_that_letters_would_be_refused(kafka: Settings) -> None:
    """FM-41: before the first letter: a topic that admits smaller messages than the one they come from."""
    assert obstacle(kafka) is None
    admit(kafka, 2_000)
    found = obstacle(kafka)
    assert found is not None
    assert kafka.dead_letter_topic in found
    assert "2,000 bytes" in found
