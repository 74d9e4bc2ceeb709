"""The mail with the link that resets a forgotten password: plain text, to one account. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

from mail import headers, quoted_printable
from mail.sanitize import isolated, one_line, shortened
from schemas import limits
from schemas.envelope import Envelope
from schemas.errors import RefusedError
from schemas.mail_address import address_problem, parse_sender

_TEXT = """\
Hello {name},

Somebody asked for a new password for your account at
{site}

If it was you, choose it here within one hour. The link works once.

{link}

If it was not you, do nothing: your password stays as it is.
"""


def compose(mail_from: str, base_url: str, *, name: str, email: str, token: str, at: datetime, unique: str) -> Envelope:
    """The mail, dated `at` (an aware time). `unique` distinguishes it from every other; it must not be the token.

    RefusedError if the address is unusable.
    """
    problem = address_problem(email)
    if problem is not None:
        raise RefusedError(problem)
    sender_name, sender = parse_sender(mail_from)
    name = one_line(shortened(name, limits.NAME))
    lines = (
        headers.mailbox("To", name, email),
        headers.mailbox("From", sender_name, sender),
        headers.unstructured("Subject", "A new password for bidden"),
        f"Date: {format_datetime(at.astimezone(UTC))}",
        f"Message-ID: <bidden.password.{unique}@{sender.rpartition('@')[2]}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
    )
    text = _TEXT.format(name=isolated(name) or "there", site=base_url, link=f"{base_url}/password/{token}")
    body = quoted_printable.fixed(text, value_before=False, value_after=False)
    head = "".join(f"{line}\r\n" for line in lines)
    return Envelope(sender, email, f"{head}\r\n".encode() + body, not email.isascii())
