"""What the suites of the senders' port share: loops to run in, senders to close, names of outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from mail.sender import Sender, send
from mail.smtp.dialogue import Stage
from mail.smtp.sender import SmtpSender
from schemas.envelope import Envelope
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided
from tests.conformance.smtp_servers import Act, Script, ScriptedServer, Server

Run = Callable[[Coroutine[Any, Any, None]], None]

NO_PIPELINING = ("8BITMIME", "SMTPUTF8")


def _bounded(runner: Any) -> Run:
    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await coroutine

        runner(main())

    return run


#: For each test: `run` runs a coroutine in asyncio's loop and in uvloop.
in_each_loop = pytest.mark.parametrize("run", [_bounded(asyncio.run), _bounded(uvloop.run)], ids=["asyncio", "uvloop"])

#: aiosmtpd 1.4.6 still uses what newer Pythons warn about.
aiosmtpd_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning:aiosmtpd")

#: `offers` with PIPELINING and without.
each_way = pytest.mark.parametrize(
    "offers", [("PIPELINING", *NO_PIPELINING), NO_PIPELINING], ids=["pipelining", "step by step"]
)


def mail(recipient: str = "ada@example.org", body: bytes = b"hello\r\n", needs_utf8: bool = False) -> Envelope:
    head = f"To: {recipient}\r\n\r\n".encode()
    return Envelope("club@example.org", recipient, head + body, needs_utf8)


@asynccontextmanager
async def talking_to(server: Server, **options: Any) -> AsyncIterator[SmtpSender]:
    """A started server and a sender for it, both closed afterwards."""
    await server.start()
    sender = SmtpSender(
        options.pop("url", server.url), **{"timeout": 5.0, "final_timeout": 5.0, "hello": "tests.test", **options}
    )
    try:
        yield sender
    finally:
        await sender.close()
        await server.stop()


@asynccontextmanager
async def sending_to(server: Server, connections: int = 10) -> AsyncIterator[Sender]:
    """A started server and its own sender, both gone afterwards."""
    await server.start()
    sender = server.sender(connections)
    try:
        yield sender
    finally:
        await sender.close()
        await server.stop()


async def outcomes(sender: Sender, envelopes: list[Envelope]) -> list[SendResult]:
    """Submits all at once and waits for all."""
    return list(await asyncio.gather(*(send(sender, envelope) for envelope in envelopes)))


async def outcome_from(sender: SmtpSender, server: ScriptedServer, act: Act | bytes, expected: str) -> SendResult:
    """Sends a mail to a server that misbehaves in mid-dialogue.

    If it falls silent the time-out is brought about once it has, so that a busy machine changes nothing.
    """
    sending = asyncio.create_task(send(sender, mail()))
    if isinstance(act, Act) and act.then == "hang":

        def fell_silent() -> bool:
            stages = [c._dialogue.stage for c in sender._connections if c._dialogue is not None]
            return server.hung > 0 and (expected != ambiguous or Stage.BODY in stages)

        await until(fell_silent)
        for connection in sender._connections:
            connection.deadline = 0.0
        sender._end_the_silent()
    return await sending


async def until(condition: Callable[[], bool]) -> None:
    """Polls for a condition."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def at(point: str, act: Act | bytes, mails: set[int] | None = None) -> Script:
    """A script that steps in at one point, for every connection, for the mails given or all."""

    def script(where: str, connection: int, mail: int) -> Act | bytes | None:
        return act if where == point and (mails is None or mail in mails) else None

    return script


not_sent, ambiguous, temporary, permanent = "not sent", "ambiguous", "temporary", "permanent"
throttled, undecided, lapsed = "throttled", "undecided", "lapsed"


def kind(outcome: SendResult) -> str:
    match outcome:
        case NotSent():
            return not_sent
        case Throttled():
            return throttled
        case Undecided():
            return undecided
        case Lapsed():
            return lapsed
        case Ambiguous():
            return ambiguous
        case Refused(permanent=False):
            return temporary
        case Refused():
            return permanent
        case Accepted():
            return "accepted"
