"""A claim as the journal of its worker has it. See `streams.journal`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.keys import DeliveryKey
from schemas.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class NotedClaim:
    """One claim. It was noted before its transaction: the ledger may have never heard of it.

    `owner` is the cycle that asked for it; `fence` its fencing token, None where only the ledger knows it; `batch_id`,
    `role`, `partition` and `offset` are of its delivery. `begun`: the mail may have been accepted. `outcome` is None
    while none was known.
    """

    owner: str
    key: DeliveryKey
    fence: int | None
    batch_id: int
    role: str
    partition: int
    offset: int
    begun: bool = False
    outcome: Outcome | None = None

    def begin(self, fence: int) -> NotedClaim:
        """The same, with its mail begun under that fence."""
        return replace(self, fence=fence, begun=True)

    def end(self, fence: int, outcome: Outcome) -> NotedClaim:
        """The same, with its outcome under that fence."""
        return replace(self, fence=fence, outcome=outcome)
