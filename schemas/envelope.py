"""What a sender takes: one message with its SMTP addresses. Or the reason why there can be none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """One mail, ready for the wire.

    `sender` and `recipient` are bare addresses without angle brackets, white space or control characters.
    `data` is a whole RFC 5322 message with CRLF line ends, not dot-stuffed, 7-bit unless `needs_utf8`.
    `needs_utf8` is true for an address beyond ASCII: only a server with SMTPUTF8 may be given this mail.
    """

    sender: str
    recipient: str
    data: bytes
    needs_utf8: bool = False


@dataclass(frozen=True, slots=True)
class Unmailable:
    """No mail can be composed for this member; `reason` is a sentence for a person.

    A value and no exception: it is the failure of this member and of no other in the same poll.
    """

    reason: str
