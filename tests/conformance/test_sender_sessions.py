"""Senders and their sessions: the order of commands, which connections are kept, and what servers offer."""

from __future__ import annotations

import pytest

from mail.sender import send
from schemas.envelope import Envelope
from schemas.send_results import Accepted, Refused
from tests.conformance.sender_harness import (
    NO_PIPELINING,
    Run,
    at,
    each_way,
    in_each_loop,
    kind,
    mail,
    outcomes,
    permanent,
    talking_to,
)
from tests.conformance.smtp_servers import (
    BODY,
    DROP,
    GREETING,
    Act,
    ScriptedServer,
)

pytestmark = in_each_loop


@pytest.mark.parametrize("last", [b"554 5.5.1 nobody\r\n", b"250 2.0.0 ok\r\n"])
def test_data_let_through_without_a_recipient(run: Run, last: bytes) -> None:
    """RFC 2920: if DATA gets 354 though the recipient was refused, a lone dot goes out and never the body."""

    async def story() -> None:
        def script(point: str, connection: int, mail: int) -> Act | bytes | None:
            if mail == 1:
                return {"RCPT": b"550 5.1.1 no\r\n", "DATA": b"354 go on\r\n", BODY: last}.get(point)
            return None

        server = ScriptedServer(script)
        async with talking_to(server, connections=1) as sender:
            found = await outcomes(sender, [mail("a@example.org"), mail("b@example.org")])
        assert kind(found[0]) == permanent
        assert kind(found[1]) == "accepted"
        assert [m.data for m in server.mails if m.recipients] == [mail("b@example.org").data]
        assert all(m.data == b"" for m in server.mails if not m.recipients)
        assert len(server.connections) == 1

    run(story())


def test_pipelining_as_far_as_it_is_safe(run: Run) -> None:
    """MAIL, RCPT and DATA go out together; the next mail never before the verdict on the last."""

    async def story() -> None:
        server = ScriptedServer()
        async with talking_to(server, connections=1) as sender:
            await outcomes(sender, [mail(f"m{i}@example.org") for i in range(3)])
        assert server.connections[0].commands == [
            "EHLO tests.test",
            *(
                line
                for i in range(3)
                for line in ("MAIL FROM:<club@example.org>", f"RCPT TO:<m{i}@example.org>", "DATA")
            ),
            "QUIT",
        ]

    run(story())


@each_way
def test_refusal_leaves_a_clean_session(run: Run, offers: tuple[str, ...]) -> None:
    """After a refused recipient the transaction is reset, and the same connection takes the next mail."""

    async def story() -> None:
        server = ScriptedServer(offers=offers)
        async with talking_to(server, connections=1) as sender:
            await outcomes(sender, [mail("refused@example.org"), mail("b@example.org")])
        assert server.connections[0].commands.count("RSET") == 1
        assert len(server.connections) == 1
        assert [m.recipients for m in server.mails] == [("b@example.org",)]

    run(story())


@each_way
@pytest.mark.parametrize("end", [DROP, Act(b"421 4.4.2 enough\r\n", "drop"), b"421 4.4.2 enough\r\n"])
def test_server_that_ends_connections(run: Run, offers: tuple[str, ...], end: Act | bytes) -> None:
    """A limit of mails per connection is met by the next connection: no mail is lost, none is sent twice."""

    async def story() -> None:
        server = ScriptedServer(at("MAIL", end, mails={4}), offers=offers)
        async with talking_to(server, connections=3) as sender:
            found = await outcomes(sender, [mail(f"m{i}@example.org") for i in range(40)])
        assert all(isinstance(outcome, Accepted) for outcome in found), found
        assert sorted(m.recipients[0] for m in server.mails) == sorted(f"m{i}@example.org" for i in range(40))

    run(story())


@each_way
def test_idle_connection_closed_with_a_goodbye(run: Run, offers: tuple[str, ...]) -> None:
    """A server that says 421 to an idle connection is connected to again, transparently."""

    async def story() -> None:
        server = ScriptedServer(offers=offers)
        async with talking_to(server, connections=1) as sender:
            await send(sender, mail())
            for writer in list(server._writers):
                writer.write(b"421 4.4.2 idle for too long\r\n")
            assert isinstance(await send(sender, mail()), Accepted)
            await server.drop_all()
            assert isinstance(await send(sender, mail()), Accepted)
        assert len(server.connections) == 3

    run(story())


def test_server_that_takes_few_connections(run: Run) -> None:
    """If more connections are refused, the mails go over the open ones."""

    async def story() -> None:
        def script(point: str, connection: int, mail: int) -> Act | bytes | None:
            refuse = point == GREETING and connection > 2
            return Act(b"421 4.7.0 too many connections\r\n", "drop") if refuse else None

        server = ScriptedServer(script)
        async with talking_to(server, connections=10) as sender:
            found = await outcomes(sender, [mail(f"m{i}@example.org") for i in range(40)])
        assert all(isinstance(outcome, Accepted) for outcome in found), found
        assert len(server.connections) <= 10

    run(story())


@each_way
def test_address_beyond_ascii_without_smtputf8(run: Run, offers: tuple[str, ...]) -> None:
    """Without SMTPUTF8 the mail is refused permanently with that reason; the server hears nothing of it."""

    async def story() -> None:
        plain = tuple(offer for offer in offers if offer != "SMTPUTF8")
        server = ScriptedServer(offers=plain)
        async with talking_to(server, connections=1) as sender:
            found = await outcomes(
                sender, [mail("é@example.org", needs_utf8=True), mail(), mail("é@example.org", needs_utf8=True)]
            )
        assert [kind(outcome) for outcome in found] == [permanent, "accepted", permanent]
        assert isinstance(found[0], Refused)
        assert "SMTPUTF8" in found[0].reply
        assert server.connections[0].commands.count("MAIL FROM:<club@example.org>") == 1

    run(story())


def test_parameters_that_the_server_offers(run: Run) -> None:
    """SMTPUTF8 is asked for where it is needed and nowhere else, 8BITMIME only where offered."""

    async def story() -> None:
        for offers, parameters in ((("SMTPUTF8",), " SMTPUTF8"), (NO_PIPELINING, " BODY=8BITMIME SMTPUTF8")):
            server = ScriptedServer(offers=offers)
            async with talking_to(server, connections=1) as sender:
                await send(sender, mail())
                await send(sender, mail("é@example.org", needs_utf8=True))
            said = [line for line in server.connections[0].commands if line.startswith("MAIL")]
            assert said == ["MAIL FROM:<club@example.org>", f"MAIL FROM:<club@example.org>{parameters}"]

    run(story())


@pytest.mark.parametrize("address", ["a@b>\r\nRCPT TO:<c@d", "a b@c", "a@b\n", "<a@b", ""])
def test_address_that_would_be_a_command(run: Run, address: str) -> None:
    """No content of an envelope can inject a command."""

    async def story() -> None:
        server = ScriptedServer()
        async with talking_to(server) as sender:
            outcome = await send(sender, Envelope("club@example.org", address, b"x\r\n"))
        assert kind(outcome) == permanent
        assert server.mails == []

    run(story())


def test_server_before_esmtp(run: Run) -> None:
    """A server that knows no EHLO is greeted with HELO."""

    async def story() -> None:
        server = ScriptedServer(
            lambda point, connection, mail: {"EHLO": b"502 5.5.2 what?\r\n", "HELO": b"250 hello\r\n"}.get(point)
        )
        async with talking_to(server) as sender:
            assert isinstance(await send(sender, mail()), Accepted)

    run(story())
