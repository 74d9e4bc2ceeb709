"""One mail on its way from the topic to the ledger: a single value that gains fields from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.envelope import Envelope, Unmailable
from schemas.keys import DeliveryKey
from schemas.outcomes import Outcome


@dataclass(eq=False, slots=True)
class Delivery:
    """A delivery as a worker processes it. Two are equal only if they are the same object.

    | step    | gains                                                              |
    |---------|--------------------------------------------------------------------|
    | look up | `batch_id`, `key`, `role`; `partition` and `offset` of its message |
    | compose | `envelope`                                                         |
    | claim   | `fence`, `attempts` used up before, `claimed_at`                   |
    | send    | `outcome`, which is recorded under `fence`                         |
    """

    batch_id: int
    key: DeliveryKey
    role: str
    partition: int
    offset: int
    envelope: Envelope | Unmailable = field(repr=False)
    #: The fencing token of its claim; 0 until it is claimed.
    fence: int = 0
    attempts: int = 0
    #: When its lease was taken or last renewed, by the event loop's clock, in seconds.
    claimed_at: float = 0.0
    outcome: Outcome | None = None


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
