"""Finds the message that ends its worker, and makes it a dead letter before it ends every worker in turn.

Each poll is noted in the database before it is processed. What a worker that has ended left there is suspect: its
messages are tried one at a time (decoded, looked up, composed), each marked before and cleared after, so that the next
end names the one it was; then they are processed together as usual. If workers go on ending with the same messages,
they are processed alone to the end. A message with as many ends as the setting allows goes to the dead-letter topic,
and its deliveries fail with that reason, so that its batch completes.

What ends a worker from outside (a kill, a deployment, a rebalance) costs its messages this care and no more: a mark
holds for as long as the message keeps the event loop, or a second. A message that waits for a server is not marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from db.suspects import Begun, DeadRange, Known, Range
from schemas.envelope import Envelope, Unmailable
from schemas.errors import BiddenError, StoppingError
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.message import UndecodableError, decode
from schemas.vocabulary import Role
from streams.composer import Composer
from streams.records import DeadLetterSink, InvalidRecord, Record

log = structlog.get_logger()

#: How long a message that does not keep the event loop is held to be what may end the worker.
MARKED_SECONDS: Final = 1.0

Process = Callable[[Sequence[Record]], Awaitable[None]]
Probe = Callable[[Record], Awaitable[None]]
Place = tuple[int, int]


class PollLog(Protocol):
    """Where polls and suspects are noted; see `db.suspects`."""

    async def begin(self, ranges: Sequence[Range], finished: Sequence[int]) -> Begun: ...
    async def known(self, ranges: Sequence[Range]) -> dict[Place, Known]: ...
    async def mark(self, partition: int, offset: int, timestamp: int) -> None: ...
    async def release(self, partition: int, offset: int) -> None: ...
    async def clear(self, partition: int, offset: int) -> None: ...
    async def close(self, *, clean: bool) -> None: ...


class Suspects:
    """Stands between a runner and the pipeline. All methods are called from the worker's event loop."""

    def __init__(self, polls: PollLog, dead_letters: DeadLetterSink, *, max_ends: int) -> None:
        self._polls = polls
        self._dead_letters = dead_letters
        self._max_ends = max_ends
        self._finished: list[int] = []
        self._one_at_a_time = asyncio.Lock()
        #: By event and member: why no mail is composed.
        self._condemned: dict[tuple[int, int], str] = {}
        self._failed = False
        self._closed = False

    def guarded(self, composer: Composer) -> Composer:
        """The composer, except that it composes nothing for a condemned message."""

        def compose(event: EventDetails, role: Role, recipient: Recipient, key: DeliveryKey) -> Envelope | Unmailable:
            reason = self._condemned.get((key.event_id, key.member_id))
            return composer(event, role, recipient, key) if reason is None else Unmailable(reason)

        return compose

    async def process(self, records: Sequence[Record], process: Process, probe: Probe) -> None:
        """`process` the records of one poll, after a `probe` of each suspect among them. Raises what they raise."""
        self._refuse_when_closed()
        begun = await self._polls.begin(ranges_of(records), self._take_finished())
        try:
            if begun.dead:
                others = [record for record in records if not is_in(record, begun.dead)]
                if others:
                    await process(others)
                async with self._one_at_a_time:
                    suspects = [record for record in records if is_in(record, begun.dead)]
                    await self._process_suspects(suspects, process, probe, max(found.ends for found in begun.dead))
            else:
                await process(records)
        except (StoppingError, BiddenError):
            # The worker stops, or waits in vain for a server: no message's fault.
            raise
        except Exception:
            self._failed = True
            raise
        self._finished += begun.ids

    def worker_failed(self) -> None:
        """An error ended the worker: what it has is suspect."""
        self._failed = True

    async def close(self) -> None:
        """Removes what was noted, unless an error ended the worker."""
        self._closed = True
        await self._polls.close(clean=not self._failed)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoppingError

    def _take_finished(self) -> list[int]:
        finished, self._finished = self._finished, []
        return finished

    async def _process_suspects(
        self, records: Sequence[Record], process: Process, probe: Probe, ends_of_range: int
    ) -> None:
        # By now trying them would have found the cause.
        alone = ends_of_range > self._max_ends
        log.info("a worker ended with these messages; trying each of them", messages=len(records), alone=alone)
        known = await self._polls.known(ranges_of(records))
        together: list[Record] = []
        condemned: list[Record] = []
        for record in records:
            self._refuse_when_closed()
            found = known.get((record.partition, record.offset))
            # Another timestamp: of a topic that was made again.
            ends = found.ends if found is not None and found.timestamp == (record.timestamp or 0) else 1
            if ends < self._max_ends:
                await self._try(record, partial(process, [record]) if alone else partial(probe, record))
                if not alone:
                    together.append(record)
            elif await self._condemn(record, ends):
                condemned.append(record)
        try:
            for record in condemned:
                await self._try(record, partial(process, [record]))
        finally:
            self._condemned.clear()
        if together:
            await process(together)

    async def _try(self, record: Record, begin: Callable[[], Awaitable[None]]) -> None:
        """Awaits what `begin` begins. The record is marked for as long as it keeps the event loop, or a second."""
        place = (record.partition, record.offset)
        await self._polls.mark(*place, record.timestamp or 0)
        task = asyncio.ensure_future(begin())
        await asyncio.wait({task}, timeout=MARKED_SECONDS)
        if not task.done():
            await self._polls.release(*place)
        await task
        await self._polls.clear(*place)

    async def _condemn(self, record: Record, ends: int) -> bool:
        """The dead letter of a message that ended too many workers; whether its item can be settled."""
        reason = f"its message ended its worker {ends} times"
        await self._dead_letters.put([InvalidRecord(record, reason)])
        whom = _whom(record)
        if whom is None or ends > self._max_ends:
            # Not even that much may be tried.
            return False
        self._condemned[whom] = reason
        return True


def ranges_of(records: Sequence[Record]) -> list[Range]:
    """What the records take of each partition. Pure."""
    found: dict[int, tuple[int, int]] = {}
    for record in records:
        first, last = found.get(record.partition, (record.offset, record.offset))
        found[record.partition] = (min(first, record.offset), max(last, record.offset))
    return [Range(partition, first, last) for partition, (first, last) in sorted(found.items())]


def is_in(record: Record, ranges: Sequence[Range | DeadRange]) -> bool:
    """Whether one of the ranges has the record. Pure."""
    return any(r.partition == record.partition and r.first <= record.offset <= r.last for r in ranges)


def _whom(record: Record) -> tuple[int, int] | None:
    """The event and the member of a message, if it says so."""
    try:
        message = decode(record.key, record.value)
    except UndecodableError:
        return None
    return message.event_id, message.member_id
