"""One mail that a window has given to its sender: what the sender calls back."""

from __future__ import annotations

from collections.abc import Callable

from schemas.delivery import Delivery
from schemas.send_results import SendResult
from streams.journal import Journal


class Attempt:
    """See `mail.sender.Sender.submit`. An object, because functions made for each mail cost more."""

    __slots__ = ("_clock", "_complete", "_delivery", "_journal", "_may_be_tried")

    def __init__(
        self,
        delivery: Delivery,
        may_be_tried: Callable[[], bool],
        clock: Callable[[], float],
        journal: Journal,
        complete: Callable[[Delivery, SendResult], None],
    ) -> None:
        self._delivery = delivery
        self._may_be_tried = may_be_tried
        self._clock = clock
        self._journal = journal
        self._complete = complete

    def done(self, result: SendResult) -> None:
        """The mail's result."""
        self._complete(self._delivery, result)

    def permitted(self) -> bool:
        """Whether its claim still holds, and the sending rate lets it pass."""
        return self._clock() < self._delivery.deadline and self._may_be_tried()

    def completing(self) -> bool:
        """The same, and that it was begun is noted. Noting takes time on a bad disk: the clock is read last."""
        return self._journal.begin(self._delivery) and self.permitted()
