"""Whom a mail server's refusal is about: this recipient or message, or the sender, the session or the server. Pure.

One table, read from its top; the first row that matches decides. The step that was refused decides first, then the
code and the enhanced code (RFC 3463); the words only where a server gives nothing else. What nobody but the recipient
can have caused uses an attempt; what cannot be theirs uses nobody's. What might be either is `Undecided`: it ends by
time, and `streams.refused_by_all` notices when nothing else gets through.

Replies to the greeting, EHLO, STARTTLS and AUTH are no part of it: without a session no mail is refused (`NotSent`).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from mail.smtp.replies import Reply
from schemas.send_results import NotSent, Refused, SendResult, Throttled, Undecided


class Step(Enum):
    """What the reply answers. With PIPELINING it is the reply that is awaited, whatever else has been written."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "body"


class About(Enum):
    """Whom it is about. What follows stands in docs/reference/mail-server-replies.md."""

    RECIPIENT = "the recipient"
    UNDECIDED = "undecided"
    DOMAIN = "the recipient's domain"
    EVERYBODY = "everybody"


class Row(NamedTuple):
    """A line of the table. `codes` and `enhanced` (subject.detail, or "-" for none) are patterns for the whole."""

    steps: str
    codes: str
    enhanced: str
    about: About
    meaning: str
    words: str = ""


_ANY: Final = ".*"
_TEMPORARY: Final = "4.."
_PERMANENT: Final = "5.."
#: What servers write at RCPT about a client, a sender or a greeting that they refused before.
_ABOUT_US: Final = (
    r"(client host|helo command|sender address) rejected|\brelay(ing)?\b|not authori[sz]ed|authenticat|not verified"
    r"|sending paused|black ?list|block ?list|spamhaus|reputation|\bspf\b|\bdkim\b|\bdmarc\b"
)
_FULL: Final = r"insufficient (system )?(storage|disk|memory|resources)"
_TOO_FAST: Final = r"too (many|much|fast)|\brate\b|throttl|slow down|sending (quota|limit)"

TABLE: Final = (
    Row("MAIL", "421", _ANY, About.EVERYBODY, "the server ends a session in which no mail was begun"),
    Row("RCPT DATA body", "421", _ANY, About.UNDECIDED, "the server ends the session in the midst of a mail"),
    Row("MAIL RCPT DATA body", _ANY, r"4\.5", About.EVERYBODY, "quota used up, or congestion"),
    Row("MAIL RCPT DATA body", "454", _ANY, About.EVERYBODY, "throttling"),
    Row("MAIL RCPT DATA body", "503|53[0458]", _ANY, About.EVERYBODY, "the session: out of order, or no log-in"),
    Row("MAIL RCPT DATA body", "555", _ANY, About.RECIPIENT, "a parameter that this mail needs"),
    Row("MAIL RCPT DATA body", _ANY, r"6\..*|3\.4", About.RECIPIENT, "the message's size or characters"),
    Row("MAIL", _ANY, _ANY, About.EVERYBODY, "the sender, who is the same for all"),
    Row("RCPT DATA body", _ANY, r"1\.[78]|7\.27", About.EVERYBODY, "the sender's address"),
    Row("RCPT DATA body", _ANY, r"3\..*", About.EVERYBODY, "the server's system: disk, load, configuration"),
    Row("RCPT body", _TEMPORARY, "-", About.EVERYBODY, "the same, by certain words alone", _FULL),
    Row("RCPT DATA body", _TEMPORARY, r"7\.(28|38|[5-9]\d\d)", About.DOMAIN, "the recipient's provider slows us down"),
    Row("RCPT DATA body", _TEMPORARY, r"7\..*", About.DOMAIN, "the same, by certain words", _TOO_FAST),
    Row("RCPT DATA body", _ANY, r"7\.1[378]", About.RECIPIENT, "account disabled, or with a new owner"),
    Row("RCPT DATA body", _ANY, r"7\..*|-", About.UNDECIDED, "our host, name, sender or right to relay", _ABOUT_US),
    Row("RCPT", "45[01]", r"7\.1", About.RECIPIENT, "greylisting"),
    Row("RCPT DATA body", _ANY, r"7\..*", About.UNDECIDED, "policy: of this recipient, or against us"),
    Row("DATA", _ANY, r"[12]\..*", About.RECIPIENT, "the recipient's address or mailbox, said late"),
    Row("DATA", _ANY, _ANY, About.EVERYBODY, "the server will not take the data now"),
    Row("RCPT body", "5[0-4].", r"5\..*", About.UNDECIDED, "protocol: our commands, or this address in them"),
    Row("RCPT body", _TEMPORARY, r"5\..*", About.UNDECIDED, "protocol: our commands, or this address in them"),
    Row("RCPT", "50[024]", "-", About.UNDECIDED, "a command that the server does not know or allow"),
    Row("RCPT body", _ANY, "-", About.UNDECIDED, "our quota or rate, by certain words alone", _TOO_FAST),
    Row("body", _TEMPORARY, r"4\..*|-", About.UNDECIDED, "the server's trouble with this mail, or with all"),
    Row("RCPT body", _TEMPORARY, _ANY, About.RECIPIENT, "the recipient's mailbox or route; greylisting"),
    Row("RCPT body", _PERMANENT, _ANY, About.RECIPIENT, "no such recipient, mailbox full, content refused"),
)

_ENHANCED: Final = re.compile(r"[245]\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_COMPILED: Final = tuple(
    (row, frozenset(row.steps.split()), re.compile(row.codes), re.compile(row.enhanced), re.compile(row.words, re.I))
    for row in TABLE
)


def row_of(step: Step, reply: Reply) -> Row:
    """The row that decides about a reply of 4xx or 5xx."""
    code, enhanced = str(reply.code), _enhanced(reply.text)
    for row, steps, codes, details, words in _COMPILED:
        if step.value in steps and codes.fullmatch(code) and details.fullmatch(enhanced) and words.search(reply.text):
            return row
    raise AssertionError(f"no row for {reply}")


def judge(step: Step, reply: Reply, recipient: str) -> SendResult:
    """What a reply other than the one hoped for means, given that nothing was accepted."""
    if not 400 <= reply.code < 600:
        return NotSent(f"the mail server answered out of turn: {reply}")
    permanent = reply.code >= 500
    match row_of(step, reply).about:
        case About.RECIPIENT:
            return Refused(str(reply), permanent)
        case About.UNDECIDED:
            return Undecided(str(reply), permanent)
        case About.DOMAIN:
            return Throttled(str(reply), recipient.rpartition("@")[2].lower() or None)
        case About.EVERYBODY:
            return Throttled(str(reply))


def _enhanced(text: str) -> str:
    """Subject and detail of the enhanced code; "-" without one, or with one that says nothing (x.0.0)."""
    found = _ENHANCED.match(text)
    return "-" if found is None or found[1] == "0" else f"{int(found[1])}.{int(found[2])}"
