"""A sender asks whether a mail's claim still holds, and sends nothing without it: every sender, every server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mail.sender import send
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, SendResult, Undecided
from tests.conformance.sender_harness import (
    NO_PIPELINING,
    Run,
    aiosmtpd_is_old,
    at,
    in_each_loop,
    mail,
    sending_to,
    talking_to,
    until,
)
from tests.conformance.smtp_servers import BODY_BEGINS, Act, ScriptedServer, Server
from tests.conformance.test_sender import SERVERS

pytestmark = [in_each_loop, aiosmtpd_is_old]

BODIES = {"small": b"hello\r\n", "large": b"line\r\n" * 50_000}


class Claim:
    """A permission that is withdrawn once it has been asked for `asked` times."""

    def __init__(self, lasts: int) -> None:
        self.asked = 0
        self._lasts = lasts

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked <= self._lasts


@pytest.fixture(params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    """Each well-behaved server, not yet started."""
    return SERVERS[request.param]()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("lasts", [0, 1, 2])
def test_a_mail_whose_claim_lapsed_is_never_accepted(server: Server, run: Run, lasts: int, body: str) -> None:
    """FM-35: however late the claim ends before the last bytes leave, the mail is Lapsed, the next one accepted."""

    async def story() -> None:
        async with sending_to(server, connections=1) as sender:
            claim = Claim(lasts)
            outcome = await send(sender, mail("late@example.org", BODIES[body]), claim)
            if claim.asked <= lasts:
                # Asked less often than the claim lasted: it held to the end.
                assert isinstance(outcome, Accepted)
                server.mails.pop()
            else:
                assert isinstance(outcome, Lapsed)
            assert claim.asked >= min(lasts + 1, 2)
            assert isinstance(await send(sender, mail("next@example.org")), Accepted)
        assert [m.recipients for m in server.mails] == [("next@example.org",)]

    run(story())


def test_mails_whose_claims_ended_while_they_waited(server: Server, run: Run) -> None:
    """FM-35: what waits for a connection when its claim ends is Lapsed; the server never hears of it."""

    async def story() -> None:
        async with sending_to(server, connections=1) as sender:
            holds = True
            results: list[SendResult] = []

            def done(result: SendResult) -> None:
                nonlocal holds
                holds = False
                results.append(result)

            for n in range(20):
                sender.submit(mail(f"m{n}@example.org"), done, lambda: holds)
            await until(lambda: len(results) == 20)
            assert isinstance(results[0], Accepted)
            assert len(server.mails) == sum(isinstance(result, Accepted) for result in results) <= 2
            assert sum(isinstance(result, Lapsed) for result in results) >= 18
            assert isinstance(await send(sender, mail("next@example.org")), Accepted)

    run(story())


class _Reading:
    """A server that lets the body begin and then reads nothing until the test lets it."""

    def __init__(self, **options: Any) -> None:
        self.goes_on = asyncio.Event()
        self.began = asyncio.Event()
        self.server = ScriptedServer(**options)
        usual = self.server._body

        async def slow(reader: asyncio.StreamReader, answer: Callable[[str, bytes], Any]) -> bytes:
            self.began.set()
            await self.goes_on.wait()
            return await usual(reader, answer)

        self.server._body = slow  # type: ignore[method-assign]


#: More than kernel buffers hold.
HUGE = b"x" * 70 + b"\r\n"


@pytest.mark.parametrize("offers", [("PIPELINING", *NO_PIPELINING), NO_PIPELINING])
def test_the_end_of_a_large_body_waits_until_it_has_left(run: Run, offers: tuple[str, ...]) -> None:
    """FM-35: a server that reads slowly is given no end of the data by a claim that has ended meanwhile."""

    async def story() -> None:
        slow = _Reading(offers=offers)
        async with talking_to(slow.server, connections=1) as sender:
            holds = True
            sending = asyncio.create_task(send(sender, mail(body=HUGE * 300_000), lambda: holds))
            await slow.began.wait()
            await asyncio.sleep(0)
            holds = False
            slow.goes_on.set()
            assert isinstance(await sending, Lapsed)
            assert isinstance(await send(sender, mail("next@example.org")), Accepted)
        assert [m.recipients for m in slow.server.mails] == [("next@example.org",)]

    run(story())


def test_a_large_body_without_its_end_is_not_sent(run: Run) -> None:
    """A connection that is lost while the end is held back leaves no doubt: no server may accept such data."""

    async def story() -> None:
        slow = _Reading()
        async with talking_to(slow.server, connections=1) as sender:
            sending = asyncio.create_task(send(sender, mail(body=HUGE * 300_000)))
            await slow.began.wait()
            await slow.server.drop_all()
            assert isinstance(await sending, Undecided)

    run(story())


def test_a_verdict_before_the_end_of_a_large_body(run: Run) -> None:
    """A 2xx to data whose end was not sent proves nothing."""

    async def story() -> None:
        script = at(BODY_BEGINS, Act(b"250 2.0.0 kept\r\n", then="hang"))
        async with talking_to(ScriptedServer(script), connections=1) as sender:
            assert isinstance(await send(sender, mail(body=HUGE * 300_000)), Ambiguous)

    run(story())


def test_a_sender_says_how_many_mails_it_can_take(server: Server, run: Run) -> None:
    """FM-35: room for each connection at first; none when many wait; all of it again when they are done, or NotSent."""

    async def story() -> None:
        async with sending_to(server, connections=2) as sender:
            assert sender.capacity() >= 2
            waiting = [asyncio.create_task(send(sender, mail(f"m{n}@example.org"))) for n in range(60)]
            await asyncio.sleep(0)
            assert sender.capacity() == 0
            for task in waiting[2:]:
                task.cancel()
            await until(lambda: len(server.mails) == 60)
            await until(lambda: sender.capacity() >= 2)
            await server.stop()
            assert isinstance(await send(sender, mail()), NotSent)
            await until(lambda: sender.capacity() >= 2)

    run(story())
