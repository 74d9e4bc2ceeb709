"""What is known of a scope (the mail server, or one recipient domain) about how many mails it takes. Pure values.

All workers share these through the database (`db.send_limits`); `streams.rate_limits` and `streams.adaptive_rate`
decide. Times are seconds since the epoch by the database's clock; 0 is long ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Mails by window and bucket: seconds of the window, then (the bucket's begin, mails) in any order.
Usage = Mapping[int, Sequence[tuple[float, int]]]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a scope's throttling replies have taught. See `streams.adaptive_rate`."""

    #: Mails a second that the server took when it last asked for fewer; None: no rate is learned.
    ceiling: float | None = None
    #: Seconds since that reply in which more mails waited than the rate let pass.
    clean_seconds: float = 0.0
    grown_at: float = 0.0
    #: The last pause in seconds; 0 once mails pass again.
    pause_seconds: float = 0.0
    paused_until: float = 0.0
    #: One mail tries whether mails pass again; until then nobody else does.
    probe_until: float = 0.0
    throttled_at: float = 0.0
    #: What the server said, without addresses.
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class ScopeState:
    """One row of `send_limits`."""

    scope: str
    #: Up to when the pace is used up.
    paced_to: float = 0.0
    #: Grants of the last second: (when, mails).
    recent: tuple[tuple[float, int], ...] = ()
    #: The slot of the last mail that was put back.
    queued_to: float = 0.0
    #: The warm-up in force, and when its first mail was granted.
    warmup: tuple[int, ...] = ()
    warmup_started: float = 0.0
    learned: Learned = field(default_factory=Learned)


@dataclass(frozen=True, slots=True)
class RateSettings:
    """What an admin has set on the site. It holds instead of the environment's settings, even where it is empty."""

    rate: str | None
    rate_domain: str | None
    warmup: str | None
    set_by: str
    set_at: float
