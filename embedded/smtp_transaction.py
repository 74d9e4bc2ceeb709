"""The SMTP transaction of one mail (RFC 5321, 3.3): sender, recipients, and the parameters of MAIL."""

from __future__ import annotations

import re
from typing import Final

from embedded.mail_rules import Rules

MAX_RECIPIENTS: Final = 1000

_MAIL = re.compile(rb"MAIL FROM: ?<([^<>]*)>((?: [^ ]+)*) *\Z", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO: ?<([^<>]+)>((?: [^ ]+)*) *\Z", re.IGNORECASE)


class SmtpTransaction:
    """Filled by MAIL and RCPT, which return their replies. `sender` is None until MAIL succeeds."""

    __slots__ = ("eight_bit", "recipients", "sender", "utf8")

    def __init__(self) -> None:
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.utf8 = self.eight_bit = False

    def mail(self, line: bytes, max_size: int, rules: Rules) -> bytes:
        """MAIL FROM."""
        found = _MAIL.match(line)
        if found is None:
            return b"501 5.5.4 MAIL FROM:<address>"
        if self.sender is not None:
            return b"503 5.5.1 A transaction is open"
        if found[2] and (refusal := self._parameters(found[2], max_size)):
            return refusal
        if refusal := self._refused(found[1]):
            return refusal
        if rules.rules and (rule := rules.consume("refuse_sender")) is not None:
            return rule.reply
        self.sender = found[1].decode()
        return b"250 2.1.0 Ok"

    def recipient(self, line: bytes, rules: Rules) -> bytes:
        """RCPT TO."""
        found = _RCPT.match(line)
        if found is None:
            return b"501 5.5.4 RCPT TO:<address>"
        if found[2]:
            return b"555 5.5.4 Unknown parameter"
        if self.sender is None:
            return b"503 5.5.1 MAIL first"
        if len(self.recipients) >= MAX_RECIPIENTS:
            return b"452 4.5.3 Too many recipients"
        if refusal := self._refused(found[1]):
            return refusal
        recipient = found[1].decode()
        if rules.rules and (rule := rules.consume("refuse_recipient", (recipient,))) is not None:
            return rule.reply
        self.recipients.append(recipient)
        return b"250 2.1.5 Ok"

    def _parameters(self, text: bytes, max_size: int) -> bytes:
        """Applies the parameters of MAIL; returns the reply that refuses one, or nothing."""
        for parameter in text.upper().split():
            name, _, value = parameter.partition(b"=")
            if name == b"SIZE" and value.isdigit():
                if int(value) > max_size:
                    return b"552 5.3.4 Too big"
            elif name == b"BODY" and value in {b"7BIT", b"8BITMIME"}:
                self.eight_bit = value == b"8BITMIME"
            elif name == b"SMTPUTF8" and not value:
                self.utf8 = True
            elif name != b"AUTH" or not value:
                return b"555 5.5.4 Unknown parameter"
        return b""

    def _refused(self, address: bytes) -> bytes:
        if address.isascii():
            return b""
        if not self.utf8:
            return b"553 5.6.7 The address needs SMTPUTF8"
        try:
            address.decode()
        except UnicodeDecodeError:
            return b"501 5.1.3 The address is not UTF-8"
        return b""
