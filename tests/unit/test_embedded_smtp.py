"""The sink's SMTP conversation, without a network: what is answered to what, however the bytes are cut."""

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
from embedded.smtp_sink import Session, Sink

GREETING = b"220 bidden.localhost ESMTP mail sink\r\n"
BODY = b"Subject: Hi\r\n\r\n..dots\r\n...\r\nend\r\n.\r\n"
DATA = b"Subject: Hi\r\n\r\n.dots\r\n..\r\nend\r\n"


class Wire(asyncio.Transport):
    """What the session says, and whether it hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.closed = self.aborted = False
        self.written = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self.closed
        if b"Ok" in data:
            self.written.set()
        self.said += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed


class Talk:
    """A client that says one thing after the other."""

    def __init__(self, folder: Path, rules: str = "[]", **more: Any) -> None:
        self.folder = folder
        self.sink = Sink(MailStore(folder), Rules(rules=parse_rules(rules)), **more)
        self.session, self.wire = Session(self.sink), Wire()
        self.session.connection_made(self.wire)

    def say(self, data: bytes) -> list[int]:
        """The codes of the answers, a multi-line answer counted once."""
        before = len(self.wire.said)
        self.session.data_received(data)
        answers = self.wire.said[before:].splitlines()
        return [int(line[:3]) for line in answers if line[3:4] == b" "]

    def kept(self) -> list[bytes]:
        """The mails that were kept."""
        return [mail.data for mail in read_mails(self.folder)]


def test_one_command_at_a_time(tmp_path: Path) -> None:
    """The plain conversation, to a kept mail without the dot stuffing."""
    talk = Talk(tmp_path)
    assert talk.wire.said == GREETING
    assert talk.say(b"EHLO me\r\n") == [250]
    for offer in (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"SIZE 50000000"):
        assert offer in talk.wire.said
    assert talk.say(b"MAIL FROM:<a@example.org> BODY=8BITMIME SIZE=100\r\n") == [250]
    assert talk.say(b"RCPT TO:<b@example.org>\r\n") == [250]
    assert talk.say(b"RCPT TO:<c@example.org>\r\n") == [250]
    assert talk.say(b"DATA\r\n") == [354]
    assert talk.say(BODY) == [250]
    assert talk.say(b"QUIT\r\n") == [221]
    assert talk.wire.closed
    [mail] = read_mails(tmp_path)
    assert (mail.sender, mail.recipients, mail.data) == ("a@example.org", ("b@example.org", "c@example.org"), DATA)


WHOLE = b"EHLO me\r\n" + (b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n" + BODY) * 2 + b"NOOP\r\nQUIT\r\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12).map(sorted))
def test_however_the_bytes_are_cut(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    """Pipelined commands and mails, cut anywhere, give the same answers and the same mails."""
    talk = Talk(tmp_path_factory.mktemp("mails"))
    codes: list[int] = []
    for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True):
        codes += talk.say(WHOLE[start:end])
    assert codes == [250, *[250, 250, 354, 250] * 2, 250, 221]
    assert talk.kept() == [DATA, DATA]


@pytest.mark.parametrize(
    ("said", "codes"),
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
def test_what_is_refused(tmp_path: Path, said: bytes, codes: list[int]) -> None:
    """Commands out of order, malformed, unknown or beyond what was offered get their codes."""
    talk = Talk(tmp_path)
    talk.say(b"EHLO me\r\n")
    assert talk.say(said) == codes
    assert talk.kept() == []


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
def test_what_is_no_mail(tmp_path: Path, body: bytes, code: int) -> None:
    """Bare line ends, undeclared eight-bit text and a mail over the limit are refused, and the session goes on."""
    talk = Talk(tmp_path, max_size=1000)
    talk.say(b"EHLO me\r\n")
    assert talk.say(ENVELOPE) == [250, 250, 354]
    codes = [c for i in range(0, len(body), 7) for c in talk.say(body[i : i + 7])]
    assert codes == [code]
    assert talk.kept() == ([body[:-3]] if code == 250 else [])
    assert talk.say(ENVELOPE + BODY) == [250, 250, 354, 250]


@pytest.mark.parametrize(
    ("rule", "codes", "kept", "aborted"),
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
def test_rules(tmp_path: Path, rule: str, codes: list[int], kept: int, aborted: bool) -> None:
    """Each rule does what it says, to whom it says, and keeps a mail only when it says so."""
    talk = Talk(tmp_path, f"[{rule}]")
    talk.say(b"EHLO me\r\n")
    said = talk.say(ENVELOPE)
    if said[-1:] == [354]:
        said += talk.say(BODY)
    assert said == codes
    assert len(talk.kept()) == kept
    assert talk.wire.aborted == aborted


def test_refused_connection(tmp_path: Path) -> None:
    """The greeting is the refusal, and nothing is listened to afterwards."""
    talk = Talk(tmp_path, '[{"do": "refuse_connection", "times": 1}]')
    assert talk.wire.said == b"421 4.3.2 Closing\r\n"
    assert talk.wire.closed
    assert talk.say(b"EHLO me\r\n") == []


def test_a_delayed_reply_holds_what_follows(tmp_path: Path) -> None:
    """The mail is kept at once; its reply and everything pipelined after it wait."""

    async def run() -> None:
        talk = Talk(tmp_path, '[{"do": "delay", "seconds": 0.01}]')
        talk.say(b"EHLO me\r\n")
        talk.say(ENVELOPE)
        assert talk.say(BODY + b"NOOP\r\n") == []
        assert talk.kept() == [DATA]
        before = len(talk.wire.said)
        talk.wire.written.clear()
        async with asyncio.timeout(5):
            await talk.wire.written.wait()
        assert talk.wire.said[before:] == b"250 2.0.0 Kept as 1\r\n250 2.0.0 Ok\r\n"

    asyncio.run(run())


def test_no_room(tmp_path: Path) -> None:
    """A mail that cannot be stored is refused for now, and never acknowledged."""
    talk = Talk(tmp_path)
    talk.say(b"EHLO me\r\n" + ENVELOPE)
    talk.sink.store.close()
    assert talk.say(BODY) == [452]


def encoded(text: str) -> bytes:
    """As AUTH wants it."""
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
    """PLAIN and LOGIN in all their forms; without success no mail is taken."""
    talk = Talk(tmp_path, credentials=("ann", "secret"))
    talk.say(b"EHLO me\r\n")
    assert b"AUTH PLAIN LOGIN" in talk.wire.said
    assert talk.say(b"MAIL FROM:<a@b.c>\r\n") == [530]
    assert [code for line in lines for code in talk.say(line + b"\r\n")] == codes
    assert talk.say(b"MAIL FROM:<a@b.c>\r\n") == [250 if codes[-1] == 235 else 530]
