"""The rate that learns: from throttling replies to a rate and a pause for one scope. Pure: (state, event, now) → state.

A throttling reply lowers the rate to just below what the server was seen to take, and begins a pause. After the pause
one mail tries; once it passes, mails go on at the lower rate, which grows slowly up to what the server took and a
little beyond, and then doubles every 10 s, until the server asks again or nothing is limited any more.

Replies to mails that were begun before the last throttling reply, or during its pause by a worker that had not heard
of it, belong to it: they change nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from schemas.send_limits import Learned

#: The rate begins at this share of what the server took.
_BELOW: Final = 0.9
#: One reply lowers the rate at least to this share of itself, at most to that one.
_LEAST_DECREASE: Final = 0.9
_MOST_DECREASE: Final = 0.5
_SLOWEST: Final = 0.05
#: The first rate is at least this: at the begin of a campaign little was accepted so far, by whatever server.
_FIRST_RATE: Final = 10.0
#: From `_BELOW` to `_BEYOND` of the ceiling in a straight line, then doubled every so many seconds.
_BEYOND: Final = 1.1
_LINEAR_SECONDS: Final = 60.0
_DOUBLING_SECONDS: Final = 10.0
#: So far beyond the ceiling nothing is limited any more. A rate unused for a day is of another day.
_FORGET_FACTOR: Final = 64.0
_FORGET_SECONDS: Final = 86_400.0
_FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: How long the mail that tries may take before another one does.
_PROBE_SECONDS: Final = 15.0
#: Time that passed unobserved counts as this many seconds of growth at most.
_MOST_GROWTH_SECONDS: Final = 2.0


def rate_of(state: Learned) -> float | None:
    """Mails a second that are let pass now; None where no rate is learned."""
    if state.ceiling is None:
        return None
    return state.ceiling * _growth(state.clean_seconds)


def is_paused(state: Learned, now: float) -> bool:
    """Whether no mail may begin now."""
    return now < state.paused_until or (state.pause_seconds > 0 and now < state.probe_until)


def resumes_at(state: Learned) -> float:
    """When the next mail may begin, at the earliest."""
    return max(state.paused_until, state.probe_until) if state.pause_seconds > 0 else state.paused_until


def is_learning(state: Learned) -> bool:
    """Whether the state limits anything."""
    return state.ceiling is not None or state.pause_seconds > 0


def throttled(
    state: Learned,
    now: float,
    *,
    begun: float,
    accepted_rate: float,
    jitter: float,
    reply: str,
    longest_pause: float = LONGEST_PAUSE,
) -> Learned:
    """The server asked for fewer mails, in reply to one that was begun at `begun`.

    `accepted_rate`: mails a second of all workers that it took lately. `jitter` in [0, 1) spreads the pause over
    its upper half.
    """
    if begun <= state.throttled_at or begun < state.paused_until:
        return state
    ceiling, clean = state.ceiling, state.clean_seconds
    # While nothing passes it is no question of the rate: then only the pause grows.
    if state.pause_seconds == 0 and accepted_rate > 0:
        wanted = _BELOW * accepted_rate
        rate, clean = rate_of(state), 0.0
        if rate is None:
            # What the server takes is known only roughly: from here on the rate doubles until it asks again.
            clean = _LINEAR_SECONDS
            wanted = max(wanted, _FIRST_RATE)
        else:
            wanted = min(max(wanted, _MOST_DECREASE * rate), _LEAST_DECREASE * rate)
        ceiling = max(wanted, _SLOWEST) / _BELOW
    pause = min(max(2 * state.pause_seconds, _FIRST_PAUSE), longest_pause)
    return replace(
        state,
        ceiling=ceiling,
        clean_seconds=clean,
        grown_at=now,
        pause_seconds=pause,
        paused_until=now + pause * (0.5 + 0.5 * jitter),
        probe_until=0.0,
        throttled_at=now,
        reply=reply,
    )


def probing(state: Learned, now: float) -> Learned:
    """The pause is over and one mail goes out: the others wait for what becomes of it."""
    return replace(state, probe_until=now + _PROBE_SECONDS)


def passed(state: Learned, now: float, *, begun: float) -> Learned:
    """A mail that was begun at `begun` was accepted: the pause is over."""
    if state.pause_seconds == 0 or begun <= state.throttled_at:
        return state
    return replace(state, pause_seconds=0.0, paused_until=0.0, probe_until=0.0, grown_at=now)


def answered(state: Learned, *, begun: float) -> Learned:
    """The mail that tried had another result, which says nothing about the rate: the next one may try."""
    return state if begun <= state.throttled_at else replace(state, probe_until=0.0)


def used(state: Learned, now: float, *, limiting: bool) -> Learned:
    """Mails were asked for; `limiting`: for more than the rate let pass. The rate grows, or is forgotten."""
    if state.ceiling is None or state.pause_seconds > 0:
        return state
    elapsed = min(max(now - state.grown_at, 0.0), _MOST_GROWTH_SECONDS)
    clean = state.clean_seconds + (elapsed if limiting else 0.0)
    if _growth(clean) > _FORGET_FACTOR or now - state.throttled_at > _FORGET_SECONDS:
        return replace(state, ceiling=None, clean_seconds=0.0, grown_at=now)
    return replace(state, clean_seconds=clean, grown_at=now)


def _growth(clean: float) -> float:
    """The rate after that many seconds, as a multiple of the ceiling."""
    if clean <= _LINEAR_SECONDS:
        return _BELOW + (_BEYOND - _BELOW) * clean / _LINEAR_SECONDS
    return float(_BEYOND * 2.0 ** (min(clean - _LINEAR_SECONDS, 2000.0) / _DOUBLING_SECONDS))
