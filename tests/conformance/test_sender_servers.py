"""Sessions and transactions with servers as they are: they offer twice, refuse at the moment, keep for too long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from mail.sender import send
from mail.smtp.session import _KEEP_ALIVE
from schemas.errors import UnreachableError
from schemas.send_results import Accepted, Refused, Throttled, Undecided
from tests.conformance.sender_harness import (
    Run,
    each_way,
    in_each_loop,
    kind,
    mail,
    outcomes,
    talking_to,
    throttled,
    until,
)
from tests.conformance.smtp_servers import BODY, GREETING, Act, Script, ScriptedServer

pytestmark = in_each_loop

THROTTLING = b"454 Throttling failure: Maximum sending rate exceeded.\r\n"


class Clingy:
    """A script of a server that keeps a refused transaction: MAIL gets 503 until RSET, as some do.

    `refuses` at one point, the first `times`.
    """

    def __init__(self, point: str, reply: bytes, times: int) -> None:
        self.server: ScriptedServer | None = None
        self._point, self._reply, self._left = point, reply, times
        self._open: set[int] = set()
        self.said_503 = 0

    def __call__(self, point: str, connection: int, mail: int) -> Act | bytes | None:
        if point == "MAIL" and connection in self._open:
            self.said_503 += 1
            return b"503 5.5.1 Sender already specified\r\n"
        if point == "RSET":
            self._open.discard(connection)
        if point == "MAIL":
            self._open.add(connection)
        if point == self._point and self._left > 0:
            self._left -= 1
            return self._reply
        if point == BODY:
            self._open.discard(connection)
        return None


@each_way
@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", BODY])
@pytest.mark.parametrize(
    "reply", [THROTTLING, b"550 5.1.1 no such user\r\n", b"452 4.3.1 Insufficient system storage\r\n"]
)
def test_every_transaction_begins_clean(run: Run, offers: tuple[str, ...], point: str, reply: bytes) -> None:
    """FM-37: after a refusal at any point the next mail on the same connection is no second sender of the last."""

    async def story() -> None:
        script = Clingy(point, reply, times=3)
        server = ScriptedServer(script, offers=offers)
        async with talking_to(server, connections=1) as sender:
            found = await outcomes(sender, [mail(f"m{n}@example.org") for n in range(6)])
        assert script.said_503 == 0
        assert [isinstance(outcome, Accepted) for outcome in found] == [False] * 3 + [True] * 3
        assert len(server.connections) == 1
        assert server.connections[0].commands.count("RSET") == 3

    run(story())


@each_way
def test_a_503_is_never_the_recipients(run: Run, offers: tuple[str, ...]) -> None:
    """FM-37: a server that says 503 though all was reset: the mail goes over another connection, nobody fails."""

    async def story() -> None:
        refused = False

        def script(point: str, connection: int, mail: int) -> Act | bytes | None:
            nonlocal refused
            if point == BODY and not refused:
                refused = True
                return THROTTLING
            return (
                b"503 5.5.1 Sender already specified\r\n" if point == "MAIL" and connection == 1 and refused else None
            )

        server = ScriptedServer(script, offers=offers)
        async with talking_to(server, connections=1) as sender:
            found = await outcomes(sender, [mail("a@example.org"), mail("b@example.org")])
        assert [kind(outcome) for outcome in found] == [throttled, "accepted"]
        assert len(server.connections) == 2

    run(story())


@each_way
@pytest.mark.parametrize("point", ["RCPT", "DATA"])
@pytest.mark.parametrize("act", [Act(b"421 4.7.0 [TSS04] deferred\r\n", "drop"), Act(then="drop")])
def test_who_ends_each_dialogue_holds_up_nobody(run: Run, offers: tuple[str, ...], point: str, act: Act) -> None:
    """FM-37: one recipient for whom the server ends the session: theirs alone is Undecided, the others are sent."""

    async def story() -> None:
        server = ScriptedServer(offers=offers)

        def script(where: str, connection: int, number: int) -> Act | bytes | None:
            commands = server.connections[connection - 1].commands
            recipients = [line for line in commands if line.startswith("RCPT")]
            return act if where == point and recipients and "busy@" in recipients[-1] else None

        server.script = script
        async with talking_to(server, connections=2) as sender:
            names = ["a", "busy", "b", "busy", "c", "d"]
            found = await outcomes(sender, [mail(f"{name}@example.org") for name in names])
        for name, outcome in zip(names, found, strict=True):
            assert isinstance(outcome, Undecided if name == "busy" else Accepted), (name, outcome)

    run(story())


def test_a_slow_verdict_is_waited_for(run: Run) -> None:
    """FM-37: the reply to the data may take longer than others (RFC 5321, 4.5.3.2): no mail is in doubt for that."""

    async def story() -> None:
        go_on = asyncio.Event()

        class Slow(ScriptedServer):
            async def _body(self, reader: asyncio.StreamReader, answer: Callable[[str, bytes], Any]) -> bytes:
                body = await super()._body(reader, answer)
                await go_on.wait()
                return body

        async with talking_to(Slow(), connections=1, timeout=0.2, final_timeout=600.0) as sender:
            sending = asyncio.create_task(send(sender, mail()))
            await until(
                lambda: any(
                    c.busy and c.deadline - asyncio.get_running_loop().time() > 500 for c in sender._connections
                )
            )
            # Several sweeps for silent connections pass by.
            await asyncio.sleep(0.5)
            assert not sending.done()
            go_on.set()
            assert isinstance(await sending, Accepted)

    run(story())


def test_a_machine_that_is_gone_is_noticed(run: Run) -> None:
    """While a verdict is awaited for minutes the kernel asks whether the other side is there at all."""

    async def story() -> None:
        async with talking_to(ScriptedServer(), connections=1) as sender:
            await sender.check()
            (connection,) = sender._connections
            assert connection.transport is not None
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == _KEEP_ALIVE[0]

    run(story())


def _logs_in(mechanism: str, *, asks_again: bool = False) -> tuple[Script, ScriptedServer]:
    """A server that takes only this mechanism and refuses others with 535."""
    server = ScriptedServer()

    def script(point: str, connection: int, number: int) -> Act | bytes | None:
        line = server.connections[connection - 1].commands[-1] if point != GREETING else ""
        if point == "AUTH":
            if not line.startswith(f"AUTH {mechanism}"):
                return b"535 5.7.8 Authentication credentials invalid\r\n"
            return b"334\r\n" if asks_again or mechanism == "LOGIN" else b"235 ok\r\n"
        if line == "dQ==" and mechanism == "LOGIN":
            return b"334\r\n"
        # The answers to a 334: the user and the password, or the whole of PLAIN again.
        return b"235 ok\r\n" if line in ("cA==", "AHUAcA==") else None

    server.script = script
    return script, server


@pytest.mark.parametrize(
    ("offers", "mechanism", "asks_again"),
    [
        (("AUTH GSSAPI NTLM", "AUTH=LOGIN PLAIN"), "PLAIN", False),
        (("AUTH GSSAPI NTLM", "AUTH LOGIN PLAIN"), "LOGIN", False),
        (("AUTH PLAIN LOGIN",), "LOGIN", False),
        (("auth plain",), "PLAIN", True),
        (("AUTH=LOGIN",), "LOGIN", False),
    ],
)
def test_log_in_as_servers_offer_it(run: Run, offers: tuple[str, ...], mechanism: str, asks_again: bool) -> None:
    """FM-37: AUTH offered twice or in the old form, a PLAIN that refuses everybody beside LOGIN, an empty 334."""

    async def story() -> None:
        _, server = _logs_in(mechanism, asks_again=asks_again)
        server.offers = offers
        await server.start()
        url = server.url.replace("//", "//u:p@")
        await server.stop()
        async with talking_to(server, connections=1, url=url) as sender:
            assert isinstance(await send(sender, mail()), Accepted)

    run(story())


def test_wrong_password_says_so_once_each(run: Run) -> None:
    """A server that takes neither: one try of each mechanism, and no reply's words in the error."""

    async def story() -> None:
        _, server = _logs_in("NONE")
        server.offers = ("AUTH PLAIN LOGIN",)
        await server.start()
        url = server.url.replace("//", "//u:p@")
        await server.stop()
        async with talking_to(server, connections=1, url=url) as sender:
            with pytest.raises(UnreachableError, match="refused the authentication with 535"):
                await sender.check()
        assert [line.split()[1] for line in server.connections[0].commands if line.startswith("AUTH")] == [
            "PLAIN",
            "LOGIN",
        ]

    run(story())


def test_starttls_that_is_refused_at_the_moment(run: Run) -> None:
    """`starttls=optional` goes on in the clear; `required` does not send."""

    async def story() -> None:
        def script(point: str, connection: int, number: int) -> Act | bytes | None:
            return b"454 4.7.0 TLS not available due to local problem\r\n" if point == "STARTTLS" else None

        for option, delivers in (("optional", True), ("required", False)):
            server = ScriptedServer(script, offers=("STARTTLS", "PIPELINING"))
            await server.start()
            url = f"{server.url}?starttls={option}"
            await server.stop()
            async with talking_to(server, connections=1, url=url) as sender:
                assert isinstance(await send(sender, mail()), Accepted) == delivers
            assert len(server.mails) == delivers

    run(story())


def test_a_refused_greeting_names_the_setting(run: Run) -> None:
    """A server that refuses our name in EHLO: the error says which name it was and which setting changes it."""

    async def story() -> None:
        def script(point: str, connection: int, number: int) -> Act | bytes | None:
            return Act(b"421 4.7.0 Try again later (EHLO)\r\n", "drop") if point == "EHLO" else None

        async with talking_to(ScriptedServer(script), connections=1, hello="[127.0.0.1]") as sender:
            with pytest.raises(UnreachableError, match=r"our greeting as \[127.0.0.1\] \(BIDDEN_SMTP_HELLO\): 421"):
                await sender.check()

    run(story())


def test_mails_to_a_full_server_fail_nobody(run: Run) -> None:
    """FM-37: a server whose disk is full for a while refuses each MAIL: throttled each time, then all are sent."""

    async def story() -> None:
        full = True

        def script(point: str, connection: int, number: int) -> Act | bytes | None:
            return b"452 4.3.1 Insufficient system storage\r\n" if point == "MAIL" and full else None

        server = ScriptedServer(script)
        async with talking_to(server, connections=3) as sender:
            envelopes = [mail(f"m{n}@example.org") for n in range(20)]
            found = await outcomes(sender, envelopes)
            assert not [outcome for outcome in found if isinstance(outcome, Refused)]
            assert all(outcome == Throttled("452 4.3.1 Insufficient system storage") for outcome in found)
            full = False
            assert all(isinstance(outcome, Accepted) for outcome in await outcomes(sender, envelopes))

    run(story())
