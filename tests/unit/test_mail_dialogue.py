"""The SMTP dialogue as a state machine: what any sequence of replies may and may not lead to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.smtp.dialogue import Dialogue, DialogueEnd, Extensions, Stage, stuffed
from mail.smtp.replies import NotSmtpError, Reply, ReplyParser
from schemas.envelope import Envelope
from schemas.send_results import Accepted, Ambiguous, Refused, Throttled

BODY = b"Subject: x\r\n\r\nhello\r\n"
ENVELOPE = Envelope("club@example.org", "ada@example.org", BODY)

codes = st.sampled_from([211, 220, 250, 251, 252, 334, 354, 421, 450, 451, 452, 500, 503, 530, 535, 550, 554])
replies = st.lists(st.tuples(codes, st.booleans(), st.booleans()), max_size=12)
# Mostly well-behaved, so that the later stages are reached.
likely = st.tuples(
    st.sampled_from([250, 250, 250, 450, 550, 421]),
    st.sampled_from([250, 250, 251, 451, 550, 421]),
    st.sampled_from([354, 354, 354, 250, 451, 503]),
    codes,
    codes,
).map(lambda found: [(code, False, False) for code in found])


@settings(max_examples=1000)
@given(replies | likely, st.booleans())
def test_whatever_the_server_says(said: list[tuple[int, bool, bool]], pipelining: bool) -> None:
    """FM-11, FM-12: the body goes out once at most, after consent to all; only its own 2xx is acceptance.

    A loss is Ambiguous exactly while the body is out without a verdict, and never after a refusal. FM-37: a session
    takes the next mail only after a mail that was accepted, or after a reset.
    """
    dialogue = Dialogue(Extensions(pipelining=pipelining))
    written = dialogue.begin(ENVELOPE)
    assert isinstance(written, bytes)
    consents: list[int] = []
    bodies = 0
    resets = 0
    for code, more, unsent in said:
        reply = Reply(code, "words")
        step = dialogue.receive(reply, more=more, unsent=unsent)
        if isinstance(step, DialogueEnd):
            outcome = step.result
            if isinstance(outcome, Accepted):
                assert bodies == 1
                assert 200 <= code < 300
                assert not unsent
                assert outcome.reply == f"{code} words"
            if isinstance(outcome, Ambiguous):
                assert bodies == 1
                assert code < 400
            if isinstance(outcome, Refused):
                assert outcome.permanent == outcome.reply.startswith("5")
            if code == 421:
                assert not step.usable
                assert not isinstance(outcome, Accepted | Ambiguous)
            if step.usable:
                assert not more
                assert 200 <= code < 300
                assert isinstance(outcome, Accepted) or written in (b"RSET\r\n", b".\r\n")
                assert dialogue.stage is Stage.IDLE
                assert isinstance(dialogue.begin(ENVELOPE), bytes)
            return
        if step == stuffed(BODY):
            bodies += 1
            assert code == 354
            assert not more
            assert len(consents) == 2
            assert all(200 <= each < 300 for each in consents)
        elif step == b".\r\n":
            assert code == 354
            assert bodies == 0
        elif step == b"RSET\r\n":
            resets += 1
            assert code >= 400
        written = step or written
        consents.append(code)
        lost = dialogue.lost("gone")
        assert isinstance(lost, Ambiguous) == (bodies == 1 and not resets)
        assert not isinstance(lost, Accepted)


def test_address_beyond_ascii_is_noticed_anyway() -> None:
    """SMTPUTF8 is needed whenever an address is beyond ASCII, whether the envelope says so or not."""
    envelope = Envelope("club@example.org", "é@example.org", BODY)
    assert isinstance(Dialogue(Extensions()).begin(envelope), Refused)
    assert Dialogue(Extensions(smtputf8=True)).begin(envelope) == b"MAIL FROM:<club@example.org> SMTPUTF8\r\n"
    surrogate = Envelope("club@example.org", "\ud800@example.org", BODY)
    assert isinstance(Dialogue(Extensions(smtputf8=True)).begin(surrogate), Refused)


def test_a_domain_beyond_ascii_without_smtputf8() -> None:
    """A server without SMTPUTF8 is given the domain's A-label; one with it the address as the member wrote it."""
    data = "To: <anna@bücher.example>\r\n\r\nhello\r\n".encode()
    envelope = Envelope("club@example.org", "anna@bücher.example", data, needs_utf8=True)
    dialogue = Dialogue(Extensions())
    assert dialogue.begin(envelope) == b"MAIL FROM:<club@example.org>\r\n"
    assert dialogue.receive(Reply(250, "ok")) == b"RCPT TO:<anna@xn--bcher-kva.example>\r\n"
    assert dialogue.receive(Reply(250, "ok")) == b"DATA\r\n"
    assert dialogue.receive(Reply(354, "go")) == b"To: <anna@xn--bcher-kva.example>\r\n\r\nhello\r\n.\r\n"
    other = Dialogue(Extensions(smtputf8=True))
    assert other.begin(envelope) == b"MAIL FROM:<club@example.org> SMTPUTF8\r\n"
    assert other.receive(Reply(250, "ok")) == "RCPT TO:<anna@bücher.example>\r\n".encode()


def test_verdict_before_the_mail_has_left() -> None:
    """FM-12: consent while some of the body is still here cannot be about it; a refusal stands, and ends it."""
    for code, expected in ((250, Ambiguous), (552, Refused)):
        dialogue = Dialogue(Extensions())
        dialogue.begin(ENVELOPE)
        for consent in (250, 250, 354):
            dialogue.receive(Reply(consent, "ok"))
        step = dialogue.receive(Reply(code, "early"), unsent=True)
        assert isinstance(step, DialogueEnd)
        assert isinstance(step.result, expected)
        assert not step.usable


def test_our_log_in_is_nobodys_failure() -> None:
    """FM-37: a server that wants a log-in refuses everybody: no member's attempts are used up, the session ends."""
    for code in (530, 534, 535, 538):
        dialogue = Dialogue(Extensions())
        dialogue.begin(ENVELOPE)
        step = dialogue.receive(Reply(code, "log in"))
        assert isinstance(step, DialogueEnd)
        assert isinstance(step.result, Throttled)
        assert not step.usable


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.b\r\n..\r\n", b"a\r\n..b\r\n...\r\n.\r\n"),
        (b"", b"\r\n.\r\n"),
    ],
)
def test_dot_stuffing(data: bytes, expected: bytes) -> None:
    """Leading dots are doubled, and the end is on a line of its own."""
    assert stuffed(data) == expected


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"\r\n") + b"\r\n"))
def test_stuffed_data_ends_once(data: bytes) -> None:
    """Whatever the data, the end-of-data sequence is at the end alone, and unstuffing gives the data again."""
    wire = stuffed(data)
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    lines = wire[:-3].split(b"\r\n")
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == data


lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
many = st.lists(st.tuples(st.integers(200, 599), st.lists(lines, min_size=1, max_size=4)), max_size=6)


@given(many, st.data())
def test_replies_in_any_pieces(said: list[tuple[int, list[str]]], data: st.DataObject) -> None:
    """Replies are the same however the network cuts them."""
    wire = b"".join(
        f"{code}{' ' if i == len(texts) - 1 else '-'}{text}\r\n".encode()
        for code, texts in said
        for i, text in enumerate(texts)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    parser = ReplyParser()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found += parser.feed(wire[start:end])
    assert found == [(code, "\n".join(texts)) for code, texts in said]
    assert not parser.in_mid_reply


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"199 low\r\n",
        b"600 high\r\n",
        b"\r\n",
        b"250-a\r\n550 b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"250" + b"x" * 70_000,
        b"250-x\r\n" * 70_000,
    ],
)
def test_what_is_no_reply(wire: bytes) -> None:
    """Nonsense is an error that shows its beginning, not a guess; and nothing grows without bound."""
    with pytest.raises(NotSmtpError):
        ReplyParser().feed(wire)


def test_reply_for_people_is_one_short_line() -> None:
    """What is stored and shown of a reply has no control characters and a bounded length."""
    (reply,) = ReplyParser().feed(b"250-2.0.0 a\x1b[31m\r\n250 " + b"b" * 1000 + b"\n")
    assert str(reply).startswith("250 2.0.0 a [31m bbb")
    assert len(str(reply)) == 500
    assert ReplyParser().feed(b"250\r\n") == [(250, "")]
