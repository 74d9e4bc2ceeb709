"""A claim as the journal of its worker has it. See `streams.journal`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.keys import DeliveryKey
from schemas.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class NotedClaim:
    """One claim. It was noted before its commit: the ledger may have never heard of it.

    `owner` is the cycle that claimed it, `fence` its fencing token; `batch_id`, `role`, `partition` and `offset` are
    its delivery's. `begun`: the mail may have been accepted. `outcome` is None while none was known.
    """

    owner: str
    key: DeliveryKey
    fence: int
    batch_id: int
    role: str
    partition: int
    offset: int
    begun: bool = False
    outcome: Outcome | None = None

    def begin(self) -> NotedClaim:
        """The same, with its mail begun."""
        return replace(self, begun=True)

    def end(self, outcome: Outcome) -> NotedClaim:
        """The same, with its outcome."""
        return replace(self, outcome=outcome)
