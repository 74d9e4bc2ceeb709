"""Whether it is one recipient who is refused, or everybody. Pure; one per worker.

A dialogue that ends in its midst, or a refusal that speaks of policy, may be about that recipient alone, and then ends
by time; or the server takes nothing from us (relaying denied, our host blocked, a proxy that cuts every dialogue), and
then the campaign waits and nobody fails. One reply cannot tell. Many of them can, if nothing was accepted between.
"""

from __future__ import annotations

from typing import Final

from schemas.keys import DeliveryKey
from schemas.send_results import Accepted, SendResult, Throttled, Undecided

#: So many different deliveries in a row, with none accepted between, are everybody. More than the connections that
#: one restart of the server cuts in mid-dialogue, by default.
EVERYBODY: Final = 20


class RefusedByAll:
    """Sees every result of a worker. Times are in seconds, by one clock of the caller's."""

    def __init__(self, enough: int = EVERYBODY) -> None:
        self._enough = enough
        self._accepted_at: float | None = None
        self._in_a_row: set[DeliveryKey] = set()

    def judge(self, result: SendResult, key: DeliveryKey, refused_for: float | None, now: float) -> SendResult:
        """The result; Throttled in the place of Undecided while nothing else gets through.

        A delivery since whose first refusal another was accepted is refused for itself, however many are.
        """
        if isinstance(result, Accepted):
            self._accepted_at = now
            self._in_a_row.clear()
        if not isinstance(result, Undecided):
            return result
        if len(self._in_a_row) < self._enough:
            self._in_a_row.add(key)
        others_pass = (
            refused_for is not None and self._accepted_at is not None and self._accepted_at > now - refused_for
        )
        if others_pass or len(self._in_a_row) < self._enough:
            return result
        return Throttled(f"nothing else gets through: {result.reply}")
