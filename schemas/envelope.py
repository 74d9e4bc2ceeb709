"""What a sender takes: one message with its SMTP addresses. Or the reason why there can be none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.mailboxes import ascii_address


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

    def in_ascii(self) -> Envelope | None:
        """The same mail for a server without SMTPUTF8: the recipient's domain as A-labels, in its header too.

        None where the address is beyond ASCII in another way.
        """
        recipient = ascii_address(self.recipient)
        if recipient is None or not self.sender.isascii():
            return None
        # The header To comes first, and all before its address is ASCII.
        data = self.data.replace(f"<{self.recipient}>".encode(), f"<{recipient}>".encode(), 1)
        return replace(self, recipient=recipient, data=data, needs_utf8=False) if data.isascii() else None


@dataclass(frozen=True, slots=True)
class Unmailable:
    """No mail can be composed for this member; `reason` is a sentence for a person.

    A value and no exception: it is the failure of this member and of no other in the same poll.
    """

    reason: str
