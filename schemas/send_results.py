"""What a sender reports of one mail: how far the dialogue with the mail server got.

These are facts. What follows from them (sent, failed, retry, unknown) is decided by `streams.policy`, a pure function,
and recorded in the ledger under the fence of the delivery's claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server answered the end of the data with 2xx: it has taken responsibility."""

    reply: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answered 4xx or 5xx about this recipient or message (`mail.smtp.verdicts`). It was not accepted.

    `permanent` is true for 5xx, and for what can never work (an address beyond ASCII without SMTPUTF8).
    """

    reply: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """The mail was certainly not accepted: the mail server is away or takes no session. Opens the circuit breaker.

    A refused connection or log-in, or a connection that was lost before the server had accepted the sender.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The server takes no mails from us for now, or fewer or slower ones; this one was not accepted. Nobody's attempt.

    Too many or too fast, its disk full, our quota used up, our sender or our log-in refused. `domain` is the recipient
    domain that it concerns, or None: everybody. It does not open the circuit breaker: the rate of sending follows it.
    """

    reply: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Undecided:
    """The mail was not accepted, and one reply cannot tell whether that is about this recipient or about everybody.

    The dialogue ended after the sender was accepted and before the data went out (421, loss, time-out), or the refusal
    speaks of policy. It does not open the circuit breaker: other mails go on, on a new connection. Whether nothing
    else gets through, which makes it Throttled, is decided by `streams.refused_by_all`. `permanent` is true for 5xx.
    """

    reply: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Lapsed:
    """Its claim ended before the mail could be accepted. It was not sent, and the mail server is not the cause."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The data went out, at least in part, and no reply came back: whether it was accepted cannot be known."""

    reason: str


SendResult: TypeAlias = Accepted | Refused | NotSent | Throttled | Undecided | Lapsed | Ambiguous

#: The classes of a deciding reply; `none` where there was none.
REPLY_CLASSES: Final = ("2xx", "4xx", "5xx", "none")


def reply_class(result: SendResult) -> str:
    """The class of the reply that decided about the mail. Pure."""
    match result:
        case Accepted():
            return "2xx"
        case Refused(text) | Throttled(text) | Undecided(text) | NotSent(text):
            # A reply begins with its code; what was lost or timed out does not.
            return f"{text[0]}xx" if text[:3].isdecimal() and text[0] in "45" else "none"
        case _:
            return "none"
