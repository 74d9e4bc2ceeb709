"""The mail sink as a process: real clients, real sockets, real kills."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from embedded import ports
from embedded.mail_server import MailServer
from embedded.process import wait_until
from schemas.errors import InputError

MAIL = "X-Bidden-Delivery: 1/invite/{}/Student\r\nSubject: Hello\r\n\r\nDear you,\r\n.hidden dot\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as `Home` creates it."""
    for name in ("logs", "run"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def sink(home: Path) -> Iterator[MailServer]:
    """A running sink."""
    server = MailServer(home, ports.choose({"smtp": None}, {})["smtp"])
    server.start()
    yield server
    server.stop()


@contextmanager
def client(sink: MailServer) -> Iterator[smtplib.SMTP]:
    """A connection of Python's own client, closed without QUIT."""
    smtp = smtplib.SMTP("127.0.0.1", sink.port, timeout=10)
    try:
        yield smtp
    finally:
        smtp.close()


def send(sink: MailServer, number: int, to: str = "b@example.org") -> None:
    """One mail over a connection of its own."""
    with client(sink) as smtp:
        smtp.sendmail("a@example.org", [to], MAIL.format(number))


def test_a_mail_is_stored(sink: MailServer) -> None:
    """What Python's client sends is read back, envelope and content."""
    send(sink, 1)
    [mail] = sink.mails()
    assert (mail.sender, mail.recipients, mail.data.decode()) == ("a@example.org", ("b@example.org",), MAIL.format(1))
    assert (sink.count(), sink.delivery_keys()) == (1, ["1/invite/1/Student"])


def test_utf8_addresses_and_eight_bit_text(sink: MailServer) -> None:
    """SMTPUTF8 and 8BITMIME work with a client that supports them."""
    with client(sink) as smtp:
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        smtp.sendmail("grüße@example.org", ["größe@example.org"], "Subject: ü\r\n\r\nü\r\n".encode(), options)
    [mail] = sink.mails()
    assert mail.recipients == ("größe@example.org",)
    assert "ü" in mail.data.decode()


def test_pipelined_in_one_write(sink: MailServer) -> None:
    """MAIL, RCPT and DATA in one segment get three replies; the next envelope may come with the body."""
    with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as connection:
        stream = connection.makefile("rb")
        stream.readline()
        connection.sendall(b"EHLO me\r\n")
        while stream.readline()[3:4] == b"-":
            pass
        envelope = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"
        connection.sendall(envelope)
        assert [stream.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        connection.sendall(MAIL.format(1).encode() + b".\r\n" + envelope)
        assert [stream.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        connection.sendall(MAIL.format(2).encode() + b".\r\nQUIT\r\n")
        assert [stream.readline()[:3] for _ in range(2)] == [b"250", b"221"]
        assert stream.readline() == b""
        stream.close()
    assert sink.count() == 2


def test_accepted_mails_survive_a_kill(sink: MailServer) -> None:
    """After a SIGKILL under load, every mail that got the reply 250 is in the file, once."""
    accepted: list[int] = []
    for round_ in range(3):
        with client(sink) as smtp:
            for number in range(50):
                smtp.sendmail("a@example.org", ["b@example.org"], MAIL.format(round_ * 100 + number))
                accepted.append(round_ * 100 + number)
            sink.kill()
            with pytest.raises((smtplib.SMTPException, OSError)):
                smtp.sendmail("a@example.org", ["b@example.org"], MAIL.format(-1))
        assert not sink.running
        assert sink.delivery_keys() == [f"1/invite/{number}/Student" for number in accepted]
        sink.start()
    send(sink, 999)
    assert sink.count() == len(accepted) + 1


def test_rules_apply_from_the_next_mail_on(sink: MailServer) -> None:
    """Rules are set and cleared while the sink runs; invalid ones are refused before they are written."""
    sink.set_rules([{"do": "refuse_recipient", "recipient": "gone@*"}, {"do": "refuse_mail", "times": 1}])
    with client(sink) as smtp:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("a@example.org", ["gone@example.org"], MAIL)
        with pytest.raises(smtplib.SMTPDataError):
            smtp.sendmail("a@example.org", ["b@example.org"], MAIL)
        smtp.sendmail("a@example.org", ["b@example.org"], MAIL)
        with pytest.raises(InputError):
            sink.set_rules([{"do": "nothing"}])
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            smtp.sendmail("a@example.org", ["gone@example.org"], MAIL)
        sink.clear_rules()
        smtp.sendmail("a@example.org", ["gone@example.org"], MAIL)
    assert sink.count() == 2


def test_dropped_after_the_mail_was_stored(sink: MailServer) -> None:
    """The ambiguous case: the mail is stored, the reply never arrives."""
    sink.set_rules([{"do": "drop_after_store", "recipient": "b@*"}])
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        send(sink, 1)
    assert sink.delivery_keys() == ["1/invite/1/Student"]


def test_every_connection_refused(sink: MailServer) -> None:
    """421 as the greeting; a restart of the sink does not consume the rule."""
    sink.set_rules([{"do": "refuse_connection", "times": 1}])
    sink.restart()
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        send(sink, 1)
    assert caught.value.smtp_code == 421
    send(sink, 2)


def test_starttls_and_auth(home: Path) -> None:
    """With a certificate and credentials the sink offers both, and accepts mails only after AUTH."""
    authority, port = trustme.CA(), ports.choose({"smtp": None}, {})["smtp"]
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(home / "cert.pem")
    certificate.private_key_pem.write_to_path(home / "key.pem")
    arguments = ["--port", str(port), "--folder", str(home / "mail"), "--ready-file", str(home / "ready")]
    arguments += ["--tls-cert", str(home / "cert.pem"), "--tls-key", str(home / "key.pem"), "--auth", "ann:secret"]
    process = subprocess.Popen([sys.executable, "-P", "-m", "embedded.mail_sink", *arguments])
    try:
        assert wait_until((home / "ready").exists, 10)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with smtplib.SMTP("localhost", port, timeout=10) as smtp:
            smtp.starttls(context=context)
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.sendmail("a@example.org", ["b@example.org"], MAIL)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                smtp.login("ann", "wrong")
            smtp.login("ann", "secret")
            smtp.sendmail("a@example.org", ["b@example.org"], MAIL)
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_a_taken_port_is_reported(home: Path) -> None:
    """The error of the sink reaches the person who started it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "embedded.mail_sink", "--port", str(port), "--folder", str(home)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 3
    assert "address already in use" in ended.stderr


def test_a_rate_limit_admits_a_second_of_mails(sink: MailServer) -> None:
    """With `per_second` only what comes faster is refused, at MAIL and as the rule says."""
    sink.set_rules([{"do": "refuse_sender", "reply": "454 4.7.0 Throttling", "per_second": 5}])
    with client(sink) as smtp:
        smtp.ehlo()
        codes = []
        for number in range(30):
            codes.append(smtp.mail("a@example.org")[0])
            if codes[-1] == 250:
                smtp.rcpt("b@example.org")
                smtp.data(MAIL.format(number))
    assert codes[:5] == [250] * 5
    assert codes.count(454) >= 10, codes
    assert sink.count() == codes.count(250)


def test_a_rate_limit_that_closes(sink: MailServer) -> None:
    """421 to MAIL ends the connection."""
    sink.set_rules([{"do": "refuse_sender", "reply": "421 4.7.0 Slow down", "times": 1}])
    with client(sink) as smtp:
        smtp.ehlo()
        assert smtp.mail("a@example.org")[0] == 421
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.noop()
    send(sink, 1)
    assert sink.count() == 1
