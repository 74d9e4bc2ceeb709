"""One message per member without rendering: a compiled template per event and role, into which fields are spliced.

Building a message object for each mail is a thousand times slower and would limit the whole system. A compiled
template renders once, with placeholders where the member's fields go, encodes the text between them, and from then on
joins bytes. Pure: the time is an argument.

The body is quoted-printable in both parts: seven bits, so it suits servers with 8BITMIME and without.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from mail import headers, quoted_printable
from mail.render import render
from mail.sanitize import one_line, shortened
from schemas import limits
from schemas.envelope import Envelope, Unmailable
from schemas.event_fields import rsvp_link
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.mail_address import address_problem, check_base_url, is_plain_address, parse_sender
from schemas.vocabulary import Role

# "=_" cannot occur in quoted-printable text, so no description can hold the boundary (RFC 2045, 6.7).
_BOUNDARY: Final = "=_bidden"
# NUL cannot occur in the text of an event (`mail.sanitize`), so no description can hold a placeholder.
_PLACEHOLDER: Final = re.compile(r"\x00([a-z]+)\x00")

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .\-]{0,38}[A-Za-z0-9.])?")
_PLAIN_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-]+")
#: A header line holds at most 998 octets, and a link cannot be folded.
_LONGEST_LINK: Final = 900
#: How a mail greets a member without a name.
_NAMELESS: Final = "there"


class CompiledTemplate:
    """The mails of one event in one role, compiled. `compose` may be called from one thread at a time.

    `mail_from` is `Name <address>` or `address`, the address ASCII; `base_url` is where the links of a mail
    lead, but for the answer to an event that has an `rsvp_url`. Both as the settings hold them, which refuse at load
    what makes no sense.
    """

    def __init__(self, event: EventDetails, role: Role, mail_from: str, base_url: str) -> None:
        name, self.sender = parse_sender(mail_from)
        self._domain = self.sender.rpartition("@")[2]
        base_url = check_base_url(base_url)
        self._unsubscribe = f"{base_url}/unsubscribe/"
        rsvp = rsvp_link(event.rsvp_url, base_url)
        self._rsvp_codes, self._after_rsvp = (quoted_printable.encoded(part).encode("ascii") for part in rsvp)
        # A pattern may have a query, and HTML escapes its ampersands.
        in_html = (quoted_printable.encoded(html.escape(part)).encode("ascii") for part in rsvp)
        self._html_rsvp_codes, self._after_html_rsvp = in_html
        self._unsubscribe_codes = quoted_printable.encoded(self._unsubscribe).encode("ascii")
        self._date = ""
        self._dated: datetime | None = None

        rendered = render(event, role, name="\0name\0", rsvp_url="\0rsvp\0", unsubscribe_url="\0unsubscribe\0")
        self.subject: Final = rendered.subject
        lines = [
            headers.mailbox("From", name, self.sender),
            *_reply_to(event),
            headers.unstructured("Subject", rendered.subject),
            f"List-Id: <invitations.{self._domain}>",
            "Auto-Submitted: auto-generated",
            "Precedence: bulk",
            "MIME-Version: 1.0",
            f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"',
        ]
        opening = "".join(f"{line}\r\n" for line in lines)
        text = f"{opening}\r\n--{_BOUNDARY}\r\n{_part_headers('plain')}"
        # The first segment is for the member's own headers.
        self._segments: list[bytes] = [b"", text.encode("ascii")]
        self._slots: list[tuple[int, str, int]] = []
        self._splice(rendered.text, {})
        self._segments.append(f"\r\n--{_BOUNDARY}\r\n{_part_headers('html')}".encode("ascii"))
        self._splice(rendered.html, {"name": "html_name", "rsvp": "html_rsvp"})
        self._segments.append(f"\r\n--{_BOUNDARY}--\r\n".encode("ascii"))

    def compose(self, recipient: Recipient, key: DeliveryKey, at: datetime) -> Envelope | Unmailable:
        """The mail to one member, dated `at` (an aware time).

        Unmailable when the address is unusable or the token too long for a link. The same arguments give the same
        bytes; the Message-ID depends on the key alone.
        """
        address = recipient.email
        plain = is_plain_address(address)
        if not plain:
            problem = address_problem(address)
            if problem is not None:
                return Unmailable(problem)
        token = recipient.token
        if not _PLAIN_TOKEN.fullmatch(token):
            token = quote(one_line(token), safe="")
        unsubscribe = self._unsubscribe + token
        if not token or len(unsubscribe) > _LONGEST_LINK:
            return Unmailable("the invitation's token cannot be made into a link")
        if (second := at.replace(microsecond=0)) != self._dated:
            # Once a second, because it takes longer than all the rest.
            self._date, self._dated = format_datetime(second.astimezone(UTC)), second

        name, whole = _names(recipient)
        head = (
            f"{headers.mailbox('To', whole, address)}\r\n"
            f"Date: {self._date}\r\n"
            f"Message-ID: {key.message_id(self._domain)}\r\n"
            f"X-Bidden-Delivery: {key}\r\n"
            f"List-Unsubscribe: <{unsubscribe}>\r\n"
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        )
        segments = self._segments.copy()
        segments[0] = head.encode()
        name_codes = html_codes = name
        if not _PLAIN_NAME.fullmatch(name):
            name_codes = quoted_printable.encoded(name)
            html_codes = quoted_printable.encoded(html.escape(name))
        # A token is made of characters that neither quoted-printable nor HTML changes.
        tail = token.encode("ascii")
        values = {
            "name": name_codes.encode("ascii"),
            "html_name": html_codes.encode("ascii"),
            "rsvp": self._rsvp_codes + tail + self._after_rsvp,
            "html_rsvp": self._html_rsvp_codes + tail + self._after_html_rsvp,
            "unsubscribe": self._unsubscribe_codes + tail,
        }
        for index, field, room in self._slots:
            value = values[field]
            segments[index] = value if len(value) <= room else quoted_printable.lines_of_its_own(value)
        return Envelope(self.sender, address, b"".join(segments), not plain and not address.isascii())

    def _splice(self, rendered: str, values: Mapping[str, str]) -> None:
        """Appends a part's text in pieces, and for each placeholder an empty segment to be filled later.

        `values` names the value that a placeholder stands for in this part, where it is not the one of its own name.
        """
        texts = _PLACEHOLDER.split(rendered)
        last = len(texts) - 1
        pieces = [
            quoted_printable.fixed(text, value_before=index > 0, value_after=index < last)
            for index, text in enumerate(texts)
            if index % 2 == 0
        ]
        self._segments.append(pieces[0])
        for field, before, after in zip(texts[1::2], pieces, pieces[1:], strict=False):
            self._slots.append((len(self._segments), values.get(field, field), quoted_printable.room(before, after)))
            self._segments += (b"", after)


def _reply_to(event: EventDetails) -> list[str]:
    """Answers go to the chapter, if it has an address that every server can take."""
    address = event.chapter_email.strip()
    if not address.isascii() or address_problem(address):
        return []
    chapters = shortened(", ".join(event.chapter_names), limits.NAME)
    return [headers.mailbox("Reply-To", one_line(chapters), address)]


def _names(recipient: Recipient) -> tuple[str, str]:
    """The name to greet with, never empty, and the whole name, which may be."""
    name = one_line(shortened(recipient.name, limits.NAME))
    surname = one_line(shortened(recipient.surname, limits.NAME)) if recipient.surname else ""
    whole = f"{name} {surname}" if name and surname else name or surname
    return name or surname or _NAMELESS, whole


def _part_headers(subtype: str) -> str:
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
