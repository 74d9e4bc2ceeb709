"""What a sender reports of one mail: how far the dialogue with the mail server got.

These are facts. What follows from them (sent, failed, retry, unknown) is decided by `streams.policy`, a pure function,
and recorded in the ledger under the fence of the delivery's claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server answered the end of the data with 2xx: it has taken responsibility."""

    reply: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answered 4xx or 5xx for this very mail (sender, recipient or data). It was not accepted.

    `permanent` is true for 5xx, and for what can never work (an address beyond ASCII without SMTPUTF8).
    """

    reply: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """The mail was certainly not accepted, for a reason that is not the recipient's.

    A refused connection, a failed authentication, 421, or a time-out or lost connection before the data.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The data went out, at least in part, and no reply came back: whether it was accepted cannot be known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The server asked for fewer or slower mails. The mail was not accepted; nobody's attempts are used.

    `domain` is the recipients' domain that it asked this for; None for all mails.
    """

    reply: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Lapsed:
    """Its claim ended before the mail could be accepted. It was not sent, and the mail server is not the cause."""

    reason: str


SendResult: TypeAlias = Accepted | Refused | NotSent | Ambiguous | Throttled | Lapsed
