"""The retry policy: which outcome follows from a `SendResult`. One pure function, and the back-off that it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided

#: After an outage mails go on within seconds; the circuit breaker in `streams.window` does the waiting.
_OUTAGE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a mail is tried, and the back-off between (seconds, doubled each time up to the maximum)."""

    max_attempts: int = 5
    base_seconds: float = 30.0
    max_seconds: float = 3600.0

    def delay(self, attempts: int, jitter: float) -> float:
        """The back-off after that many used attempts. `jitter` in [0, 1) spreads it over its upper half."""
        full = min(self.max_seconds, self.base_seconds * 2.0 ** min(max(attempts - 1, 0), 62))
        return full * (0.5 + 0.5 * jitter)

    def outage_delay(self, jitter: float) -> float:
        """The back-off after an outage of the mail server, which uses no attempt."""
        return min(_OUTAGE_SECONDS, self.base_seconds) * (0.5 + 0.5 * jitter)


def decide(result: SendResult, attempts: int, policy: RetryPolicy, jitter: float) -> Outcome:
    """The outcome of a delivery attempt. `attempts` were used before it. A 4xx is retried until they are spent."""
    match result:
        case Accepted(reply):
            return Sent(reply)
        case Refused(reply, permanent=True):
            return Failed(reply, reply)
        case Refused(reply) if attempts + 1 >= policy.max_attempts:
            return Failed(f"refused {attempts + 1} times, the last time: {reply}", reply)
        case Refused(reply):
            return Retry(reply, policy.delay(attempts + 1, jitter), uses=1, reply=reply)
        case Undecided(reply):
            return Retry(reply, policy.outage_delay(jitter), uses=0, reply=reply)
        case Throttled(reply):
            return Retry(reply, policy.outage_delay(jitter), uses=0, reply=reply)
        case NotSent(reason) | Lapsed(reason):
            return Retry(reason, policy.outage_delay(jitter), uses=0)
        case Ambiguous(reason):
            return Unknown(reason)
