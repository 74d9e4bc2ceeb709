"""A claim is a right with a deadline: until when a worker may still have a mail accepted. Pure; seconds throughout.

The database says when a lease ends, by its clock. A worker says until when it may send, by its own: it counts the
lease from before it asked, so that its deadline is never the later of the two, whatever either clock reads. Only
durations are compared. By how much the database's clock is set, or runs ahead, while a lease lasts is taken off.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: What is left of a lease when nothing more is sent under it: for the way of the last bytes, and for clocks that run
#: at slightly different speeds. A fifth of a short lease.
MARGIN_SECONDS: Final = 5.0
_MARGIN_FRACTION: Final = 0.2


def margin(lease: float) -> float:
    """How long before the end of its lease a claim no longer permits sending."""
    return min(MARGIN_SECONDS, lease * _MARGIN_FRACTION)


class ClockReading(NamedTuple):
    """The database's clock as one transaction read it, and the worker's before it asked and after it was answered."""

    before: float
    database: float
    after: float

    def deadline(self, lease: float) -> float:
        """Until when a claim of this transaction permits sending, by the worker's clock."""
        return self.before + lease - margin(lease)

    def ahead(self, later: ClockReading) -> float:
        """By how much the database's clock has certainly run ahead of the worker's between two readings.

        The first is taken at its latest, the second at its earliest: a slow answer is no difference.
        """
        return max(0.0, (later.database - later.after) - (self.database - self.before))
