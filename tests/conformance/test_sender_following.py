"""A mail whose envelope goes out with the body of the one before: nothing is lost, doubtful or sent twice by it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mail.sender import send
from mail.smtp.pipelining import Pipelining
from schemas.send_results import Accepted, Lapsed, NotSent, SendResult
from tests.conformance.sender_harness import (
    NO_PIPELINING,
    Run,
    ambiguous,
    at,
    in_each_loop,
    kind,
    mail,
    outcomes,
    permanent,
    talking_to,
    throttled,
    until,
)
from tests.conformance.smtp_servers import BODY, TAKE_AND_DROP, TAKE_AND_HANG, Act, Script, ScriptedServer

THROTTLING = b"454 Throttling failure: Maximum sending rate exceeded.\r\n"


class Watching(ScriptedServer):
    """Notes how many envelopes it had received when it read the end of a body."""

    def __init__(self, script: Script | None = None, **options: Any) -> None:
        super().__init__(script, **options)
        self.followed = 0
        usual = self._body

        async def body(reader: asyncio.StreamReader, answer: Any) -> bytes:
            data = await usual(reader, answer)
            self.followed += b"MAIL FROM" in bytes(reader._buffer)  # type: ignore[attr-defined]
            return data

        self._body = body  # type: ignore[method-assign]

    def recipients(self) -> list[str]:
        return sorted(m.recipients[0] for m in self.mails)


def mails(count: int) -> list[Any]:
    return [mail(f"m{n:02}@example.org") for n in range(count)]


@in_each_loop
@pytest.mark.parametrize("size", [10, 20_000], ids=["small", "large"])
def test_the_next_envelope_goes_out_with_the_body(run: Run, size: int) -> None:
    """From the first accepted mail on, while mails wait; without PIPELINING never."""

    async def story() -> None:
        for offers, least, most in ((("PIPELINING", *NO_PIPELINING), 1, 8), (NO_PIPELINING, 0, 0)):
            server = Watching(offers=offers)
            async with talking_to(server, connections=1) as sender:
                found = await outcomes(sender, [mail(f"m{n}@example.org", b"x" * 70 + b"\r\n") for n in range(2)])
                found += await outcomes(sender, [mail(f"n{n}@example.org", b"xy\r\n" * size) for n in range(8)])
            assert all(isinstance(outcome, Accepted) for outcome in found), found
            assert len(server.mails) == 10
            assert least <= server.followed <= most

    run(story())


@in_each_loop
@pytest.mark.parametrize("end", [Act(b"250 2.0.0 kept\r\n", "drop"), Act(b"250 ok\r\n421 4.4.2 enough\r\n", "drop")])
def test_a_server_that_closes_after_a_body(run: Run, end: Act) -> None:
    """It never read the envelope behind it: that mail goes over another connection, and no verdict gets lost."""

    async def story() -> None:
        server = Watching(at(BODY, end, mails={3}))
        async with talking_to(server, connections=2) as sender:
            found = await outcomes(sender, mails(40))
        assert all(isinstance(outcome, Accepted) for outcome in found), found
        assert server.recipients() == [m.recipient for m in mails(40)]
        assert server.followed > 0

    run(story())


@in_each_loop
@pytest.mark.parametrize(("reply", "expected"), [(b"550 5.6.0 no\r\n", permanent), (THROTTLING, throttled)])
def test_a_refused_body(run: Run, reply: bytes, expected: str) -> None:
    """The refusal is that mail's alone; the one that had followed it is accepted over another connection."""

    async def story() -> None:
        server = Watching(lambda point, connection, mail: reply if (point, connection, mail) == (BODY, 1, 3) else None)
        async with talking_to(server, connections=1) as sender:
            found = await outcomes(sender, mails(10))
        assert [kind(outcome) for outcome in found] == ["accepted"] * 2 + [expected] + ["accepted"] * 7
        assert server.followed > 0
        assert len(server.connections) == 2

    run(story())


@in_each_loop
def test_after_a_throttling_reply_the_follower_is_asked_about_again(run: Run) -> None:
    """FM-37: it was permitted when its envelope left, and is not sent if that has changed."""

    async def story() -> None:
        server = Watching(lambda point, connection, mail: THROTTLING if (point, mail) == (BODY, 3) else None)
        async with talking_to(server, connections=1) as sender:
            results: list[SendResult] = []
            for envelope in mails(10):
                sender.submit(envelope, results.append, lambda: not any(kind(r) == throttled for r in results))
            await until(lambda: len(results) == 10)
        assert [kind(result) for result in results[:3]] == ["accepted"] * 2 + [throttled]
        assert all(isinstance(result, Lapsed) for result in results[3:])
        assert len(server.mails) == 2
        assert server.followed > 0

    run(story())


@in_each_loop
def test_a_follower_whose_claim_ends_before_its_body(run: Run) -> None:
    """FM-35: its envelope was heard while the claim held; its body never leaves."""

    async def story() -> None:
        server = Watching()
        async with talking_to(server, connections=1) as sender:
            results: list[SendResult] = []
            for n, envelope in enumerate(mails(6)):
                sender.submit(envelope, results.append, lambda: True, (lambda: False) if n == 3 else None)
            await until(lambda: len(results) == 6)
            assert [kind(result) for result in results] == ["accepted"] * 3 + ["lapsed"] + ["accepted"] * 2
        assert [m.recipients[0] for m in server.mails] == [f"m{n:02}@example.org" for n in (0, 1, 2, 4, 5)]
        assert server.followed > 0

    run(story())


@in_each_loop
@pytest.mark.parametrize("act", [TAKE_AND_DROP, TAKE_AND_HANG], ids=["drops", "hangs"])
def test_only_the_mail_whose_body_left_is_in_doubt(run: Run, act: Act) -> None:
    """A server that is lost with a body, and an envelope behind it: one Ambiguous, all others accepted once."""

    async def story() -> None:
        server = Watching(lambda point, connection, mail: act if (point, connection, mail) == (BODY, 1, 3) else None)
        async with talking_to(server, connections=1) as sender:
            sending = asyncio.create_task(outcomes(sender, mails(8)))
            if act is TAKE_AND_HANG:
                await until(lambda: server.hung > 0)
                for connection in sender._connections:
                    connection.deadline = 0.0
                sender._sweep.end_the_silent()
            found = await sending
        assert [kind(outcome) for outcome in found] == ["accepted"] * 2 + [ambiguous] + ["accepted"] * 5
        assert server.recipients() == [m.recipient for m in mails(8)]
        assert server.followed > 0

    run(story())


@in_each_loop
def test_a_server_that_throws_away_what_comes_with_a_body(run: Run) -> None:
    """The mail that it never answers goes over another connection, and counts as nobody's refusal."""

    async def story() -> None:
        server = Watching()
        usual = server._body

        async def deaf(reader: asyncio.StreamReader, answer: Any) -> bytes:
            data = await usual(reader, answer)
            reader._buffer.clear()  # type: ignore[attr-defined]
            return data

        server._body = deaf  # type: ignore[method-assign]
        async with talking_to(server, connections=1, timeout=0.2) as sender:
            found = await outcomes(sender, mails(8))
        assert all(isinstance(outcome, Accepted) for outcome in found), found
        assert server.recipients() == [m.recipient for m in mails(8)]
        assert server.followed == 1

    run(story())


@in_each_loop
def test_closing_while_a_mail_follows(run: Run) -> None:
    """A mail that had followed a silent body is NotSent when the sender is closed."""

    async def story() -> None:
        server = Watching(at(BODY, TAKE_AND_HANG, mails={3}))
        async with talking_to(server, connections=1, drain=0.1) as sender:
            sending = asyncio.create_task(outcomes(sender, mails(5)))
            await until(lambda: server.hung > 0)
            await sender.close()
            found = await sending
        assert [kind(outcome) for outcome in found[:3]] == ["accepted"] * 2 + [ambiguous]
        assert all(isinstance(outcome, NotSent) for outcome in found[3:])
        assert server.followed > 0

    run(story())


@in_each_loop
def test_an_envelope_that_the_server_cannot_take_is_passed_over(run: Run) -> None:
    """It is refused without a word to the server, and the next one follows."""

    async def story() -> None:
        server = Watching(offers=("PIPELINING",))
        async with talking_to(server, connections=1) as sender:
            await send(sender, mail("first@example.org"))
            beyond = mail("é@example.org", needs_utf8=True)
            found = await outcomes(sender, [*mails(2), beyond, *mails(2)])
        assert [kind(outcome) for outcome in found] == ["accepted"] * 2 + [permanent] + ["accepted"] * 2
        assert server.followed > 0

    run(story())


def test_where_it_fails_it_is_tried_again_ever_later() -> None:
    """Ten seconds after a first failure, then twice as long, at most an hour; a long success makes it a first again."""
    policy = Pipelining()
    now = 0.0
    assert not policy.allowed(now, None)
    assert not policy.allowed(now, 0.2)
    waits = []
    for _ in range(14):
        assert policy.allowed(now, 0.001)
        policy.failed(now)
        policy.failed(now + 0.1)  # another connection of the same moment
        begin = now
        while not policy.allowed(now, 0.001):
            now += 0.5
        waits.append(now - begin)
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == 3600
    for _ in range(1000):
        policy.worked()
    policy.failed(now)
    assert policy.allowed(now + 10, 0.001)
