"""Every outcome of every writer reaches its topic, after its commit and in the order of the ledger."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaException, Producer

from config import ledger_topics
from config.settings import Settings
from db import outcomes
from db.connect import connect
from producers import background, batch_control, decisions
from producers.batch_control import Verdict
from producers.outcome_publisher import OutcomePublisher
from schemas.outcomes import Failed, Unknown
from tests.acceptance.processes import eventually
from tests.integration.importing import invitation
from tests.integration.scenario import Scenario


def published(settings: Settings) -> dict[int, list[tuple[str, int]]]:
    """By member: state and fence of each event, in their order."""
    found: dict[int, list[tuple[str, int]]] = {}
    for partition in ledger_topics.outcomes(settings):
        for batch in partition:
            for event in batch:
                found.setdefault(event.member_id, []).append((event.state, event.fence))
    return found


def publish(scenario: Scenario, publisher: OutcomePublisher) -> None:
    """All that is in the outbox."""
    producer = publisher.make_producer()
    while publisher.publish_some(scenario.conn, producer):
        pass


def test_each_writer_of_an_outcome(scenario: Scenario, settings: Settings) -> None:
    """FM-43: a worker, an operator, a cancel in chunks, an import: each outcome is an event; a claim is none."""
    scenario.build(students=range(1, 8))
    batch = scenario.plan("students")
    agent = scenario.agent("a")
    requests = {n: scenario.request(batch, n, "Student") for n in range(1, 8)}
    agent.deliver(requests[1])
    agent.deliver(requests[2], Failed("550 no", "550 no"))
    agent.deliver(requests[3], Unknown("connection lost"))
    agent.deliver(requests[4], Unknown("connection lost"))
    agent.claim(requests[5])
    batch_control.resolve(scenario.conn, 1, Verdict.SENT, member_id=3, by="a test", resend_below=0)
    assert batch_control.retry(scenario.conn, batch)
    scenario.load(invitation(6, sent_at="2026-01-01T00:00:00Z"))
    batch_control.cancel(scenario.conn, batch)
    while decisions.apply_chunk(scenario.conn, batch) is not decisions.Step.DONE:
        pass
    publish(scenario, OutcomePublisher(settings, threading.Event()))
    assert published(settings) == {
        1: [("sent", 1)],
        2: [("failed", 1), ("planned", 1), ("skipped", 1)],
        3: [("unknown", 1), ("sent", 1)],
        4: [("unknown", 1)],
        6: [("sent", 1)],
        7: [("skipped", 0)],
    }
    assert outcomes.to_publish(scenario.conn, 10) == []


def test_a_new_topic_gets_each_outcome_once(scenario: Scenario, settings: Settings) -> None:
    """FM-43: what the ledger knows, with what waits in the outbox among it: nothing comes twice."""
    scenario.build(students=range(1, 4))
    batch = scenario.plan("students")
    agent = scenario.agent("a")
    agent.deliver(scenario.request(batch, 1, "Student"))
    publisher = OutcomePublisher(settings, threading.Event())
    outcomes.remove(scenario.conn, outcomes.to_publish(scenario.conn, 10))
    agent.deliver(scenario.request(batch, 2, "Student"), Failed("550 no", "550 no"))
    outcomes.note_all(scenario.conn)
    publish(scenario, publisher)
    assert published(settings) == {1: [("sent", 1)], 2: [("failed", 1)]}


def test_a_new_topic_gets_what_commits_meanwhile_last(scenario: Scenario, settings: Settings) -> None:
    """FM-43: an outcome whose transaction is under way follows the older one that the ledger still shows."""
    scenario.build(students=range(1, 3))
    batch = scenario.plan("students")
    agent = scenario.agent("a")
    agent.deliver(scenario.request(batch, 1, "Student"), Unknown("connection lost"))
    with connect(scenario.url) as under_way:
        batch_control.resolve(under_way, 1, Verdict.SENT, member_id=1, by="a test", resend_below=0)
        outcomes.note_all(scenario.conn)
    publish(scenario, OutcomePublisher(settings, threading.Event()))
    assert published(settings) == {1: [("unknown", 1), ("sent", 1)]}


def test_a_frozen_publisher_writes_nothing_any_more(scenario: Scenario, settings: Settings) -> None:
    """FM-43: what it had begun is never committed once another publishes: no old outcome follows a newer one."""
    scenario.build(students=range(1, 3))
    batch = scenario.plan("students")
    agent = scenario.agent("a")
    agent.deliver(scenario.request(batch, 1, "Student"), Unknown("connection lost"))
    frozen = OutcomePublisher(settings, threading.Event())
    producer = frozen.make_producer()
    publish(scenario, OutcomePublisher(settings, threading.Event()))
    agent.deliver(scenario.request(batch, 2, "Student"))
    with pytest.raises(KafkaException):
        frozen.publish_some(scenario.conn, producer)
    assert published(settings) == {1: [("unknown", 1)]}
    publish(scenario, OutcomePublisher(settings, threading.Event()))
    assert published(settings)[2] == [("sent", 1)]


def test_one_publishes_at_a_time(scenario: Scenario, settings: Settings) -> None:
    """FM-43: the lock is one session's, until that ends."""
    assert outcomes.lock(scenario.conn)
    with connect(scenario.url, autocommit=True) as other:
        assert not outcomes.lock(other)


def test_an_error_does_not_end_the_publisher(
    scenario: Scenario, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FM-43: whatever the client raises, the thread goes on, and publishes when it can."""
    scenario.build(students=[1])
    batch = scenario.plan("students")
    scenario.agent("a").deliver(scenario.request(batch, 1, "Student"))
    monkeypatch.setattr(background, "_ERROR_SECONDS", 0.01)
    make, failures = OutcomePublisher.make_producer, [SystemError("a fatal error of the client")]

    def fail_once(self: OutcomePublisher) -> Producer:
        if failures:
            raise failures.pop()
        return make(self)

    monkeypatch.setattr(OutcomePublisher, "make_producer", fail_once)
    stop = threading.Event()
    publisher = OutcomePublisher(settings, stop)
    publisher.start()
    try:
        # Twice: from the outbox, and because the topic was new.
        eventually(lambda: set(published(settings).get(1, ())) == {("sent", 1)}, "the outcome is published")
    finally:
        stop.set()
        publisher.join()
    assert not failures
