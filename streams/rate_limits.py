"""How many mails may go out now, under the rates that are set and the rate that is learned. Pure.

`14/s` is paced, with a burst of a quarter of a second, and never more than 14 in any second. Longer times are rolling
windows, counted in buckets of a 60th of the window: all of `600/min` may go out at once, and then none for a minute.
Called under the locks of the scopes' rows: what is granted here is granted to one worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.send_limits import ScopeState, Usage
from schemas.send_rates import DAY, SECOND, SERVER, Rate, SendRates
from streams import adaptive_rate

_BUCKETS: Final = 60
#: Of the pace, how much may be caught up at once, in seconds; and the least number of mails.
_BURST_SECONDS: Final = 0.25
_LEAST_BURST: Final = 2.0
#: Grants of the last second are kept in steps of this, rounded up.
_STEP: Final = 0.02
#: A delivery whose slot is this near stays with its worker; others are put back, at most this far ahead (seconds).
_NEAR: Final = 1.5
_MOST_HELD: Final = 20
_FARTHEST: Final = 3600.0
#: Nobody asks again sooner: one request then serves several mails. Nor later: the mail that tries after a pause may
#: have passed, or an admin has set another rate.
_SOONEST: Final = 0.05
_LATEST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """How many mails may go out now, and in how many seconds there is room for one more. `rate`: the average."""

    mails: float
    wait: float
    rate: float


@dataclass(slots=True)
class Grants:
    """`verdicts`, one for each mail wanted: 0, it may go; a number of seconds to put it back for; None, it waits.

    `counts`: mails granted by scope. `wait`: seconds until it is worth asking again.
    """

    verdicts: list[float | None] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    wait: float = 0.0


def bucket(now: float, seconds: int) -> float:
    """Where the bucket of `now` begins, in a window of that length."""
    width = seconds / _BUCKETS
    return math.floor(now / width) * width


def rates_of(scope: str, rates: SendRates, state: ScopeState, now: float) -> tuple[Rate, ...]:
    """The rates that are set for the scope, the warm-up of today included."""
    if scope != SERVER:
        return rates.of_domain(scope)
    if not rates.warmup:
        return rates.server
    day = int((now - state.warmup_started) // DAY) if state.warmup == rates.warmup else 0
    if day >= len(rates.warmup):
        return rates.server
    return (*rates.server, Rate(rates.warmup[day], DAY))


def room(state: ScopeState, rates: Sequence[Rate], usage: Usage, now: float) -> Room:
    """What the scope lets pass now."""
    found = [Room(math.inf, 0.0, math.inf)]
    learned = state.learned
    if adaptive_rate.is_paused(learned, now):
        found.append(Room(0, adaptive_rate.resumes_at(learned) - now, math.inf))
    elif learned.pause_seconds > 0:
        found.append(Room(1, learned.pause_seconds, math.inf))
    pace = _pace(state, rates)
    if pace < math.inf:
        since = max(state.paced_to, now - _burst(pace) / pace)
        due = max(math.floor((now - since) * pace + 1e-6), 0)
        found.append(Room(due, since + (due + 1) / pace - now, pace))
    for rate in rates:
        if rate.seconds == SECOND:
            used = [(at, mails) for at, mails in state.recent if at > now - SECOND]
            ends = [at + SECOND for at, _ in used]
        else:
            width = rate.seconds / _BUCKETS
            used = [(at, mails) for at, mails in usage.get(rate.seconds, ()) if at + width > now - rate.seconds]
            ends = [at + width + rate.seconds for at, _ in used]
        free = max(rate.count - sum(mails for _, mails in used), 0)
        found.append(Room(free, min(ends) - now if ends else 0.0, rate.per_second))
    mails = min(each.mails for each in found)
    wait = max((each.wait for each in found if each.mails <= mails), default=0.0)
    return Room(mails, max(wait, 0.0), min(each.rate for each in found))


def taken(state: ScopeState, rates: Sequence[Rate], mails: int, now: float) -> ScopeState:
    """The state after that many mails were granted; what windows count is written by the caller."""
    pace = _pace(state, rates)
    if pace < math.inf:
        since = max(state.paced_to, now - _burst(pace) / pace)
        state = replace(state, paced_to=since + mails / pace)
    if any(rate.seconds == SECOND for rate in rates):
        at = _step(now)
        recent = [(when, count) for when, count in state.recent if when > now - SECOND]
        if recent and recent[-1][0] >= at:
            recent[-1] = (recent[-1][0], recent[-1][1] + mails)
        else:
            recent.append((at, mails))
        state = replace(state, recent=tuple(recent))
    if state.learned.pause_seconds > 0:
        state = replace(state, learned=adaptive_rate.probing(state.learned, now))
    return state


def given_back(state: ScopeState, rates: Sequence[Rate], mails: int, granted_at: float) -> ScopeState:
    """The state when so many of what was granted then are not sent."""
    pace = _pace(state, rates)
    recent = tuple((at, max(n - mails, 0) if at == _step(granted_at) else n) for at, n in state.recent)
    return replace(state, recent=recent, paced_to=state.paced_to - mails / pace)


def grant(
    wanted: Sequence[str],
    states: Mapping[str, ScopeState],
    rates: SendRates,
    usage: Mapping[str, Usage],
    now: float,
) -> tuple[Grants, dict[str, ScopeState]]:
    """Which of the wanted mails (their recipient domains, in order) may go out, and the states after that.

    `states` has the scopes that are limited; a scope that is missing is not.
    """
    changed = dict(states)
    server = changed.get(SERVER)
    if server is not None and rates.warmup and server.warmup != rates.warmup:
        # A schedule that was extended goes on; another one begins with this mail.
        same = server.warmup and rates.warmup[: len(server.warmup)] == server.warmup
        started = server.warmup_started if same else now
        server = changed[SERVER] = replace(server, warmup=rates.warmup, warmup_started=started)
    set_for = {scope: rates_of(scope, rates, state, now) for scope, state in changed.items()}
    rooms = {scope: room(state, set_for[scope], usage.get(scope, {}), now) for scope, state in changed.items()}
    left = {scope: found.mails for scope, found in rooms.items()}
    result = Grants()
    limited: set[str] = set()
    waits: list[float] = []
    #: Those that stay have the first slots.
    held: dict[str, int] = {}
    for domain in wanted:
        if left.get(SERVER, math.inf) < 1:
            limited.add(SERVER)
            waits.append(rooms[SERVER].wait)
            result.verdicts += [None] * (len(wanted) - len(result.verdicts))
            break
        if left.get(domain, math.inf) >= 1:
            for scope in (SERVER, domain):
                if scope in changed:
                    left[scope] -= 1
                    result.counts[scope] = result.counts.get(scope, 0) + 1
            result.verdicts.append(0.0)
        else:
            limited.add(domain)
            queued_to, delay = _slot(changed[domain], rooms[domain], held.get(domain, 0), now)
            if delay < _NEAR and sum(held.values()) < _MOST_HELD:
                held[domain] = held.get(domain, 0) + 1
                waits.append(rooms[domain].wait)
                result.verdicts.append(None)
            else:
                changed[domain] = replace(changed[domain], queued_to=queued_to)
                result.verdicts.append(delay)
    for scope, state in changed.items():
        count = result.counts.get(scope, 0)
        if count:
            state = taken(state, set_for[scope], count, now)
        if scope == SERVER or scope in wanted:
            learned = adaptive_rate.used(state.learned, now, limiting=scope in limited)
            state = replace(state, learned=learned)
        changed[scope] = state
    result.wait = min(max(min(waits), _SOONEST), _LATEST) if waits else 0.0
    return result, changed


def seconds_to_send(mails: int, state: ScopeState, rates: Sequence[Rate], usage: Usage, now: float) -> float:
    """How long the limits of the scope alone make that many mails take."""
    found = [0.0]
    pace = _pace(state, rates)
    if pace < math.inf:
        found.append(mails / pace)
    for rate in rates:
        if rate.seconds != SECOND:
            width = rate.seconds / _BUCKETS
            used = sum(count for at, count in usage.get(rate.seconds, ()) if at + width > now - rate.seconds)
            found.append(max(mails - max(rate.count - used, 0), 0) / rate.per_second)
    return max(found) + max(state.learned.paused_until - now, 0.0)


def rate_in_force(state: ScopeState, rates: Sequence[Rate]) -> float | None:
    """Mails a second on the average, as set and as learned; None without a limit."""
    rate = min([_pace(state, rates), *(each.per_second for each in rates)])
    return rate if rate < math.inf else None


def pace(state: ScopeState, rates: Sequence[Rate]) -> float | None:
    """Mails a second at most, as set and as learned; None if only longer windows limit, or nothing."""
    found = _pace(state, rates)
    return found if found < math.inf else None


def _pace(state: ScopeState, rates: Sequence[Rate]) -> float:
    paces = [float(rate.count) for rate in rates if rate.seconds == SECOND]
    learned = adaptive_rate.rate_of(state.learned)
    return min([*paces, math.inf if learned is None else learned])


def _step(now: float) -> float:
    return math.ceil(now / _STEP) * _STEP


def _burst(pace: float) -> float:
    return max(pace * _BURST_SECONDS, _LEAST_BURST)


def _slot(state: ScopeState, found: Room, held: int, now: float) -> tuple[float, float]:
    """The next free slot in the scope's queue after those `held`, and in how many seconds it is."""
    rate = found.rate if found.rate < math.inf else 10.0
    slot = min(max(state.queued_to, now + found.wait + held / rate) + 1 / rate, now + _FARTHEST)
    return slot, slot - now
