"""Closing a sender: bounded in time, with a result for every mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mail.sender import send
from tests.conformance.sender_harness import Run, ambiguous, in_each_loop, kind, mail, not_sent, talking_to
from tests.conformance.smtp_servers import BODY, HANG, Act, ScriptedServer

pytestmark = in_each_loop


@pytest.mark.parametrize(
    ("point", "expected"), [("MAIL", not_sent), ("RCPT", not_sent), ("DATA", not_sent), (BODY, ambiguous)]
)
def test_close_is_bounded_and_honest(run: Run, point: str, expected: str) -> None:
    """FM-12, FM-13: what hangs when the sender closes is NotSent before its data, Ambiguous after; the rest NotSent."""

    async def story() -> None:
        reached = asyncio.Event()

        def script(where: str, connection: int, mail: int) -> Act | bytes | None:
            if where != point:
                return None
            reached.set()
            return HANG

        server = ScriptedServer(script)
        async with talking_to(server, connections=1, drain=0.05) as sender:
            waiting = [asyncio.create_task(send(sender, mail(f"m{i}@example.org"))) for i in range(3)]
            await reached.wait()
            await sender.close()
            assert [kind(await each) for each in waiting] == [expected, not_sent, not_sent]

    run(story())


def test_close_lets_mid_dialogue_finish(run: Run) -> None:
    """A mail whose data is out gets its verdict during `close`; what waited behind it is NotSent."""

    async def story() -> None:
        release = asyncio.Event()

        class Slow(ScriptedServer):
            async def _body(self, reader: asyncio.StreamReader, answer: Callable[[str, bytes], Any]) -> bytes:
                body = await super()._body(reader, answer)
                closing.set()
                await release.wait()
                return body

        closing = asyncio.Event()
        server = Slow()
        async with talking_to(server, connections=1) as sender:
            waiting = [asyncio.create_task(send(sender, mail(f"m{i}@example.org"))) for i in range(3)]
            await closing.wait()
            end = asyncio.create_task(sender.close())
            assert kind(await waiting[1]) == not_sent
            release.set()
            assert kind(await waiting[0]) == "accepted"
            await end
        assert len(server.mails) == 1

    run(story())


def test_cancelled_close_leaves_no_mail_without_outcome(run: Run) -> None:
    """FM-13: even if `close` itself is cancelled, every mail has its outcome."""

    async def story() -> None:
        reached = asyncio.Event()

        def script(point: str, connection: int, mail: int) -> Act | bytes | None:
            if point == BODY:
                reached.set()
                return HANG
            return None

        server = ScriptedServer(script)
        async with talking_to(server, connections=1) as sender:
            waiting = [asyncio.create_task(send(sender, mail(f"m{i}@example.org"))) for i in range(3)]
            await reached.wait()
            end = asyncio.create_task(sender.close())
            assert kind(await waiting[1]) == not_sent
            end.cancel()
            assert kind(await waiting[0]) == ambiguous
            assert kind(await waiting[2]) == not_sent

    run(story())
