"""A mail is begun only once Kafka has its claim; brokers that do not take it cost no attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from schemas.delivery import Delivery
from schemas.keys import DeliveryKey
from schemas.send_results import Lapsed, SendResult
from streams import claim_log
from streams.claim_log import Done, UnwrittenClaims
from tests.conformance.sender_harness import until


class Log:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Done] = []

    def write(self, owner: str, claimed: Sequence[Delivery], done: Done) -> None:
        """Not yet."""
        del owner, claimed
        self.waiting.append(done)

    def close(self) -> None:
        """Nothing to close."""


class Mails:
    """What was sent, and what was completed unsent."""

    def __init__(self) -> None:
        self.sent: list[Delivery] = []
        self.completed: list[tuple[Delivery, SendResult]] = []

    def complete(self, delivery: Delivery, result: SendResult) -> None:
        """See `Window._complete`."""
        self.completed.append((delivery, result))


def deliveries(count: int) -> list[Delivery]:
    """Claimed ones."""
    return [Delivery(1, DeliveryKey(1, "invite", n, "Student"), "Student", 0, n) for n in range(1, count + 1)]


def test_nothing_is_sent_before_the_claims_are_written() -> None:
    """FM-43: and then all of them, in their order."""
    log, mails = Log(), Mails()
    claims = UnwrittenClaims(log, mails.sent.append, mails.complete)
    claimed = deliveries(3)
    claims.write("a cycle", claimed)
    assert (mails.sent, len(claims)) == ([], 3)
    log.waiting.pop()(None)
    assert (mails.sent, mails.completed, len(claims)) == (claimed, [], 0)


def test_what_kafka_does_not_take_is_not_sent() -> None:
    """FM-30, FM-43: each is completed as never begun, with the cause."""
    log, mails = Log(), Mails()
    claims = UnwrittenClaims(log, mails.sent.append, mails.complete)
    claimed = deliveries(2)
    claims.write("a cycle", claimed)
    log.waiting.pop()("brokers are away")
    assert mails.sent == []
    assert [delivery for delivery, _ in mails.completed] == claimed
    for _, result in mails.completed:
        assert isinstance(result, Lapsed)
        assert "brokers are away" in result.reason


def test_a_stop_does_not_wait_for_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-13: after a moment what is not written is given up; a late acknowledgement sends nothing."""
    monkeypatch.setattr(claim_log, "_STOP_SECONDS", 0.0)
    log, mails = Log(), Mails()

    async def stop() -> None:
        claims = UnwrittenClaims(log, mails.sent.append, mails.complete)
        claims.write("a cycle", deliveries(2))
        claims.stop()
        await until(lambda: len(mails.completed) == 2)
        log.waiting.pop()(None)

    asyncio.run(stop())
    assert mails.sent == []
