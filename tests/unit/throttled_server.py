"""A simulation: workers send through a mail server that takes so many mails a second. Virtual time, no I/O."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from schemas.send_limits import ScopeState
from schemas.send_rates import SERVER, SendRates
from streams import adaptive_rate
from streams.rate_limits import grant

CONNECTIONS = 10
WINDOW = 100
VIEW_SECONDS = 1.0


@dataclass
class Server:
    """A token bucket of one second, as a provider's; `limit` may change with time, None is none."""

    limit: Callable[[float], float | None]
    tokens: float = 0.0
    at: float = 0.0
    accepted: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def takes(self, now: float, worker: int) -> bool:
        """Whether it accepts this mail."""
        limit = self.limit(now)
        if limit is not None:
            self.tokens = min(max(limit, 1.0), self.tokens + (now - self.at) * limit)
        self.at = now
        if limit is None or self.tokens >= 1:
            self.tokens -= 1 if limit is not None else 0
            self.accepted.append((now, worker))
            return True
        self.refused.append(now)
        return False


@dataclass
class Worker:
    """What one worker has in flight, and what it last saw of the shared state."""

    number: int
    seen: ScopeState = field(default_factory=lambda: ScopeState(SERVER))
    seen_at: float = -1e9
    in_flight: int = 0
    queue: deque[float] = field(default_factory=deque)
    busy: int = 0


class Simulation:
    """Runs a campaign of `mails` with `workers`; a dialogue takes `latency`, the verdict comes at its end."""

    def __init__(self, server: Server, *, mails: int, workers: int, latency: float = 0.02, seed: int = 1) -> None:
        self.server, self.latency = server, latency
        self.pending, self.accepted = mails, 0
        self.state = ScopeState(SERVER)
        self.workers = [Worker(number) for number in range(workers)]
        self.random = random.Random(seed)
        self.now = 1_000_000.0
        self.began = self.now
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.mails = mails

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Plan an event."""
        heapq.heappush(self.events, (when, next(self.order), what))

    def run(self, limit: float) -> Simulation:
        """Until all is accepted, or `limit` seconds are over."""
        for worker in self.workers:
            self.at(self.now + self.random.random() * 0.1, lambda worker=worker: self.cycle(worker))  # type: ignore[misc]
        while self.events and self.accepted < self.mails:
            when, _, what = heapq.heappop(self.events)
            if when > self.began + limit:
                break
            self.now = when
            what()
        return self

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.now - self.began

    def cycle(self, worker: Worker) -> None:
        """The window's writer: reserve, claim, submit."""
        wait = 0.01
        wanted = min(WINDOW - worker.in_flight, self.pending)
        if wanted > 0:
            if self.now - worker.seen_at > VIEW_SECONDS:
                self.look(worker)
            granted = wanted
            if adaptive_rate.is_learning(worker.seen.learned):
                grants, states = grant(["x"] * wanted, {SERVER: self.state}, SendRates(), {}, self.now)
                self.state = states[SERVER]
                self.look(worker)
                granted = grants.counts.get(SERVER, 0)
                wait = max(wait, grants.wait)
            self.pending -= granted
            worker.in_flight += granted
            worker.queue.extend([self.now] * granted)
            self.feed(worker)
        self.at(self.now + wait * self.random.uniform(1.0, 1.2), lambda: self.cycle(worker))

    def look(self, worker: Worker) -> None:
        """Read the shared state."""
        worker.seen, worker.seen_at = self.state, self.now

    def feed(self, worker: Worker) -> None:
        """Mails that wait go to free connections; while paused they come back without a dialogue."""
        while worker.queue and worker.busy < CONNECTIONS:
            submitted = worker.queue.popleft()
            learned = worker.seen.learned
            if submitted <= learned.throttled_at and learned.pause_seconds > 0:
                worker.in_flight -= 1
                self.pending += 1
                continue
            worker.busy += 1
            self.at(self.now + self.latency, lambda begun=submitted: self.ended(worker, begun))  # type: ignore[misc]

    def ended(self, worker: Worker, begun: float) -> None:
        """The verdict about one mail."""
        worker.busy -= 1
        worker.in_flight -= 1
        learned = self.state.learned
        if self.server.takes(self.now, worker.number):
            self.accepted += 1
            learned = adaptive_rate.passed(learned, self.now, begun=begun)
        else:
            self.pending += 1
            learned = adaptive_rate.throttled(
                learned,
                self.now,
                begun=begun,
                accepted_rate=self.measured(worker),
                jitter=self.random.random(),
                reply="454",
            )
            self.look(worker)
        if learned != self.state.learned:
            self.state = replace(self.state, learned=learned)
            self.look(worker)
        self.feed(worker)

    def measured(self, asking: Worker) -> float:
        """Accepted a second in the last 10 s. Of the others, what they have written: they do so once a second."""
        recent = itertools.takewhile(lambda each: each[0] > self.now - 10, reversed(self.server.accepted))
        known = [at for at, n in recent if n == asking.number or at < self.workers[n].seen_at]
        return len(known) / max(self.now - known[-1], 1.0) if known else 0.0
