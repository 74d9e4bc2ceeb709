"""What a runner feeds the steps, and the ports that the steps are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it came from the broker, undecoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A message that can never be processed, and why."""

    record: Record
    reason: str


class DeadLetterSink(Protocol):
    """Where poison goes."""

    async def put(self, letters: Sequence[InvalidRecord]) -> None:
        """Returns once the broker has acknowledged them all; waits out an outage, and a topic that is not there."""
        ...


class StoppingError(Exception):
    """The worker stops: the take was not finished and must not be acknowledged. Nobody's failure (FM-13)."""


class Heartbeat:
    """The time of the last sign of progress, for the watchdog. Touched from the event loop, read by a thread."""

    def __init__(self) -> None:
        self._beats = 0

    def beat(self) -> None:
        """There was progress, or a wait for a server that is known to be away."""
        self._beats += 1

    @property
    def beats(self) -> int:
        """Grows with every beat."""
        return self._beats
