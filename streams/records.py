"""What a runner feeds the pipeline, and the ports that the pipeline is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

#: Header names and values of a message.
Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]


def no_headers() -> Headers:
    """Of a message without any."""
    return ()


# A tuple is made in a third of a frozen dataclass's time.
class Record(NamedTuple):
    """One message as it came from the broker, undecoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    #: Gives the headers. Asked of dead letters, and where tracing is on: to decode them costs more than the value.
    read_headers: Callable[[], Headers] = no_headers
    #: Milliseconds since 1970; None where the broker has none.
    timestamp: int | None = None

    @property
    def headers(self) -> Headers:
        """As they came, in their order; names may repeat."""
        return self.read_headers()


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record that can never be processed, and why: poison."""

    record: Record
    reason: str


class DeadLetterSink(Protocol):
    """Where invalid records go."""

    async def put(self, invalid: Sequence[InvalidRecord]) -> None:
        """Returns once the broker has acknowledged them all; waits out an outage.

        NoProgressError when the brokers are there and do not take them for minutes: nothing may be acknowledged.
        """
        ...


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
