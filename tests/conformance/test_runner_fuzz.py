"""Hundreds of invalid messages, to a real worker of each runner on real servers."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from config.kafka import ANY_SIZE, client_config
from config.settings import Settings
from producers.plan import plan
from schemas.vocabulary import Audience
from tests.acceptance.processes import eventually
from tests.conformance.conftest import Runner
from tests.conformance.test_runner_poison import due, letters
from tests.integration.importing import load, member, subscription

pytestmark = pytest.mark.slow

Put = tuple[bytes | None, bytes | None]


def garbled(seed: int, batch: int, count: int) -> Iterator[Put]:
    """Messages that are none: valid ones cut, overwritten or under another's key, and any bytes at all."""
    rng = random.Random(seed)
    for _ in range(count):
        number = rng.randint(1, 4)
        key, value = b"%d" % number, due(batch, number)
        match rng.randrange(6):
            case 0:
                yield rng.choice([None, key, rng.randbytes(5)]), rng.randbytes(rng.randrange(3_000))
            case 1:
                yield key, value[: rng.randrange(len(value))]
            case 2:
                at = rng.randrange(len(value) - 3)
                yield key, value[:at] + b"\xff\0" + value[at + 2 :]
            case 3:
                yield rng.choice([None, b"", b"0" + key, key + b"\n"]), value
            case 4:
                yield key, json.dumps({**json.loads(value), rng.choice("abc"): "\ud800" * 9}).encode()
            case _:
                yield rng.choice([None, key]), None


def send(settings: Settings, puts: list[Put], **config: Any) -> None:
    """To the invitations' topic, as any producer may."""
    producer = Producer({**client_config(settings, "test"), **config}, logger=None)
    for key, value in puts:
        producer.produce(settings.invitations_topic, value, key, partition=0)
    assert producer.flush(30) == 0


def test_any_messages(make_runner: Callable[..., Runner]) -> None:
    """FM-20: hundreds of invalid messages around two batches: every mail goes out once, every dead letter holds the
    original bytes, also one larger than the topics admit; and after a fix a dead letter can be redriven.
    """
    runner = make_runner(partitions=1)
    runner.people(4, events=3)
    first = runner.invite()
    poison = [*garbled(1, first, 200)]
    send(runner.settings, poison)
    # Compressed it fits the topic; as it is it would fit none, the dead letters' included.
    large = b'{"version": 1, "batch_id": "' + b"x" * 12_000_000 + b'"}'
    send(runner.settings, [(b"1", large)], **ANY_SIZE)
    second = runner.invite(event=2)
    # A member and a batch that do not exist yet.
    unknown = [(b"99", due(second + 1, 99, event_id=3))]
    send(runner.settings, [*garbled(2, second, 100), *unknown])
    poison += [(b"1", large), *garbled(2, second, 100), *unknown]
    worker = runner.worker()
    runner.books.wait_completed(first, second)
    found = letters(runner.settings, len(poison))
    assert Counter((letter.key(), letter.value()) for letter in found) == Counter(poison)
    runner.wait_committed()
    runner.books.check()
    runner.books.check(event=2)
    assert runner.books.sink.count() == 4 + 4

    load(runner.books.conn, member(99, accepted_toc_at="2020-01-01T00:00:00Z"), subscription(99, 1))
    planned = plan(runner.books.conn, event_id=3, audience=Audience.STUDENTS)
    assert planned.batch_id == second + 1
    (place,) = [
        f"{line['partition']}:{line['offset']}"
        for line in runner.bidden.run("dlq", "list", "--json").lines
        if line["key"] == "99"
    ]
    (line,) = runner.bidden.run("dlq", "redrive", place, "--json").lines
    assert line["key"] == "99"
    # Nothing else of that batch was published: it is the letter that brings the mail.
    eventually(lambda: runner.books.mails(3) == {(99, "Student"): 1}, "the letter is delivered")
    runner.wait_committed()
    worker.stop()
    assert runner.books.sink.count() == 4 + 4 + 1
    (again,) = [line for line in runner.bidden.run("dlq", "list", "--json").lines if line["redriven_at"]]
    assert f"{again['partition']}:{again['offset']}" == place
