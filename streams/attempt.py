"""One mail that a window has given to its sender: what the sender calls back."""

from __future__ import annotations

from collections.abc import Callable

from schemas.delivery import Delivery
from schemas.send_results import SendResult
from streams.journal import Journal
from streams.rate_gate import RateGate


class Attempt:
    """See `mail.sender.Sender.submit`. An object, because functions made for each mail cost more."""

    __slots__ = ("_clock", "_complete", "_delivery", "_gate", "_journal")

    def __init__(
        self,
        delivery: Delivery,
        gate: RateGate,
        clock: Callable[[], float],
        journal: Journal,
        complete: Callable[[Delivery, SendResult], None],
    ) -> None:
        self._delivery = delivery
        self._gate = gate
        self._clock = clock
        self._journal = journal
        self._complete = complete

    def done(self, result: SendResult) -> None:
        """The mail's result."""
        self._complete(self._delivery, result)

    def permitted(self) -> bool:
        """Whether its claim still holds, the directory is fresh, and the sending rate lets it pass."""
        return self._holds() and self._gate.permits(self._delivery)

    def completing(self) -> bool:
        """Whether all that still is so. Notes first that it was begun, which takes time on a bad disk."""
        return self._journal.begin(self._delivery) and self._holds()

    def _holds(self) -> bool:
        return self._clock() < min(self._delivery.deadline, self._delivery.begin_before)
