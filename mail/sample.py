"""An event's mail as a sample: shown before it is sent to anyone, or sent to one address as a test.

It is composed as every mail is, so what is shown is what will be sent. Pure: the time is an argument.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.policy import default as modern
from typing import Final

from mail import headers
from mail.compose import CompiledTemplate
from schemas.envelope import Envelope, Unmailable
from schemas.errors import RefusedError
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.vocabulary import Action, Role

#: The token in a sample's links.
TOKEN: Final = "this-is-an-example"  # noqa: S105 - it opens nothing
#: The recipient of a sample that is only shown.
_NOBODY: Final = "member@example.org"
#: The key of no delivery: a test mail carries none, because what carries one is compared with the ledger.
_NO_KEY: Final = frozenset(
    {b"subject", b"message-id", b"x-bidden-delivery", b"list-unsubscribe", b"list-unsubscribe-post"}
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A mail as a mail program shows it. `reply_to` is None where answers go to the sender."""

    subject: str
    sender: str
    reply_to: str | None
    text: str
    html: str


def shown(event: EventDetails, role: Role, mail_from: str, base_url: str, *, name: str, at: datetime) -> Shown:
    """The mail as a member of this name will see it. SettingsError as for every mail."""
    _, envelope = _compose(event, role, mail_from, base_url, Recipient(1, name, None, _NOBODY, TOKEN), at)
    message = message_from_bytes(envelope.data, policy=modern)
    parts = {part.get_content_type(): part.get_content() for part in message.iter_parts()}
    reply_to = message["Reply-To"]
    return Shown(
        subject=str(message["Subject"]),
        sender=str(message["From"]),
        reply_to=None if reply_to is None else str(reply_to),
        text=parts["text/plain"],
        html=parts["text/html"],
    )


def to_send(
    event: EventDetails, role: Role, mail_from: str, base_url: str, *, name: str, email: str, at: datetime, unique: str
) -> Envelope:
    """The mail as a test for one address: marked as such, and the mail of no delivery.

    `unique` distinguishes it from every other test. RefusedError if the address is unusable.
    """
    recipient = Recipient(1, name, None, email, TOKEN)
    subject, envelope = _compose(event, role, mail_from, base_url, recipient, at)
    head, _, body = envelope.data.partition(b"\r\n\r\n")
    kept = [line for line in re.split(rb"\r\n(?![ \t])", head) if line.partition(b":")[0].lower() not in _NO_KEY]
    domain = envelope.sender.rpartition("@")[2]
    own = (
        headers.unstructured("Subject", f"[Test] {subject}"),
        f"Message-ID: <bidden.test.{unique}@{domain}>",
        "X-Bidden-Test: 1",
    )
    lines = [*kept, *(line.encode("ascii") for line in own)]
    return Envelope(envelope.sender, envelope.recipient, b"\r\n".join(lines) + b"\r\n\r\n" + body, envelope.needs_utf8)


def _compose(
    event: EventDetails, role: Role, mail_from: str, base_url: str, recipient: Recipient, at: datetime
) -> tuple[str, Envelope]:
    template = CompiledTemplate(event, role, mail_from, base_url)
    envelope = template.compose(recipient, DeliveryKey(event.event_id, Action.INVITE, 1, role), at)
    if isinstance(envelope, Unmailable):
        raise RefusedError(envelope.reason)
    return template.subject, envelope
