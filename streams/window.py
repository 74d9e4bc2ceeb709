"""The hand-over window: one writer per worker that records what finished and marks what comes next.

At most `size` mails are marked and not recorded at any moment, so that is what a kill can leave in doubt. The
writer alone speaks to the ledger; each of its commits serves dozens of mails. Nothing here knows a stream library.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from config import crash_points
from config.crash_points import CrashPoint
from db.ledger import Finished, Ledger, Mark, Wanted
from mail.envelope import Envelope, Unmailable
from mail.sender import Sender
from schemas.keys import DeliveryKey
from schemas.send_results import NotSent, Refused, SendResult
from streams.policy import RetryPolicy, decide
from streams.records import Heartbeat, StoppingError
from streams.watchdog import LIMIT_SECONDS

log = structlog.get_logger()

#: How long finished mails may wait for others to share their commit, in seconds.
_GATHER_SECONDS: Final = 0.004
#: How often at most the log says that the mail server takes no mails, in seconds.
_SAY_AGAIN_SECONDS: Final = 30.0


class Ticket:
    """Counts down the mails of one take; `wait` returns when all are concluded, or raises StoppingError."""

    def __init__(self, mails: int) -> None:
        self._open = mails
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not mails:
            self._done.set_result(None)

    def count_down(self) -> None:
        """One mail of the take is settled or due again."""
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)

    def abandon(self) -> None:
        """The worker stops before the take is done."""
        if not self._done.done():
            self._done.set_exception(StoppingError())

    async def wait(self) -> None:
        """Until the take is done."""
        await self._done


@dataclass(frozen=True, slots=True)
class Mail:
    """A delivery with what would be sent for it."""

    wanted: Wanted
    envelope: Envelope | Unmailable


@dataclass(slots=True)
class _InFlight:
    mail: Mail
    ticket: Ticket
    mark: Mark
    leased_at: float


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
        jitter: Callable[[], float],
        heartbeat: Heartbeat,
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._policy = policy
        self._owner = owner
        self._size = size
        # Also what tells the watchdog, while all connections wait for a slow server, that the worker lives.
        self._renew_after = min(lease_seconds / 3, LIMIT_SECONDS / 2)
        self._jitter = jitter
        self._heartbeat = heartbeat
        self._waiting: deque[tuple[Mail, Ticket]] = deque()
        self._in_flight: dict[DeliveryKey, _InFlight] = {}
        self._repeats: dict[DeliveryKey, list[tuple[Mail, Ticket]]] = {}
        self._finished: list[Finished] = []
        self._open: set[Ticket] = set()
        self._changed = asyncio.Event()
        self._gathered = asyncio.Event()
        self._stopping = False
        self._gate: asyncio.Task[None] | None = None
        self._cycle = 0
        self._say_after = 0.0

    async def hand_over(self, mails: Sequence[Mail]) -> None:
        """Returns when each mail is settled or due again. StoppingError when the worker stops before."""
        ticket = Ticket(len(mails))
        if self._stopping:
            ticket.abandon()
        else:
            self._waiting.extend((mail, ticket) for mail in mails)
            self._changed.set()
        self._open.add(ticket)
        try:
            await ticket.wait()
        finally:
            self._open.discard(ticket)

    def stop(self) -> None:
        """Mark nothing more; `run` returns when what is in flight is recorded."""
        self._stopping = True
        for _, ticket in self._waiting:
            ticket.abandon()
        self._waiting.clear()
        for repeats in self._repeats.values():
            for _, ticket in repeats:
                ticket.abandon()
        self._repeats.clear()
        if self._gate is not None:
            self._gate.cancel()
        self._changed.set()
        self._gathered.set()

    async def run(self) -> None:
        """The writer. Returns after `stop`, once nothing is in flight; a bug or a broken database ends it."""
        try:
            while True:
                await self._worth_a_commit()
                if self._is_done():
                    return
                await self._advance()
        finally:
            # If it broke: nobody may wait for what will not be recorded any more.
            self._stopping = True
            for ticket in self._open:
                ticket.abandon()

    def _is_done(self) -> bool:
        return self._stopping and not self._in_flight

    async def _worth_a_commit(self) -> None:
        """Until there is something to record or mark, gathered a little, or a lease to renew."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._finished or (self._waiting and self._room()) or self._is_done():
                break
            try:
                async with asyncio.timeout(self._renew_after / 2 if self._in_flight else None):
                    await self._changed.wait()
            except TimeoutError:
                if self._held(loop.time()):
                    return
        sending = len(self._in_flight) - len(self._finished)
        if sending and len(self._finished) * 2 < self._size and not (self._waiting and sending * 4 < self._size):
            # Others are about to finish: let them share this commit.
            self._gathered.clear()
            try:
                async with asyncio.timeout(_GATHER_SECONDS):
                    await self._gathered.wait()
            except TimeoutError:
                pass

    def _room(self) -> int:
        if self._stopping or self._gate is not None:
            return 0
        return self._size - (len(self._in_flight) - len(self._finished))

    def _held(self, now: float) -> list[_InFlight]:
        return [flight for flight in self._in_flight.values() if now - flight.leased_at > self._renew_after]

    async def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        room = self._room()
        finished, self._finished = self._finished, []
        recorded = {f.wanted.key for f in finished}
        wanted: dict[DeliveryKey, tuple[Mail, Ticket]] = {}
        while self._waiting and len(wanted) < room:
            mail, ticket = self._waiting.popleft()
            key = mail.wanted.key
            if key in self._in_flight or key in wanted:
                # Another batch's message for the same key: its turn comes when this one is recorded.
                self._repeats.setdefault(key, []).append((mail, ticket))
            else:
                wanted[key] = (mail, ticket)
        now = loop.time()
        held = [flight for flight in self._held(now) if flight.mail.wanted.key not in recorded]
        self._cycle += 1
        if finished:
            crash_points.reach(CrashPoint.RECORD_BEGUN)
        marks = await self._ledger.advance(
            f"{self._owner}#{self._cycle}",
            finished,
            [mail.wanted for mail, _ in wanted.values()],
            [(flight.mail.wanted, flight.mark.fence) for flight in held],
        )
        self._heartbeat.beat()
        if finished:
            crash_points.reach(CrashPoint.RECORD_COMMITTED)
        if marks:
            crash_points.reach(CrashPoint.MARK_COMMITTED)
        for flight in held:
            flight.leased_at = now
        for f in finished:
            flight = self._in_flight.pop(f.wanted.key)
            flight.ticket.count_down()
            self._release(f.wanted.key)
        for key, (mail, ticket) in wanted.items():
            mark = marks.get(key)
            if mark is None:
                ticket.count_down()
                self._release(key)
            else:
                self._in_flight[key] = _InFlight(mail, ticket, mark, now)
                self._submit(key, mail)

    def _release(self, key: DeliveryKey) -> None:
        repeats = self._repeats.pop(key, None)
        if repeats:
            self._waiting.extendleft(reversed(repeats))

    def _submit(self, key: DeliveryKey, mail: Mail) -> None:
        if isinstance(mail.envelope, Unmailable):
            self._finish(key, Refused(mail.envelope.reason, permanent=True))
        else:
            self._sender.submit(mail.envelope, lambda hand_over: self._finish(key, hand_over))

    def _finish(self, key: DeliveryKey, hand_over: SendResult) -> None:
        flight = self._in_flight[key]
        outcome = decide(hand_over, flight.mark.attempts, self._policy, self._jitter())
        self._finished.append(Finished(flight.mail.wanted, flight.mark.fence, outcome))
        if isinstance(hand_over, NotSent) and self._gate is None and not self._stopping:
            self._gate = asyncio.get_running_loop().create_task(self._wait_for_sender(hand_over.reason))
        self._changed.set()
        if len(self._finished) * 2 >= self._size or len(self._finished) == len(self._in_flight):
            self._gathered.set()

    async def _wait_for_sender(self, reason: str) -> None:
        """While the mail server is away nothing is marked: an outage sets aside a window, not a batch."""
        now = asyncio.get_running_loop().time()
        if now >= self._say_after:
            # A server that is busy says so on each connection.
            self._say_after = now + _SAY_AGAIN_SECONDS
            log.warning("the mail server did not take a mail; nothing is handed over until it answers", cause=reason)
        waiting = asyncio.ensure_future(self._sender.ready())
        try:
            while not waiting.done():
                self._heartbeat.beat()
                await asyncio.wait({waiting}, timeout=1.0)
            waiting.result()
        finally:
            waiting.cancel()
            self._gate = None
            self._changed.set()
