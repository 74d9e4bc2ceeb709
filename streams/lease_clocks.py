"""The deadlines of a window's claims, kept by both clocks: the database's, which ends leases, and the worker's."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from schemas.delivery import Delivery
from schemas.leases import ClockReading

#: The deadline of a claim that is not its worker's any more.
LOST: Final = -inf
#: Less than this, in seconds, is no news: the margin covers it, and much more.
_WORTH_SAYING: Final = 0.1


class LeaseClocks:
    """Sets deadlines by each transaction's reading of the clocks. `lease` in seconds."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        #: The least that the database's clock was ahead of the worker's at a claim in flight.
        self._least = inf

    def limit(self, clocks: ClockReading, leased: Iterable[Delivery], in_flight: Iterable[Delivery]) -> float:
        """Sets the deadlines of what was claimed or renewed in this transaction; shortens those of the rest.

        Returns by how much the database's clock has run ahead since those leases began; 0 if it is not worth a word.
        """
        deadline = clocks.deadline(self._lease)
        for delivery in leased:
            delivery.leased_at, delivery.deadline = clocks, deadline
            self._least = min(self._least, clocks.database - clocks.before)
        if clocks.database - clocks.after <= self._least:
            return 0.0
        most, self._least = 0.0, inf
        for delivery in in_flight:
            begun = delivery.leased_at
            self._least = min(self._least, begun.database - begun.before)
            ahead = begun.ahead(clocks)
            most = max(most, ahead)
            delivery.deadline = min(delivery.deadline, begun.deadline(self._lease) - ahead)
        return most if most > _WORTH_SAYING else 0.0
