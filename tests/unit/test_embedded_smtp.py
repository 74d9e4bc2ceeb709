"""The mail sink's side of an SMTP dialogue, without a network: its replies, however the input is split."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.mail_rules import Rules, parse_rules
from embedded.mail_store import MailStore, read_mails
from embedded.smtp_sink import Sink, SmtpServerSession

GREETING = b"220 bidden.localhost ESMTP mail sink\r\n"
BODY = b"Subject: Hi\r\n\r\n..dots\r\n...\r\nend\r\n.\r\n"
DATA = b"Subject: Hi\r\n\r\n.dots\r\n..\r\nend\r\n"


class Wire(asyncio.Transport):
    """What the session writes, and whether it closed."""

    def __init__(self) -> None:
        super().__init__()
        self.output = b""
        self.closed = self.aborted = False
        self.written = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self.closed
        if b"Ok" in data:
            self.written.set()
        self.output += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed


class Client:
    """A client of one session."""

    def __init__(self, folder: Path, rules: str = "[]", **more: Any) -> None:
        self.folder = folder
        self.sink = Sink(MailStore(folder), Rules(rules=parse_rules(rules)), **more)
        self.session, self.wire = SmtpServerSession(self.sink), Wire()
        self.session.connection_made(self.wire)

    def send(self, data: bytes) -> list[int]:
        """Sends bytes; returns the codes of the replies, one for a multi-line reply."""
        before = len(self.wire.output)
        self.session.data_received(data)
        lines = self.wire.output[before:].splitlines()
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    def stored(self) -> list[bytes]:
        """The stored mails."""
        return [mail.data for mail in read_mails(self.folder)]


def test_one_command_at_a_time(tmp_path: Path) -> None:
    """The plain dialogue, up to a stored mail without dot stuffing."""
    client = Client(tmp_path)
    assert client.wire.output == GREETING
    assert client.send(b"EHLO me\r\n") == [250]
    for offer in (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"SIZE 50000000"):
        assert offer in client.wire.output
    assert client.send(b"MAIL FROM:<a@example.org> BODY=8BITMIME SIZE=100\r\n") == [250]
    assert client.send(b"RCPT TO:<b@example.org>\r\n") == [250]
    assert client.send(b"RCPT TO:<c@example.org>\r\n") == [250]
    assert client.send(b"DATA\r\n") == [354]
    assert client.send(BODY) == [250]
    assert client.send(b"QUIT\r\n") == [221]
    assert client.wire.closed
    [mail] = read_mails(tmp_path)
    assert (mail.sender, mail.recipients, mail.data) == ("a@example.org", ("b@example.org", "c@example.org"), DATA)


WHOLE = b"EHLO me\r\n" + (b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n" + BODY) * 2 + b"NOOP\r\nQUIT\r\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12).map(sorted))
def test_input_may_be_split_anywhere(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    """Pipelined commands and mails, split anywhere, give the same replies and the same mails."""
    client = Client(tmp_path_factory.mktemp("mails"))
    codes: list[int] = []
    for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True):
        codes += client.send(WHOLE[start:end])
    assert codes == [250, *[250, 250, 354, 250] * 2, 250, 221]
    assert client.stored() == [DATA, DATA]


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        (b"RCPT TO:<a@b.c>\r\n", [503]),
        (b"DATA\r\n", [503]),
        (b"MAIL FROM:<a@b.c>\r\nDATA\r\n", [250, 554]),
        (b"MAIL FROM:<a@b.c>\r\nMAIL FROM:<a@b.c>\r\n", [250, 503]),
        (b"MAIL FROM:a@b.c\r\n", [501]),
        (b"MAIL FROM:<a@b.c> SIZE=99999999999\r\n", [552]),
        (b"MAIL FROM:<a@b.c> MAGIC=1\r\n", [555]),
        (b"MAIL FROM:<a@b.c>\r\nRCPT TO:b@b.c\r\nRCPT TO:<b@b.c> NOTIFY=NEVER\r\n", [250, 501, 555]),
        (b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n", [250, 250, 250]),
        (b"mail from:<a@b.c>\r\nrcpt to:<a@b.c>\r\n", [250, 250]),
        ("MAIL FROM:<ü@b.c>\r\n".encode(), [553]),
        ("MAIL FROM:<ü@b.c> SMTPUTF8\r\nRCPT TO:<ä@b.c>\r\n".encode(), [250, 250]),
        (b"MAIL FROM:<\xff@b.c> SMTPUTF8\r\n", [501]),
        (b"VRFY a\r\nNOOP\r\nDANCE\r\nDATAX\r\nSTARTTLS\r\nAUTH PLAIN\r\n", [252, 250, 500, 500, 502, 503]),
        (b"x" * 5000, [421]),
    ],
)
def test_refused_commands(tmp_path: Path, commands: bytes, codes: list[int]) -> None:
    """Commands that are out of order, malformed, unknown or not offered get their codes."""
    client = Client(tmp_path)
    client.send(b"EHLO me\r\n")
    assert client.send(commands) == codes
    assert client.stored() == []


ENVELOPE = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b".\r\n", 250),
        (b"\r\n.\r\n", 250),
        (b"bare\nLF\r\n.\r\n", 550),
        (b"bare\rCR\r\n.\r\n", 550),
        (b"\n.\n\r\n.\r\n", 550),
        ("ü\r\n.\r\n".encode(), 554),
        (b"x" * 2000 + b"\r\n.\r\n", 552),
    ],
)
def test_refused_mails(tmp_path: Path, body: bytes, code: int) -> None:
    """Bare line ends, undeclared eight-bit text and a mail over the limit are refused, and the session continues."""
    client = Client(tmp_path, max_size=1000)
    client.send(b"EHLO me\r\n")
    assert client.send(ENVELOPE) == [250, 250, 354]
    codes = [c for i in range(0, len(body), 7) for c in client.send(body[i : i + 7])]
    assert codes == [code]
    assert client.stored() == ([body[:-3]] if code == 250 else [])
    assert client.send(ENVELOPE + BODY) == [250, 250, 354, 250]


@pytest.mark.parametrize(
    ("rule", "codes", "stored", "aborted"),
    [
        ('{"do": "refuse_recipient", "recipient": "d@*"}', [250, 550, 554], 0, False),
        ('{"do": "refuse_recipient", "reply": "421 4.3.2 Bye"}', [250, 421], 0, False),
        ('{"do": "refuse_data"}', [250, 250, 451], 0, False),
        ('{"do": "refuse_mail", "reply": "451 4.3.0 No"}', [250, 250, 354, 451], 0, False),
        ('{"do": "drop_before_data"}', [], 0, True),
        ('{"do": "drop_in_data"}', [250, 250, 354], 0, True),
        ('{"do": "drop_after_store"}', [250, 250, 354], 1, True),
    ],
)
def test_rules(tmp_path: Path, rule: str, codes: list[int], stored: int, aborted: bool) -> None:
    """Each rule has its effect, on its recipients, and a mail is stored only when the rule allows it."""
    client = Client(tmp_path, f"[{rule}]")
    client.send(b"EHLO me\r\n")
    replies = client.send(ENVELOPE)
    if replies[-1:] == [354]:
        replies += client.send(BODY)
    assert replies == codes
    assert len(client.stored()) == stored
    assert client.wire.aborted == aborted


def test_refused_connection(tmp_path: Path) -> None:
    """The greeting is the refusal, and further input is ignored."""
    client = Client(tmp_path, '[{"do": "refuse_connection", "times": 1}]')
    assert client.wire.output == b"421 4.3.2 Closing\r\n"
    assert client.wire.closed
    assert client.send(b"EHLO me\r\n") == []


@pytest.mark.parametrize("rule", ['{"do": "delay", "seconds": 0.01}', '{"do": "hold"}'])
def test_a_delayed_reply_delays_later_replies(tmp_path: Path, rule: str) -> None:
    """The mail is stored at once; its reply and those to later commands wait: for a time, or until the rule is gone."""

    async def run() -> None:
        client = Client(tmp_path, f"[{rule}]")
        client.send(b"EHLO me\r\n")
        client.send(ENVELOPE)
        assert client.send(BODY + b"NOOP\r\n") == []
        assert client.stored() == [DATA]
        before = len(client.wire.output)
        client.wire.written.clear()
        client.sink.rules.rules.clear()
        async with asyncio.timeout(5):
            await client.wire.written.wait()
        assert client.wire.output[before:] == b"250 2.0.0 Kept as 1\r\n250 2.0.0 Ok\r\n"

    asyncio.run(run())


def test_full_disk(tmp_path: Path) -> None:
    """A mail that cannot be stored is refused temporarily, and never acknowledged."""
    client = Client(tmp_path)
    client.send(b"EHLO me\r\n" + ENVELOPE)
    client.sink.store.close()
    assert client.send(BODY) == [452]


def encoded(text: str) -> bytes:
    """In base64, as AUTH needs it."""
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ([b"AUTH PLAIN " + encoded("\0ann\0secret")], [235]),
        ([b"AUTH PLAIN", encoded("ann\0ann\0secret")], [334, 235]),
        ([b"AUTH LOGIN", encoded("ann"), encoded("secret")], [334, 334, 235]),
        ([b"AUTH LOGIN " + encoded("ann"), encoded("wrong")], [334, 535]),
        ([b"AUTH PLAIN " + encoded("\0ann\0wrong")], [535]),
        ([b"AUTH PLAIN !!!"], [501]),
        ([b"AUTH LOGIN", b"*"], [334, 501]),
        ([b"AUTH CRAM-MD5"], [504]),
    ],
)
def test_auth(tmp_path: Path, lines: list[bytes], codes: list[int]) -> None:
    """PLAIN and LOGIN in all their forms; without success no mail is accepted."""
    client = Client(tmp_path, credentials=("ann", "secret"))
    client.send(b"EHLO me\r\n")
    assert b"AUTH PLAIN LOGIN" in client.wire.output
    assert client.send(b"MAIL FROM:<a@b.c>\r\n") == [530]
    assert [code for line in lines for code in client.send(line + b"\r\n")] == codes
    assert client.send(b"MAIL FROM:<a@b.c>\r\n") == [250 if codes[-1] == 235 else 530]
