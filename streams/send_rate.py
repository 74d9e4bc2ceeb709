"""The sending rate as a worker's window uses it: asked before each claim, told of each result.

Where nothing is set, learned or paused it costs one read a second. Otherwise mails are reserved in the database, which
all workers share: `db.send_limits` locks, `streams.rate_limits` and `streams.adaptive_rate` decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from config.log_throttle import LogThrottle
from db.send_limits import Change, InForce, Locked, PutBack, SendLimits
from schemas.redaction import without_addresses
from schemas.send_limits import RateSettings, ScopeState
from schemas.send_rates import SECOND, SERVER, SendRates, parse
from schemas.send_results import Accepted, NotSent, SendResult, Throttled
from streams import adaptive_rate
from streams.observed import Shares, summed
from streams.rate_limits import Grants, bucket, given_back, grant, rates_of

log = structlog.get_logger()

#: For how long what was read is used, in seconds.
_VIEW_SECONDS: Final = 1.0
_CLEAN_UP_SECONDS: Final = 60.0
#: A mail that comes back while a scope is throttled is due within so many seconds after the pause.
_MOST_SPREAD: Final = 60.0
#: Of a reply that is kept.
_MAX_REPLY: Final = 300
_GUESSED_RATE: Final = 10.0


@dataclass(slots=True)
class _Event:
    """What happened to mails of one scope since the last transaction. `begun` in the database's time; 0: nothing."""

    throttled: float = 0.0
    reply: str = ""
    passed: float = 0.0
    answered: float = 0.0


class SendRate:
    """One per worker. Not thread-safe; `clock` is the event loop's, `jitter` returns numbers in [0, 1)."""

    def __init__(
        self,
        limits: SendLimits,
        rates: SendRates,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        longest_pause: float = adaptive_rate.LONGEST_PAUSE,
    ) -> None:
        self._limits = limits
        self._longest_pause = longest_pause
        self._environment = rates
        self._rates = rates
        self._settings: RateSettings | None = None
        self._clock = clock
        self._jitter = jitter
        #: The scopes that have learned, as last read or written.
        self._states: dict[str, ScopeState] = {}
        #: The database's clock minus ours.
        self._offset = 0.0
        self._looked_at = float("-inf")
        self._cleaned_at = float("-inf")
        self._events: dict[str, _Event] = {}
        #: Mails begun before this, in our time, are not tried any more.
        self._closed_until: dict[str, float] = {}
        self._came_back: Counter[str] = Counter()
        self._accepted = 0
        self._shares = Shares(clock)
        self._granted: dict[tuple[str, int], float] = {}
        self._granted_at = 0.0
        self._unused: list[tuple[str, int, float, int]] = []
        #: Mails by scope to give back to the pace, and when they were granted.
        self._returned: dict[str, tuple[int, float]] = {}
        self._throttle = LogThrottle(clock)

    async def reserve(self, wanted: Sequence[str]) -> Grants:
        """Asks for mails to these recipient domains, in the order of the deliveries. Grants are used at once.

        Waits while the database is away.
        """
        await self._look(bool(wanted))
        events, self._events = self._events, {}
        scopes = {scope for scope in {SERVER, *wanted} if self._is_limited(scope)}
        if not scopes and not events:
            return Grants(verdicts=[0.0] * len(wanted))
        if any(event.throttled for event in events.values()):
            await self._flush()
        unused, self._unused = self._unused, []
        returned, self._returned = self._returned, {}

        def decide(locked: Locked) -> Change[tuple[Grants, dict[str, ScopeState]]]:
            return self._decide(locked, wanted, scopes, events, unused, returned)

        grants, states = await self._limits.change(sorted(scopes | events.keys()), decide)
        self._remember(states, events)
        return grants

    def unused(self, domains: Sequence[str]) -> None:
        """Give back the grants of mails that the reservation just before let pass, and that are not sent."""
        for scope, count in Counter({SERVER: len(domains), **Counter(domains)}).items():
            self._unused += [(s, seconds, at, -count) for (s, seconds), at in self._granted.items() if s == scope]
            self._returned[scope] = (count + self._returned.get(scope, (0, 0.0))[0], self._granted_at)
            state = self._states.get(scope)
            if state is not None and state.learned.pause_seconds > 0:
                # It may have been the one that tries.
                event = self._events.setdefault(scope, _Event())
                event.answered = max(event.answered, self._now())

    def permits(self, domain: str, begun: float) -> bool:
        """Whether a mail that was begun then, in the clock's time, may still be tried: no throttling since."""
        return begun >= max(self._closed_until.get(SERVER, 0.0), self._closed_until.get(domain, 0.0))

    def observe(self, result: SendResult, domain: str, begun: float) -> None:
        """The result of a mail that was begun then."""
        match result:
            case Throttled(reply, only):
                scope = SERVER if only is None else domain
                event = self._events.setdefault(scope, _Event())
                event.throttled = max(event.throttled, begun + self._offset)
                event.reply = without_addresses(reply)[:_MAX_REPLY]
                # At once: what is queued in the sender is not tried.
                self._closed_until[scope] = max(self._closed_until.get(scope, 0.0), self._clock())
                return
            case Accepted():
                self._accepted += 1
                self._shares.count(domain)
            case NotSent():
                return
        for scope in (SERVER, domain):
            state = self._states.get(scope)
            if state is not None and state.learned.pause_seconds > 0:
                event = self._events.setdefault(scope, _Event())
                if isinstance(result, Accepted):
                    event.passed = max(event.passed, begun + self._offset)
                else:
                    event.answered = max(event.answered, begun + self._offset)

    def delay(self, domain: str) -> float:
        """In how many seconds a mail that was not tried, or throttled, is due again: after the pause, spread out."""
        scope = max((SERVER, domain), key=lambda each: self._closed_until.get(each, 0.0))
        state = self._states.get(scope)
        pause = 1.0
        rate = _GUESSED_RATE
        if state is not None:
            left = adaptive_rate.resumes_at(state.learned) - self._now()
            # Over: then this very reply begins the next one.
            pause = max(left if left > 0 else min(2 * state.learned.pause_seconds, _MOST_SPREAD), 1.0)
            rate = adaptive_rate.rate_of(state.learned) or rate
        self._came_back[scope] += 1
        return pause + min(self._came_back[scope] / rate, _MOST_SPREAD) * (0.9 + 0.2 * self._jitter())

    async def put_back(self, items: Sequence[PutBack]) -> None:
        """Make items due when their slot is likely."""
        await self._limits.put_back(items)

    async def close(self) -> None:
        """Closes the connection."""
        await self._limits.close()

    # -- inside -----------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock() + self._offset

    def _is_limited(self, scope: str) -> bool:
        if scope in self._states:
            return True
        return bool(self._rates.of_domain(scope) if scope != SERVER else self._rates.server or self._rates.warmup)

    async def _look(self, wanting: bool) -> None:
        """Reads what is in force, and counts what was accepted, once a second while mails are sent."""
        now = self._clock()
        if now - self._looked_at < _VIEW_SECONDS or not (wanting or self._accepted):
            return
        self._looked_at = now
        await self._flush()
        if now - self._cleaned_at > _CLEAN_UP_SECONDS:
            self._cleaned_at = now
            await self._limits.remove_old()
        self._view(await self._limits.in_force())

    async def _flush(self) -> None:
        accepted, self._accepted = self._accepted, 0
        if accepted:
            await self._limits.add_accepted(accepted)

    def _view(self, found: InForce) -> None:
        self._offset = found.now - self._clock()
        self._states = dict(found.states)
        for state in found.states.values():
            self._close(state)
        if found.settings == self._settings:
            return
        self._settings = found.settings
        self._rates = self._environment
        if found.settings is not None:
            try:
                self._rates = parse(found.settings.rate, found.settings.rate_domain, found.settings.warmup)
            except ValueError as error:
                log.warning("the rates in the database make no sense; those of the settings hold", cause=str(error))

    def _close(self, state: ScopeState) -> None:
        learned = state.learned
        until = learned.throttled_at
        if learned.pause_seconds > 0:
            until = max(until, learned.paused_until)
        mine = until - self._offset
        if mine > self._closed_until.get(state.scope, 0.0) + 0.5:
            self._came_back[state.scope] = 0
        # A pause that ended early opens the scope again; what was throttled meanwhile stays closed.
        self._closed_until[state.scope] = mine

    def _decide(
        self,
        locked: Locked,
        wanted: Sequence[str],
        scopes: set[str],
        events: Mapping[str, _Event],
        unused: Sequence[tuple[str, int, float, int]],
        returned: Mapping[str, tuple[int, float]],
    ) -> Change[tuple[Grants, dict[str, ScopeState]]]:
        states = dict(locked.states)
        for scope, (count, at) in returned.items():
            if scope in states:
                rates = rates_of(scope, self._rates, states[scope], locked.now)
                states[scope] = given_back(states[scope], rates, count, at)
        for scope, event in events.items():
            states[scope] = self._apply(states[scope], event, locked)
        limited = {
            scope: state
            for scope, state in states.items()
            if scope in scopes or adaptive_rate.is_learning(state.learned)
        }
        counted = {scope: dict(windows) for scope, windows in locked.usage.items()}
        for scope, seconds, at, count in unused:
            windows = counted.setdefault(scope, {})
            windows[seconds] = [*windows.get(seconds, ()), (at, count)]
        grants, granted = grant(wanted, limited, self._rates, counted, locked.now)
        states.update(granted)
        usage = list(unused)
        for scope, count in grants.counts.items():
            lengths = {rate.seconds for rate in rates_of(scope, self._rates, states[scope], locked.now)} - {SECOND}
            usage += [(scope, seconds, bucket(locked.now, seconds), count) for seconds in lengths]
        self._granted_at = locked.now
        self._granted = {(scope, seconds): at for scope, seconds, at, count in usage if count > 0}
        return Change(list(states.values()), summed(usage), (grants, states))

    def _apply(self, state: ScopeState, event: _Event, locked: Locked) -> ScopeState:
        learned = state.learned
        if event.answered:
            learned = adaptive_rate.answered(learned, begun=event.answered)
        if event.passed:
            learned = adaptive_rate.passed(learned, locked.now, begun=event.passed)
        if event.throttled:
            learned = adaptive_rate.throttled(
                learned,
                locked.now,
                begun=event.throttled,
                accepted_rate=self._accepted_rate(state.scope, locked),
                jitter=self._jitter(),
                reply=event.reply,
                longest_pause=self._longest_pause,
            )
        return replace(state, learned=learned)

    def _accepted_rate(self, scope: str, locked: Locked) -> float:
        """Mails a second that the scope took lately, of all workers; a domain's by its share of our own mails."""
        rate = locked.accepted / max(locked.accepted_seconds, 1.0)
        return rate if scope == SERVER else rate * self._shares.of(scope)

    def _remember(self, states: Mapping[str, ScopeState], events: Mapping[str, _Event]) -> None:
        """What this worker has just written, without waiting for the next look; and says what changed."""
        for scope, state in states.items():
            before = self._states.pop(scope, None)
            if adaptive_rate.is_learning(state.learned):
                self._states[scope] = state
            if scope in events:
                self._close(state)
                self._log(before, state)

    def _log(self, before: ScopeState | None, state: ScopeState) -> None:
        learned = state.learned
        of = "the mail server" if state.scope == SERVER else state.scope
        rate = adaptive_rate.rate_of(learned)
        if before is not None and before.learned.pause_seconds > 0 and learned.pause_seconds == 0:
            if self._throttle.admits(("passed", state.scope)):
                log.info("mails pass again", scope=of, per_second=rate and round(rate, 2))
        elif learned.pause_seconds > 0 and self._throttle.admits(state.scope):
            log.warning(
                "the server asks for fewer mails; sending slower",
                scope=of,
                reply=learned.reply,
                per_second=rate and round(rate, 2),
                next_try_seconds=round(max(learned.paused_until - self._now(), 0.0), 1),
            )
