"""One mail on its way from the topic to the ledger: a single value that gains fields from step to step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.leases import ClockReading
from schemas.outcomes import Outcome
from schemas.trace_context import TraceContext

#: The reading of what was never claimed.
NEVER: Final = ClockReading(0.0, 0.0, 0.0)


@dataclass(eq=False, slots=True)
class Delivery:
    """A delivery as a worker processes it. Two are equal only if they are the same object.

    | step    | gains                                                              |
    |---------|--------------------------------------------------------------------|
    | look up | `batch_id`, `key`, `role`; `partition` and `offset` of its message |
    |         | `domain` of the address, which the sending rates go by; `trace`    |
    | claim   | `fence`, `attempts` used up, `refused_for`, `leased_at`,           |
    |         | `deadline`, `begin_before`; what its mail says: `recipient`, `event` |
    | send    | `outcome`, which is recorded under `fence`                         |
    """

    batch_id: int
    key: DeliveryKey
    role: str
    partition: int
    offset: int
    #: The fencing token of its claim; 0 until it is claimed.
    fence: int = 0
    attempts: int = 0
    #: Seconds from its first temporary refusal to its claim, by the database's clock; None if it was never refused.
    refused_for: float | None = None
    #: What its mail says, as the directory had it when it was claimed; None where the invitation has no token.
    recipient: Recipient | None = field(default=None, repr=False)
    event: EventDetails | None = field(default=None, repr=False)
    #: The clocks when its lease was taken or last renewed.
    leased_at: ClockReading = NEVER
    #: Until when it may be sent, by the worker's clock, in seconds.
    deadline: float = 0.0
    #: Until when it may be begun by what the source of the directory said at its claim; by the same clock.
    begin_before: float = inf
    outcome: Outcome | None = None
    #: An outcome, and the columns that it is recorded in: see `db.ledger_transaction.columns_of`.
    columns: tuple[Outcome, dict[str, Any]] | None = field(default=None, repr=False)
    #: The sampled trace that its message continues; None in a worker that does not trace.
    trace: TraceContext | None = None
    #: The recipient's, as `schemas.send_rates.domain_of` names it.
    domain: str = "invalid"


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one transaction of a worker's window does: record outcomes, claim deliveries, renew leases.

    `claim` holds each key once, and none that this worker has in flight. `owner` names the cycle and must be new for
    each: a transaction that is repeated after a lost connection recognises its own claims by it.
    """

    owner: str
    record: Sequence[Delivery] = ()
    claim: Sequence[Delivery] = ()
    renew: Sequence[Delivery] = ()


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What a cycle did: which of `claim` were claimed, which of `renew` are held on, and the clocks.

    What is missing in `claimed` has been concluded: its item is settled or due again. What is missing in `renewed` is
    not this worker's any more: it may not be sent.
    """

    claimed: Sequence[Delivery]
    renewed: Collection[DeliveryKey]
    clocks: ClockReading
