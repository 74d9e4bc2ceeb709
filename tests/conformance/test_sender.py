"""The port `mail.sender.Sender`, tested on servers that behave: a third party's, scripted ones, and HTTP.

The server makes the sender that is under test: to test another sender, add a server that makes it to SERVERS.
Nothing waits for a time, but for outcomes. `test_sender_outcomes` has the servers that misbehave,
`test_sender_sessions` their manners, `test_sender_tls` TLS and the log-in, `test_sender_closing` the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog

from mail.sender import always, send
from schemas.errors import UnreachableError
from schemas.send_results import Accepted, NotSent, Refused, SendResult
from tests.conformance.http_provider import HttpProvider
from tests.conformance.sender_harness import (
    NO_PIPELINING,
    Run,
    aiosmtpd_is_old,
    in_each_loop,
    mail,
    outcomes,
    sending_to,
    until,
)
from tests.conformance.smtp_servers import AiosmtpdServer, Mail, ScriptedServer, Server

pytestmark = [in_each_loop, aiosmtpd_is_old]

SERVERS: dict[str, Callable[[], Server]] = {
    "aiosmtpd": AiosmtpdServer,
    "pipelining": ScriptedServer,
    "step by step": lambda: ScriptedServer(offers=NO_PIPELINING),
    "byte by byte": lambda: ScriptedServer(byte_by_byte=True),
    "byte by byte, step by step": lambda: ScriptedServer(byte_by_byte=True, offers=NO_PIPELINING),
    "http provider, sender of examples/": HttpProvider,
}


@pytest.fixture(params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    """Each well-behaved server, not yet started."""
    return SERVERS[request.param]()


def test_accepted_is_what_the_server_has(server: Server, run: Run) -> None:
    """FM-11: Accepted carries the server's reply to the data, and the server has the mail to the last byte."""

    async def story() -> None:
        async with sending_to(server) as sender:
            outcome = await send(sender, mail())
        assert isinstance(outcome, Accepted)
        assert outcome.reply == server.accepted.format(1)
        assert server.mails == [Mail("club@example.org", ("ada@example.org",), mail().data)]

    run(story())


@pytest.mark.parametrize(
    "body",
    [b".\r\n", b"..\r\n.\r\n...\r\n.x\r\n", b"", b"a\r\n.\r\nQUIT\r\n", b"x" * 900 + b"\r\n", b"line\r\n" * 50_000],
)
def test_any_body_arrives_unchanged(server: Server, run: Run, body: bytes) -> None:
    """Dots at line starts, a lone dot and large bodies arrive as they were composed."""

    async def story() -> None:
        async with sending_to(server) as sender:
            assert isinstance(await send(sender, mail(body=body)), Accepted)
        assert server.mails[0].data == mail(body=body).data

    run(story())


def test_refused_recipients_are_refused_alone(server: Server, run: Run) -> None:
    """FM-04, FM-11: a refused recipient is Refused with the reply; those before and after are accepted."""

    async def story() -> None:
        async with sending_to(server, connections=2) as sender:
            names = ["a", "refused", "b", "later", "refused", "c", "later", "d"]
            found = await outcomes(sender, [mail(f"{name}{i}@example.org") for i, name in enumerate(names)])
        for name, outcome in zip(names, found, strict=True):
            if name == "refused":
                assert outcome == Refused(server.refused, permanent=True)
            elif name == "later":
                assert outcome == Refused(server.put_off, permanent=False)
            else:
                assert isinstance(outcome, Accepted)
        assert sorted(m.recipients[0][0] for m in server.mails) == ["a", "b", "c", "d"]
        assert all(len(m.recipients) == 1 for m in server.mails)

    run(story())


def test_many_mails_over_few_connections(server: Server, run: Run) -> None:
    """Each of many mails is accepted once, over kept connections within the limit."""

    async def story() -> None:
        async with sending_to(server, connections=3) as sender:
            found = await outcomes(sender, [mail(f"m{i}@example.org") for i in range(100)])
        assert all(isinstance(outcome, Accepted) for outcome in found)
        assert sorted(m.recipients[0] for m in server.mails) == sorted(f"m{i}@example.org" for i in range(100))
        if isinstance(server, ScriptedServer):
            assert len(server.connections) <= 3

    run(story())


def test_done_is_called_once_and_later(server: Server, run: Run) -> None:
    """`submit` returns before `done` is called, and a handler that raises harms no other mail."""

    async def story() -> None:
        async with sending_to(server) as sender:
            calls: list[SendResult] = []

            def fails(outcome: SendResult) -> None:
                calls.append(outcome)
                raise ZeroDivisionError

            with structlog.testing.capture_logs() as logs:
                sender.submit(mail(), fails, always)
                assert calls == []
                assert isinstance(await send(sender, mail()), Accepted)
                await sender.close()
            assert len(calls) == 1
            assert any("failed" in entry["event"] for entry in logs)

    run(story())


def test_a_handler_may_submit(server: Server, run: Run) -> None:
    """The next mail may be submitted from within the outcome of the last."""

    async def story() -> None:
        async with sending_to(server, connections=1) as sender:
            left = 20
            finished = asyncio.get_running_loop().create_future()

            def done(outcome: SendResult) -> None:
                nonlocal left
                assert isinstance(outcome, Accepted)
                left -= 1
                if left:
                    sender.submit(mail(f"m{left}@example.org"), done, always)
                else:
                    finished.set_result(None)

            sender.submit(mail(), done, always)
            await finished
        assert len(server.mails) == 20

    run(story())


def test_address_beyond_ascii_with_smtputf8(server: Server, run: Run) -> None:
    """A server with SMTPUTF8 is given the address as it is."""

    async def story() -> None:
        async with sending_to(server) as sender:
            outcome = await send(sender, mail("用户@例子.example", needs_utf8=True))
        assert isinstance(outcome, Accepted)
        assert server.mails[0].recipients == ("用户@例子.example",)

    run(story())


def test_server_away_is_not_sent(server: Server, run: Run) -> None:
    """FM-11, FM-30: with no server listening everything that waits is NotSent, soon, and nothing is lost or raised."""

    async def story() -> None:
        await server.start()
        await server.stop()
        sender = server.sender(connections=3)
        found = await outcomes(sender, [mail(f"m{i}@example.org") for i in range(50)])
        assert all(isinstance(outcome, NotSent) and "cannot reach" in outcome.reason for outcome in found)
        with pytest.raises(UnreachableError, match=f"127.0.0.1:{server.url.rpartition(':')[2]}"):
            await sender.check()
        await sender.close()

    run(story())


def test_ready_waits_for_the_server(server: Server, run: Run) -> None:
    """FM-30: `ready` returns when the server is there, logs that it waits, once."""

    async def story() -> None:
        await server.start()
        await server.stop()
        sender = server.sender()
        with structlog.testing.capture_logs() as logs:
            waiting = asyncio.create_task(sender.ready())
            await until(lambda: bool(logs))
            assert not waiting.done()
            await server.start()
            await waiting
        assert [entry["log_level"] for entry in logs] == ["warning", "info"]
        await sender.check()
        assert isinstance(await send(sender, mail()), Accepted)
        await sender.close()
        await server.stop()

    run(story())


def test_ready_can_be_cancelled(server: Server, run: Run) -> None:
    """FM-13: a stop during the wait is a cancellation and nothing else."""

    async def story() -> None:
        await server.start()
        await server.stop()
        sender = server.sender()
        with structlog.testing.capture_logs() as logs:
            waiting = asyncio.create_task(sender.ready())
            await until(lambda: bool(logs))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await sender.close()

    run(story())


def test_restart_of_the_server_loses_nothing(server: Server, run: Run) -> None:
    """FM-30: kept connections that a restart cut are replaced, and the next mails are accepted."""

    async def story() -> None:
        async with sending_to(server, connections=4) as sender:
            await outcomes(sender, [mail(f"a{i}@example.org") for i in range(8)])
            await server.stop()
            await server.start()
            found = await outcomes(sender, [mail(f"b{i}@example.org") for i in range(8)])
            assert all(isinstance(outcome, Accepted) for outcome in found)
        assert len(server.mails) == 16

    run(story())


def test_closed_sender_sends_nothing(server: Server, run: Run) -> None:
    """After `close` a mail is NotSent, `ready` refuses, and closing again does no harm."""

    async def story() -> None:
        async with sending_to(server) as sender:
            await sender.close()
            assert isinstance(await send(sender, mail()), NotSent)
            with pytest.raises(RuntimeError):
                await sender.ready()
        assert server.mails == []

    run(story())
