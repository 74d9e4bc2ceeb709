"""What a consumer has read and not yet processed, by partition: each poll takes the oldest messages of all of them.

A fetch brings a long run of one partition after another. Processed in that order, the members whom a batch has put
together in the ledger (`plan_items`) would come apart: each page of the ledger would be read, written and pruned once
for each partition, for a few rows each time. Oldest first, they are claimed together again.

Half of each poll is shared out evenly: a partition that is far behind, or has messages from the future, delays no
other. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import Final

from streams.records import Record


class ReadAhead:
    """For one consumer, and its thread. The records of a partition leave in the order in which they came."""

    def __init__(self) -> None:
        self._queues: Final[dict[int, deque[Record]]] = {}

    def __len__(self) -> int:
        """How many records wait."""
        return sum(map(len, self._queues.values()))

    def add(self, records: Iterable[Record]) -> None:
        """Append what the consumer has read, in its order."""
        for record in records:
            self._queues.setdefault(record.partition, deque()).append(record)

    def take(self, limit: int) -> list[Record]:
        """Remove and return at most so many."""
        waiting = {partition: queue for partition, queue in self._queues.items() if queue}
        taken: list[Record] = []
        for queue in waiting.values():
            share = min(len(queue), limit // (2 * len(waiting)))
            taken += [queue.popleft() for _ in range(share)]
        # What was published in the same millisecond: one of each partition in turn.
        oldest = [(_age(queue), 0, partition) for partition, queue in waiting.items() if queue]
        heapify(oldest)
        while oldest and len(taken) < limit:
            _, turn, partition = oldest[0]
            queue = waiting[partition]
            taken.append(queue.popleft())
            if queue:
                heapreplace(oldest, (_age(queue), turn + 1, partition))
            else:
                heappop(oldest)
        return taken

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget what was read of these: the consumer begins them again, or another one does."""
        for partition in partitions:
            self._queues.pop(partition, None)


def _age(queue: deque[Record]) -> int:
    return queue[0].timestamp or 0
