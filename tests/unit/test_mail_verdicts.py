"""Whom a mail server's reply is about: real providers' replies, and that every row of the table is reached by one."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mail.smtp.replies import Reply, ReplyParser
from mail.smtp.verdicts import TABLE, Step, judge, row_of
from schemas.send_results import NotSent, Refused, SendResult, Throttled, Undecided

MAIL, RCPT, DATA, BODY = Step
ADDRESS = "ada@Example.org"
TEMPORARY, PERMANENT, EVERYBODY, DOMAIN, UNDECIDED = "temporary", "permanent", "everybody", "domain", "undecided"

REPLIES: list[tuple[str, Step, str, str]] = [
    # Providers that limit the rate
    ("SES", MAIL, "454 4.7.0 Throttling failure: Maximum sending rate exceeded.", EVERYBODY),
    ("SES", RCPT, "454 Throttling failure: Maximum sending rate exceeded.", EVERYBODY),
    ("SES", DATA, "454 Throttling failure: Daily message quota exceeded.", EVERYBODY),
    ("SES", BODY, "454 Throttling failure: Maximum sending rate exceeded.", EVERYBODY),
    ("SES, a sandbox", BODY, "554 Message rejected: Email address is not verified. a@b.example", UNDECIDED),
    ("SES, address beyond ASCII", MAIL, "501 Invalid MAIL FROM address provided", EVERYBODY),
    ("SES, suspended", BODY, "554 Message rejected: Sending paused for this account.", UNDECIDED),
    ("Gmail", MAIL, "421-4.7.0 Try again later, closing connection. (MAIL)\n421 4.7.0 x - gsmtp", EVERYBODY),
    ("Gmail", MAIL, "550-5.4.5 Daily user sending limit exceeded.\n550 5.4.5 x - gsmtp", EVERYBODY),
    ("Gmail", BODY, "550 5.4.5 Daily SMTP relay sending limit exceeded for customer.", EVERYBODY),
    (
        "Gmail",
        RCPT,
        "450-4.2.1 The user you are trying to contact is receiving mail at a rate that\n450 4.2.1 x",
        TEMPORARY,
    ),
    ("Gmail", RCPT, "452-4.2.2 The email account that you tried to reach is over quota.\n452 4.2.2 x", TEMPORARY),
    ("Gmail", RCPT, "550-5.1.1 The email account that you tried to reach does not exist.\n550 5.1.1 x", PERMANENT),
    ("Gmail", RCPT, "550 5.2.1 The email account that you tried to reach is disabled.", PERMANENT),
    ("Gmail", RCPT, "552 5.2.2 The email account that you tried to reach is over quota", PERMANENT),
    ("Gmail", BODY, "421-4.7.0 unusual rate of unsolicited mail originating from your IP\n421 4.7.0 x", UNDECIDED),
    ("Gmail", BODY, "421-4.7.28 unusual rate of mail\n421 4.7.28 x", UNDECIDED),
    ("Gmail", BODY, "450-4.7.28 unusual rate of unsolicited mail\n450 4.7.28 x", DOMAIN),
    (
        "Gmail",
        BODY,
        "550-5.7.26 This mail has been blocked because the sender is unauthenticated.\n550 5.7.26 x",
        UNDECIDED,
    ),
    ("Gmail", BODY, "552-5.3.4 Your message exceeded Google's message size limits.\n552 5.3.4 x", PERMANENT),
    ("Gmail", MAIL, "530-5.7.0 Authentication Required.\n530 5.7.0 x - gsmtp", EVERYBODY),
    ("Outlook", RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", DOMAIN),
    ("Outlook", MAIL, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited", EVERYBODY),
    ("Outlook", RCPT, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited", DOMAIN),
    ("Outlook", MAIL, "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent.", EVERYBODY),
    ("Outlook", RCPT, "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent.", UNDECIDED),
    ("Outlook", RCPT, "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP.", UNDECIDED),
    ("Outlook", RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", PERMANENT),
    ("Exchange Online", RCPT, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", PERMANENT),
    ("Exchange", MAIL, "452 4.3.1 Insufficient system resources", EVERYBODY),
    ("Exchange", RCPT, "452 4.3.1 Insufficient system resources", EVERYBODY),
    ("Exchange", RCPT, "501 5.5.4 Invalid domain name", UNDECIDED),
    ("Exchange", RCPT, "550 5.7.1 Unable to relay", UNDECIDED),
    ("Exchange", BODY, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", UNDECIDED),
    ("Yahoo", MAIL, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", EVERYBODY),
    ("Yahoo", RCPT, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred", UNDECIDED),
    ("Yahoo", BODY, "554 delivery error: dd This user doesn't have a yahoo.com account", PERMANENT),
    # Servers that clubs run
    ("Postfix, postgrey", RCPT, "450 4.2.0 <a@b.example>: Recipient address rejected: Greylisted", TEMPORARY),
    ("milter-greylist", RCPT, "451 4.7.1 Greylisting in action, please come back in 00:05:00", TEMPORARY),
    ("Exim, greylisting", RCPT, "451 Temporary local problem - please try later", TEMPORARY),
    ("rspamd", BODY, "451 4.7.1 Try again later", UNDECIDED),
    ("Postfix", MAIL, "452 4.3.1 Insufficient system storage", EVERYBODY),
    ("Postfix", RCPT, "451 4.3.0 <a@b.example>: Temporary lookup failure", EVERYBODY),
    ("Postfix", BODY, "451 4.3.0 Error: queue file write error", EVERYBODY),
    ("Postfix", MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1", EVERYBODY),
    ("Postfix", RCPT, "450 4.7.1 Error: too many recipients from 192.0.2.1", DOMAIN),
    ("Postfix", RCPT, "454 4.7.1 <a@b.example>: Relay access denied", EVERYBODY),
    ("Postfix", RCPT, "554 5.7.1 <a@b.example>: Relay access denied", UNDECIDED),
    ("Postfix", RCPT, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using x", UNDECIDED),
    ("Postfix", RCPT, "450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]", UNDECIDED),
    ("Postfix", RCPT, "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", UNDECIDED),
    ("Postfix", RCPT, "450 4.1.8 <a@b.example>: Sender address rejected: Domain not found", EVERYBODY),
    ("Postfix", RCPT, "553 5.7.1 <a@b.example>: Sender address rejected: not owned by user x", UNDECIDED),
    ("Postfix", RCPT, "450 4.1.2 <a@b.example>: Recipient address rejected: Domain not found", TEMPORARY),
    ("Postfix", RCPT, "550 5.1.1 <a@b.example>: Recipient address rejected: User unknown", PERMANENT),
    ("Postfix", RCPT, "501 5.1.3 Bad recipient address syntax", PERMANENT),
    ("Postfix", RCPT, "450 4.4.1 <a@b.example>: Recipient address rejected: unverified address", TEMPORARY),
    ("Postfix", DATA, "451 4.3.5 Server configuration error", EVERYBODY),
    ("Postfix", RCPT, "421 4.4.2 mx.example Error: timeout exceeded", UNDECIDED),
    ("Postfix", BODY, "421 4.3.2 Service shutting down", UNDECIDED),
    ("Sendmail", MAIL, "503 5.5.1 Sender already specified", EVERYBODY),
    ("Sendmail", RCPT, "503 5.0.0 Need MAIL before RCPT", EVERYBODY),
    ("Sendmail", DATA, "503 5.0.0 Need RCPT (recipient)", EVERYBODY),
    ("Sendmail", RCPT, "550 5.7.1 <a@b.example>... Relaying denied", UNDECIDED),
    ("one member's filter", RCPT, "550 5.7.1 recipient does not accept mail from you", UNDECIDED),
    ("anything", MAIL, "535 5.7.8 Authentication credentials invalid", EVERYBODY),
    ("anything", MAIL, "501 5.5.4 Syntax: MAIL FROM:<address>", EVERYBODY),
    ("anything", MAIL, "555 5.5.4 SMTPUTF8 not supported", PERMANENT),
    ("anything", RCPT, "553 5.6.7 address not ascii", PERMANENT),
    ("anything", RCPT, "452 Insufficient system storage", EVERYBODY),
    ("anything", RCPT, "452 Mailbox full", TEMPORARY),
    ("anything", RCPT, "452 4.5.3 Too many recipients", UNDECIDED),
    ("anything", RCPT, "502 command not implemented", UNDECIDED),
    ("anything", RCPT, "550 Relay not permitted", UNDECIDED),
    ("anything", RCPT, "550 You send too many mails", UNDECIDED),
    ("anything", RCPT, "550 No such user", PERMANENT),
    ("anything", RCPT, "550 5.0.0 No such user", PERMANENT),
    ("anything", RCPT, "525 5.7.13 User Account Disabled", PERMANENT),
    ("anything", DATA, "550 5.1.1 no such user", PERMANENT),
    ("anything", DATA, "554 no data now", EVERYBODY),
    ("anything", BODY, "451 local error", UNDECIDED),
    ("anything", BODY, "451 4.4.1 no answer from host", UNDECIDED),
    ("anything", BODY, "552 5.2.2 mailbox full", PERMANENT),
    ("anything", BODY, "550 5.6.0 line too long", PERMANENT),
    ("anything", BODY, "554 5.7.1 spam", UNDECIDED),
    ("anything", BODY, "554 Transaction failed", PERMANENT),
]


def reply(text: str) -> Reply:
    """The reply as it comes off the wire."""
    (found,) = ReplyParser().feed(text.replace("\n", "\r\n").encode() + b"\r\n")
    return found


def kind(result: SendResult) -> str:
    match result:
        case Refused(_, permanent):
            return PERMANENT if permanent else TEMPORARY
        case Throttled(_, None):
            return EVERYBODY
        case Throttled(_, domain):
            assert domain == "example.org"
            return DOMAIN
        case Undecided():
            return UNDECIDED
        case _:
            raise AssertionError(result)


@pytest.mark.parametrize(("server", "step", "text", "expected"), REPLIES)
def test_whom_a_reply_is_about(server: str, step: Step, text: str, expected: str) -> None:
    """FM-37: what cannot be the recipient's uses nobody's attempts; what might be either is not decided by one."""
    said = reply(text)
    result = judge(step, said, ADDRESS)
    assert kind(result) == expected, server
    if isinstance(result, Undecided):
        assert result.permanent == text.startswith("5")
    assert not isinstance(result, NotSent)
    assert str(said) in str(result)


def test_every_row_is_reached() -> None:
    """FM-37: each row of the table decides about a reply in the list above."""
    reached = [row_of(step, reply(text)) for _, step, text, _ in REPLIES]
    assert [row for row in TABLE if row not in reached] == []


def test_the_documented_table_is_this_one() -> None:
    """docs/reference/mail-server-replies.md has the rows, in their order."""

    def cell(pattern: str) -> str:
        return "any" if pattern == ".*" else f"`{pattern}`".replace("|", "\\|")

    written = (Path(__file__).parents[2] / "docs/reference/mail-server-replies.md").read_text("utf-8").splitlines()
    first = written.index("| step | code | enhanced | about | meaning | words |") + 2
    assert written[first : first + len(TABLE) + 1] == [
        *(
            f"| {row.steps} | {cell(row.codes)} | {cell(row.enhanced)} | {row.about.value} | {row.meaning} |"
            f" {'with certain words' if row.words else ''} |"
            for row in TABLE
        ),
        "",
    ]


@given(st.sampled_from(Step), st.integers(400, 599), st.text())
def test_every_reply_has_a_verdict(step: Step, code: int, text: str) -> None:
    """FM-37: whatever a server says to whatever step; a refusal of MAIL is never the recipient's, by code alone."""
    result = judge(step, Reply(code, text), ADDRESS)
    assert isinstance(result, Refused | Throttled | Undecided)
    if step is MAIL and text.isalpha() and code != 555:
        assert result == Throttled(str(Reply(code, text)))


@given(st.sampled_from(Step), st.sampled_from([211, 220, 250, 334, 354]))
def test_no_refusal_out_of_turn(step: Step, code: int) -> None:
    """A reply that refuses nothing is the server's fault."""
    assert isinstance(judge(step, Reply(code, "what?"), ADDRESS), NotSent)
