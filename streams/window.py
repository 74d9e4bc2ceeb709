"""The window: one writer per worker that records outcomes and claims the deliveries that come next.

At most `size` deliveries are claimed and not recorded at any moment, so that is what a kill can leave unknown. The
writer alone writes to the ledger; each of its commits serves dozens of mails. Nothing here knows a stream library.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from config import crash_points
from config.clock import elapsed
from config.crash_points import CrashPoint
from config.log_throttle import LogThrottle
from config.metrics import IN_FLIGHT, WAITING, WINDOW
from db.ledger import Ledger
from mail.sender import Sender
from schemas.delivery import Cycle, CycleResult, Delivery
from schemas.envelope import Unmailable
from schemas.keys import DeliveryKey
from schemas.send_results import Lapsed, NotSent, Refused, SendResult
from streams.attempt import Attempt
from streams.breaker import Breaker
from streams.claim_log import ClaimLog, NoClaimLog, UnwrittenClaims
from streams.composer import Composer, compose
from streams.journal import Journal, NoJournal
from streams.latch import Latch
from streams.lease_clocks import LOST, LeaseClocks
from streams.policy import RetryPolicy, decide
from streams.rate_gate import RateGate
from streams.records import Heartbeat
from streams.refused_by_all import RefusedByAll
from streams.send_rate import SendRate
from streams.watchdog import LIMIT_SECONDS

log = structlog.get_logger()

#: How long outcomes wait for others to share their commit, in seconds; and how much of the window is enough. Half and
#: 4 ms cost a ninth more CPU time, of all servers together; four fifths are slower (ADR 55).
_LINGER_SECONDS: Final = 0.010
_ENOUGH: Final = 0.7


class Window:
    """One per worker. `run` is its only task; every other method is called from the same event loop."""

    def __init__(
        self,
        ledger: Ledger,
        sender: Sender,
        policy: RetryPolicy,
        *,
        owner: str,
        size: int,
        lease_seconds: float,
        composer: Composer,
        jitter: Callable[[], float],
        heartbeat: Heartbeat,
        clock: Callable[[], float] = elapsed,
        rate: SendRate | None = None,
        journal: Journal | None = None,
        claim_log: ClaimLog | None = None,
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._policy = policy
        self._owner = owner
        self._size = size
        self._enough_outcomes = size * _ENOUGH
        self._lease = lease_seconds
        self._clock = clock
        # Renewing also beats the heartbeat while every connection waits for a slow server.
        self._renew_after = min(lease_seconds / 3, LIMIT_SECONDS / 2)
        self._journal = journal or NoJournal()
        self._unwritten = UnwrittenClaims(claim_log or NoClaimLog(), self._send, self._complete)
        self._composer = composer
        self._jitter = jitter
        self._heartbeat = heartbeat
        self._waiting: deque[Delivery] = deque()
        self._in_flight: dict[DeliveryKey, Delivery] = {}
        #: Deliveries of other batches for a key that is in flight: each waits until that one is recorded.
        self._repeats: dict[DeliveryKey, list[Delivery]] = {}
        self._unrecorded: list[Delivery] = []
        self._latches: dict[Delivery, Latch] = {}
        self._changed = asyncio.Event()
        self._enough = asyncio.Event()
        self._stopping = False
        self._claims = True
        self._cycles = 0
        self._throttle = LogThrottle(asyncio.get_running_loop().time)
        self._breaker = Breaker(sender, heartbeat, self._throttle, self._changed.set)
        self._clocks = LeaseClocks(lease_seconds)
        self._refused_by_all = RefusedByAll()
        self._gate = RateGate(rate, asyncio.get_running_loop().time)
        WINDOW.set(size)
        # Read at a scrape: nothing is counted for it.
        IN_FLIGHT.set_function(lambda: len(self._in_flight))
        WAITING.set_function(lambda: len(self._waiting))

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Returns when each delivery is settled or due again. StoppingError when the worker stops before."""
        latch = Latch(len(deliveries))
        if self._stopping:
            latch.abandon()
        else:
            self._latches.update(dict.fromkeys(deliveries, latch))
            self._waiting.extend(deliveries)
            self._changed.set()
        await latch.wait()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight is recorded."""
        self._stopping = True
        for delivery in self._waiting:
            self._latches.pop(delivery).abandon()
        self._waiting.clear()
        for repeats in self._repeats.values():
            for delivery in repeats:
                self._latches.pop(delivery).abandon()
        self._repeats.clear()
        self._breaker.cancel()
        self._unwritten.stop()
        self._changed.set()
        self._enough.set()

    def stop_claiming(self) -> None:
        """The process is about to end. From any thread, as the two below."""
        self._claims = False

    def outcomes(self) -> list[Delivery]:
        """The deliveries in flight whose outcome is known: recorded a moment ago, or not yet."""
        return [delivery for delivery in list(self._in_flight.values()) if delivery.outcome is not None]

    def in_doubt(self) -> int:
        """How many deliveries in flight have no outcome yet."""
        return sum(delivery.outcome is None for delivery in list(self._in_flight.values()))

    async def run(self) -> None:
        """The writer. Returns after `stop`, once nothing is in flight; a bug or a broken database ends it."""
        try:
            while True:
                await self._until_a_commit_pays()
                if self._is_done():
                    return
                await self._run_cycle()
        finally:
            # After an error nothing may wait for what will not be recorded any more.
            self._stopping = True
            for latch in self._latches.values():
                latch.abandon()

    def _is_done(self) -> bool:
        return self._stopping and not self._in_flight

    async def _until_a_commit_pays(self) -> None:
        """Until there is something to record or claim, or a lease to renew; lingers a little for more."""
        while True:
            self._changed.clear()
            # Read once: what is closed here must also be waited for.
            closed_for = self._gate.seconds_to_open()
            if self._unrecorded or (self._waiting and not closed_for and self._room()) or self._is_done():
                break
            try:
                async with asyncio.timeout(self._longest_wait(closed_for)):
                    await self._changed.wait()
            except TimeoutError:
                if self._due_for_renewal():
                    return
                if closed_for and not self._in_flight:
                    # It waits for the sending rate, which is no stall.
                    self._heartbeat.beat()
        sending = len(self._in_flight) - len(self._unrecorded)
        if (
            sending
            and len(self._unrecorded) < self._enough_outcomes
            and not (self._waiting and sending * 4 < self._size)
        ):
            # Linger while mails are being sent, so that more outcomes share this commit. Not when so few are being sent
            # that connections would idle: then what waits is claimed at once.
            self._enough.clear()
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                pass

    def _longest_wait(self, closed_for: float) -> float | None:
        """Until a lease may be due for renewal, or the sending rate lets mails pass in so many seconds."""
        waits = [self._renew_after / 2] if self._in_flight else []
        if self._waiting and closed_for:
            waits.append(closed_for)
        return min(waits, default=None)

    def _room(self) -> int:
        """How many may be claimed now: what is claimed should be sent at once, not wait while its lease runs."""
        if self._stopping or not self._claims or self._breaker.is_open or self._gate.seconds_to_open():
            return 0
        sending = len(self._in_flight) - len(self._unrecorded)
        return min(self._size - sending, self._sender.capacity() - len(self._unwritten))

    def _due_for_renewal(self) -> list[Delivery]:
        """What was not renewed once is not its worker's any more: it is not asked for again."""
        before = self._clock() - self._renew_after
        return [d for d in self._in_flight.values() if d.leased_at.before < before and d.deadline > LOST]

    def _next_to_claim(self) -> list[Delivery]:
        """As many of those that wait as there is room for, each key once."""
        room = self._room()
        requested: dict[DeliveryKey, Delivery] = {}
        while self._waiting and len(requested) < room:
            delivery = self._waiting.popleft()
            key = delivery.key
            if key in self._in_flight or key in requested:
                self._repeats.setdefault(key, []).append(delivery)
            else:
                requested[key] = delivery
        return list(requested.values())

    async def _run_cycle(self) -> None:
        requested = await self._admitted(self._next_to_claim())
        completed, self._unrecorded = self._unrecorded, []
        renewed = [delivery for delivery in self._due_for_renewal() if delivery.outcome is None]
        if not (requested or completed or renewed):
            self._heartbeat.beat()
            return
        self._cycles += 1
        if completed:
            crash_points.reach(CrashPoint.OUTCOME_BEGUN)
        owner = f"{self._owner}#{self._cycles}"
        done = await self._ledger.run_cycle(Cycle(owner, completed, requested, renewed))
        self._heartbeat.beat()
        if completed:
            crash_points.reach(CrashPoint.OUTCOME_COMMITTED)
        if done.claimed:
            crash_points.reach(CrashPoint.CLAIM_COMMITTED)
        self._limit_claims(done, renewed)
        claims = set(done.claimed)
        unclaimed = [delivery for delivery in requested if delivery not in claims]
        self._gate.not_claimed(unclaimed)
        self._journal.recorded([*completed, *unclaimed])
        for delivery in completed:
            del self._in_flight[delivery.key]
            self._conclude(delivery)
        for delivery in done.claimed:
            self._in_flight[delivery.key] = delivery
        for delivery in unclaimed:
            self._conclude(delivery)
        if done.claimed:
            self._unwritten.write(owner, done.claimed)

    async def _admitted(self, next_to_claim: Sequence[Delivery]) -> Sequence[Delivery]:
        """What the sending rate lets pass of these; the rest goes on waiting, or is due again when its slot comes."""
        admission = await self._gate.admit(next_to_claim)
        if self._stopping:
            for delivery in admission.waiting:
                self._latches.pop(delivery).abandon()
        else:
            self._waiting.extendleft(reversed(admission.waiting))
        for delivery in admission.put_back:
            self._conclude(delivery)
        return admission.granted

    def _limit_claims(self, done: CycleResult, renewed: Sequence[Delivery]) -> None:
        """Until when each claim permits sending; what was not renewed may not be sent from now on."""
        lost = [delivery for delivery in renewed if delivery.key not in done.renewed]
        for delivery in lost:
            delivery.deadline = LOST
        held = [delivery for delivery in renewed if delivery.deadline > LOST]
        ahead = self._clocks.limit(done.clocks, [*done.claimed, *held], self._in_flight.values())
        if lost and self._throttle.admits("lost"):
            log.warning("claims ended before their leases were renewed; what is unsent stays so", deliveries=len(lost))
        if ahead and self._throttle.admits("clock"):
            log.warning("the clock of PostgreSQL runs ahead or was set; claims are shortened", seconds=round(ahead, 3))

    def _conclude(self, delivery: Delivery) -> None:
        """It is settled or due again; the next one for the same key may be claimed."""
        self._latches.pop(delivery).count_down()
        repeats = self._repeats.pop(delivery.key, None)
        if repeats:
            self._waiting.extendleft(reversed(repeats))

    def _send(self, delivery: Delivery) -> None:
        envelope = compose(self._composer, delivery)
        if isinstance(envelope, Unmailable):
            self._complete(delivery, Refused(envelope.reason, permanent=True))
        else:
            self._gate.begin(delivery)
            attempt = Attempt(delivery, self._gate, self._clock, self._journal, self._complete)
            self._sender.submit(envelope, attempt.done, attempt.permitted, attempt.completing)

    def _complete(self, delivery: Delivery, result: SendResult) -> None:
        if isinstance(result, Lapsed) and self._clock() >= delivery.deadline and self._throttle.admits("lapsed"):
            log.warning("a claim ended before its mail could be sent; it was not sent, and is due again")
        result = self._refused_by_all.judge(result, delivery.key, delivery.refused_for, self._clock())
        outcome = decide(result, delivery.attempts, self._policy, self._jitter(), delivery.refused_for)
        delivery.outcome = self._gate.end(delivery, result, outcome)
        self._journal.answered(delivery)
        self._unrecorded.append(delivery)
        if isinstance(result, NotSent) and not self._stopping:
            self._breaker.open(result.reason)
        self._changed.set()
        if len(self._unrecorded) >= self._enough_outcomes or len(self._unrecorded) == len(self._in_flight):
            self._enough.set()
