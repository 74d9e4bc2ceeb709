"""The retry policy: which outcome follows from a `SendResult`. One pure function, and the back-off that it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided

#: After an outage mails go on within seconds; the circuit breaker in `streams.window` does the waiting.
_OUTAGE_SECONDS: Final = 5.0
#: How far before the end of its time the last try of a mail is planned, at most, as a part of that time.
_SLACK: Final = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a refused mail is tried, and the back-off between. In seconds.

    The back-off doubles up to its maximum. `retry_for` counts from a delivery's first temporary refusal; its last try
    comes shortly before the end. `max_attempts` is an upper bound on top of it, None: there is none.
    """

    max_attempts: int | None = None
    base_seconds: float = 30.0
    max_seconds: float = 3600.0
    retry_for: float = 86_400.0

    def delay(self, attempts: int, jitter: float, growth: float = 2.0) -> float:
        """The back-off after that many used attempts. `jitter` in [0, 1) spreads it over its upper half."""
        longest = self.max_seconds if growth == 2.0 else max(self.max_seconds, self.retry_for / 4)
        full = min(longest, self.base_seconds * growth ** min(max(attempts - 1, 0), 62))
        return full * (0.5 + 0.5 * jitter)

    def outage_delay(self, jitter: float) -> float:
        """The back-off after an outage of the mail server, which uses no attempt."""
        return min(_OUTAGE_SECONDS, self.base_seconds) * (0.5 + 0.5 * jitter)

    @property
    def slack(self) -> float:
        """From so long before the end of `retry_for` on, a refusal is the last."""
        return min(self.base_seconds, self.retry_for * _SLACK)

    def within(self, delay: float, refused_for: float) -> float:
        """A delay that never leads beyond the end of `retry_for`."""
        return min(delay, max(self.retry_for - self.slack - refused_for, self.slack / 2))


def decide(
    result: SendResult, attempts: int, policy: RetryPolicy, jitter: float, refused_for: float | None = None
) -> Outcome:
    """The outcome of a delivery attempt. `attempts` were used before it.

    `refused_for`: seconds since the delivery's first temporary refusal, None if there was none. It decides when a
    temporary refusal has failed; what is not the recipient's never does.
    """
    match result:
        case Accepted(reply):
            return Sent(reply)
        case Refused(reply, permanent=True):
            return Failed(reply, reply)
        case Refused(reply):
            return _refused(reply, attempts, policy, policy.delay(attempts + 1, jitter), refused_for or 0.0)
        case Undecided(reply, permanent):
            if refused_for is None:
                # The first time it costs nothing but its place: it may well be an outage that has just begun.
                delay = policy.within(policy.outage_delay(jitter), 0.0)
                return Retry(reply, delay, uses=0, reply=reply, refused=True)
            # A 5xx that may be about us is tried less and less often: it helps only if somebody mends the cause.
            delay = policy.delay(attempts + 1, jitter, growth=4.0 if permanent else 2.0)
            return _refused(reply, attempts, policy, delay, refused_for)
        case Throttled(reply):
            return Retry(reply, policy.outage_delay(jitter), uses=0, reply=reply)
        case NotSent(reason) | Lapsed(reason):
            return Retry(reason, policy.outage_delay(jitter), uses=0)
        case Ambiguous(reason):
            return Unknown(reason)


def _refused(reply: str, attempts: int, policy: RetryPolicy, delay: float, refused_for: float) -> Outcome:
    """After a temporary refusal: again later, unless its time or its attempts are over."""
    used = attempts + 1
    spent = policy.max_attempts is not None and used >= policy.max_attempts
    if spent or refused_for >= policy.retry_for - policy.slack:
        return Failed(f"refused {_times(used)} in {_duration(refused_for)}, the last time: {reply}", reply)
    return Retry(reply, policy.within(delay, refused_for), uses=1, reply=reply)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
