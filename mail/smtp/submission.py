"""What a pool hands to a connection, and what a connection reports to its pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from schemas.envelope import Envelope
from schemas.send_results import SendResult

if TYPE_CHECKING:
    from mail.smtp.connection import Connection


@dataclass(slots=True)
class Submission:
    """A submitted mail and its callbacks; `tries` counts the stale connections it was given to."""

    envelope: Envelope
    done: Callable[[SendResult], None]
    permitted: Callable[[], bool]
    completing: Callable[[], bool]
    tries: int = 0


class ConnectionOwner(Protocol):
    """What a connection reports to its pool, always from the event loop."""

    def finished(self, connection: Connection, submission: Submission, result: SendResult) -> None:
        """The mail's result is known. If the connection is `usable` it can take another mail."""

    def stale(self, connection: Connection, submission: Submission) -> None:
        """An idle connection was dead before the server heard of this mail, which may go to another."""

    def gone(self, connection: Connection) -> None:
        """The connection is closed. Called once, whatever ended it."""
