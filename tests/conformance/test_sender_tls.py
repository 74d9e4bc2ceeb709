"""Senders over TLS and with authentication: nothing is sent to an unverified server, and secrets stay secret."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from mail.sender import send
from mail.smtp.sender import SmtpSender
from schemas.errors import UnreachableError
from schemas.send_results import Accepted, Lapsed, NotSent
from tests.conformance.sender_harness import Run, aiosmtpd_is_old, at, in_each_loop, kind, mail, not_sent, outcomes
from tests.conformance.smtp_servers import AiosmtpdServer, ScriptedServer

pytestmark = [in_each_loop, aiosmtpd_is_old]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


SECRET = "p@ss/wörd:#1"
ENCODED = "p%40ss%2Fw%C3%B6rd%3A%231"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_starttls_and_log_in(
    run: Run, server_context: ssl.SSLContext, ca_file: Path, mechanism: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """STARTTLS with a verified certificate, then authentication with a percent-decoded password, PLAIN or LOGIN."""

    async def story() -> None:
        other = {"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]
        server = AiosmtpdServer(server_context, ("ada", SECRET), auth_exclude_mechanism=[other])
        await server.start()
        url = f"smtp://ada:{ENCODED}@localhost:{server.port}?starttls=required&ca_file={ca_file}"
        sender = SmtpSender(url.replace("localhost", "127.0.0.1"))
        assert isinstance(await send(sender, mail()), Accepted)
        assert SECRET not in repr(sender) + repr(sender.__dict__)
        await sender.close()
        await server.stop()

    run(story())
    assert SECRET not in "".join(capsys.readouterr())


def test_wrong_password(run: Run, server_context: ssl.SSLContext, ca_file: Path) -> None:
    """A refused authentication is no failed mail: NotSent, with the code and without the password."""

    async def story() -> None:
        server = AiosmtpdServer(server_context, ("ada", SECRET))
        await server.start()
        sender = SmtpSender(f"smtp://ada:sesame@127.0.0.1:{server.port}?starttls=true&ca_file={ca_file}")
        outcome = await send(sender, mail())
        assert isinstance(outcome, NotSent)
        assert "refused the authentication with 535" in outcome.reason
        with pytest.raises(UnreachableError) as caught:
            await sender.check()
        assert "sesame" not in str(caught.value)
        await sender.close()
        await server.stop()

    run(story())


@pytest.mark.parametrize("offers", [("PIPELINING",), ()])
def test_implicit_tls(run: Run, server_context: ssl.SSLContext, ca_file: Path, offers: tuple[str, ...]) -> None:
    """smtps:// is encrypted from the first byte, and mails as any other."""

    async def story() -> None:
        server = ScriptedServer(tls=server_context, offers=offers)
        await server.start()
        sender = SmtpSender(f"smtps://127.0.0.1:{server.port}?ca_file={ca_file}", connections=2)
        found = await outcomes(sender, [mail(f"m{i}@example.org", b"line\r\n" * 20_000) for i in range(10)])
        assert all(isinstance(outcome, Accepted) for outcome in found), found
        await sender.close()
        await server.stop()

    run(story())


def test_untrusted_certificate(run: Run, server_context: ssl.SSLContext) -> None:
    """An untrusted certificate, or one for another name, ends the session before a mail or a password is sent."""

    async def story() -> None:
        for tls in ("smtps://127.0.0.1:{}", "smtp://127.0.0.1:{}?starttls=required"):
            server: Any = ScriptedServer(tls=server_context) if "smtps" in tls else AiosmtpdServer(server_context)
            await server.start()
            sender = SmtpSender(tls.format(server.port))
            outcome = await send(sender, mail())
            assert isinstance(outcome, NotSent)
            assert "certificate" in outcome.reason
            await sender.close()
            await server.stop()
            assert server.mails == []

    run(story())


def test_starttls_that_is_not_offered(run: Run) -> None:
    """Required STARTTLS is never done without; optional is, but then without a password."""

    async def story() -> None:
        server = ScriptedServer()
        await server.start()
        for options, log_in, expected in (
            ("?starttls=required", "", not_sent),
            ("?starttls=optional", "", "accepted"),
            ("", "", "accepted"),
            ("", "ada:secret@", not_sent),  # no AUTH is offered either
        ):
            sender = SmtpSender(f"smtp://{log_in}127.0.0.1:{server.port}{options}")
            assert kind(await send(sender, mail())) == expected
            await sender.close()
        await server.stop()
        assert not any("AUTH" in line for each in server.connections for line in each.commands)

    run(story())


def test_words_slipped_in_before_tls(run: Run, ca_file: Path) -> None:
    """Replies that came in the clear behind the reply to STARTTLS are not taken for encrypted ones."""

    async def story() -> None:
        server = ScriptedServer(
            at("STARTTLS", b"220 2.0.0 go ahead\r\n250-mail.test\r\n250 AUTH PLAIN\r\n"), offers=("STARTTLS",)
        )
        await server.start()
        sender = SmtpSender(f"smtp://127.0.0.1:{server.port}?starttls=required&ca_file={ca_file}")
        outcome = await send(sender, mail())
        assert isinstance(outcome, NotSent)
        assert "out of turn" in outcome.reason
        await sender.close()
        await server.stop()

    run(story())


@pytest.mark.parametrize("implicit", [True, False], ids=["smtps", "starttls"])
def test_a_claim_that_lapsed_under_tls(run: Run, server_context: ssl.SSLContext, ca_file: Path, implicit: bool) -> None:
    """FM-35: a claim that ends before the body's end has left ends the data, also over TLS, begun either way."""

    async def story() -> None:
        server: Any = ScriptedServer(tls=server_context) if implicit else AiosmtpdServer(server_context)
        await server.start()
        scheme, more = ("smtps", "") if implicit else ("smtp", "starttls=required&")
        sender = SmtpSender(f"{scheme}://127.0.0.1:{server.port}?{more}ca_file={ca_file}", connections=1)
        for body in (b"small\r\n", b"large\r\n" * 50_000):
            asked: list[None] = []

            def once(asked: list[None] = asked) -> bool:
                asked.append(None)
                return len(asked) == 1

            assert isinstance(await send(sender, mail("late@example.org", body), once), Lapsed)
            assert isinstance(await send(sender, mail("next@example.org", body)), Accepted)
        await sender.close()
        await server.stop()
        assert [m.recipients for m in server.mails] == [("next@example.org",)] * 2

    run(story())
