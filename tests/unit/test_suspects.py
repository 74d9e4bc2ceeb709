"""Which message is blamed for the end of a worker: a worker's record of what it had begun, read by the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from db.suspects import Begun, DeadRange, Known, Range
from schemas.errors import NoProgressError, StoppingError
from schemas.keys import DeliveryKey
from schemas.message import encode_fast, key_of
from schemas.vocabulary import Role
from streams import suspects
from streams.records import InvalidRecord, Record, no_headers
from streams.suspects import Suspects, is_in, ranges_of

DEADLY = 13


class Ended(BaseException):
    """What ends a process, for a test that goes on."""


class Notes:
    """The tables in memory, as `db.suspects` has them; the worker that wrote them has ended with it."""

    def __init__(self) -> None:
        self.polls: dict[int, tuple[Range, int]] = {}
        self.ends: dict[tuple[int, int], int] = {}
        self.marked: set[tuple[int, int]] = set()
        self.dead: list[DeadRange] = []
        self.ids = 0

    def worker_ends(self) -> None:
        self.dead += [DeadRange(*found, ends + 1) for found, ends in self.polls.values()]
        self.polls.clear()
        for place in self.marked:
            self.ends[place] += 1
        self.marked.clear()

    async def begin(self, ranges: Sequence[Range], finished: Sequence[int]) -> Begun:
        for done in finished:
            del self.polls[done]
        ids = []
        dead, self.dead = self.dead, []
        for found in ranges:
            self.ids += 1
            ids.append(self.ids)
            self.polls[self.ids] = (found, max((r.ends for r in dead), default=0))
        return Begun(ids, dead)

    async def known(self, ranges: Sequence[Range]) -> dict[tuple[int, int], Known]:
        return {place: Known(ends, 5) for place, ends in self.ends.items()}

    async def mark(self, partition: int, offset: int, timestamp: int) -> None:
        assert timestamp == 5
        self.ends.setdefault((partition, offset), 1)
        self.marked.add((partition, offset))

    async def release(self, partition: int, offset: int) -> None:
        self.marked.discard((partition, offset))

    async def clear(self, partition: int, offset: int) -> None:
        del self.ends[partition, offset]
        self.marked.discard((partition, offset))

    async def close(self, *, clean: bool) -> None:
        if clean:
            self.polls.clear()


class Letters:
    """The dead letters."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    async def put(self, invalid: Sequence[InvalidRecord]) -> None:
        self.reasons |= {letter.record.offset: letter.reason for letter in invalid}


def record(offset: int) -> Record:
    member = 1000 + offset
    return Record("t", 0, offset, key_of(member), encode_fast(1, 2, member, "invite", ["Student"]), no_headers, 5)


RECORDS = [record(offset) for offset in range(20)]


class Worker:
    """Workers, one after the other, on the same notes. The mail of one message cannot be composed, or not be sent."""

    def __init__(self, max_ends: int = 3, *, composes: bool = False) -> None:
        self.notes, self.letters = Notes(), Letters()
        self.max_ends = max_ends
        self.composes = composes
        self.sent: list[int] = []
        self.suspects: Suspects

    def run(self) -> str:
        async def main() -> None:
            self.suspects = Suspects(self.notes, self.letters, max_ends=self.max_ends)
            await self.suspects.process(RECORDS, self.process, self.probe)
            await self.suspects.close()

        try:
            asyncio.run(main())
        except Ended:
            self.notes.worker_ends()
            return "ended"
        return "done"

    async def probe(self, found: Record) -> None:
        assert found.key is not None
        key = DeliveryKey(2, "invite", int(found.key), "Student")
        self.suspects.guarded(self.compose)(None, Role.STUDENT, None, key)  # type: ignore[arg-type] # not read

    def compose(self, event: Any, role: Any, recipient: Any, key: DeliveryKey) -> Any:
        if key.member_id == 1000 + DEADLY and not self.composes:
            raise Ended

    async def process(self, records: Sequence[Record]) -> None:
        # As the pipeline does: all are composed before the first is sent.
        for found in records:
            await self.probe(found)
        for found in records:
            if found.offset == DEADLY and self.composes and not self.letters.reasons:
                raise Ended
            self.sent.append(found.offset)


@pytest.mark.parametrize("most", [2, 3, 5])
def test_a_message_that_ends_its_worker(most: int) -> None:
    """FM-41: so many ends and no more; then its letter is written, no mail is composed, and the others are done."""
    worker = Worker(most)
    assert [worker.run() for _ in range(most + 1)] == ["ended"] * most + ["done"]
    assert worker.letters.reasons == {DEADLY: f"its message ended its worker {most} times"}
    assert sorted(worker.sent) == list(range(20)), "none twice; of the condemned one it is recorded that it failed"
    assert not worker.notes.ends


def test_a_message_that_ends_its_worker_while_it_is_sent() -> None:
    """FM-41: trying it does not find it; after some more ends each message is sent alone, and then it is named."""
    worker = Worker(composes=True)
    ends = 0
    while worker.run() == "ended":
        ends += 1
        assert ends < 10
    assert ends == 6, "four that nothing explained, and two that named it"
    assert list(worker.letters.reasons) == [DEADLY]


def test_ends_from_outside_condemn_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-41: twenty workers, each killed while it waits for a server: no message has more than one end."""
    monkeypatch.setattr(suspects, "MARKED_SECONDS", 0.01)
    worker = Worker()

    async def killed_while_it_waits(records: object) -> None:
        await asyncio.sleep(0.05)
        raise Ended

    monkeypatch.setattr(worker, "process", killed_while_it_waits)
    monkeypatch.setattr(worker, "probe", killed_while_it_waits)
    assert [worker.run() for _ in range(20)] == ["ended"] * 20
    assert set(worker.notes.ends.values()) == {1}
    assert worker.letters.reasons == {}


def test_stopping_and_an_unwritable_letter_are_no_message_s_fault() -> None:
    """FM-41: a stop in good order and a worker that waited in vain leave no suspects; an error does."""
    for error, leaves in ((StoppingError(), False), (NoProgressError("x"), False), (ValueError("x"), True)):
        notes = Notes()

        async def main(error: Exception = error, notes: Notes = notes) -> None:
            guard = Suspects(notes, Letters(), max_ends=3)

            async def fails(records: object) -> None:
                raise error

            with pytest.raises(type(error)):
                await guard.process(RECORDS, fails, fails)
            await guard.close()
            with pytest.raises(StoppingError):
                await guard.process(RECORDS, fails, fails)

        asyncio.run(main())
        assert bool(notes.polls) == leaves, error


def test_ranges() -> None:
    """A poll is noted as one range for each partition."""
    records = [Record("t", p, o, None, None) for p, o in ((1, 7), (0, 3), (1, 9), (0, 4))]
    assert ranges_of(records) == [Range(0, 3, 4), Range(1, 7, 9)]
    assert [is_in(found, [Range(1, 8, 10)]) for found in records] == [False, False, True, False]
