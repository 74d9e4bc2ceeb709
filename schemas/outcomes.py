"""What the ledger records of a delivery attempt, under the fence of its claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Sent:
    """Accepted by the provider. Never changes."""

    reply: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused for good, or until its time or its attempts were over. A new batch or `bidden retry` reopens it.

    Uses one attempt.
    """

    reason: str
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """To be retried after `delay` seconds. `uses` one attempt if the recipient was refused, none in an outage.

    `refused`: it may have been the recipient who was refused, so the time of their refusals counts from here.
    """

    reason: str
    delay: float
    uses: int
    reply: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The data went out and no verdict came. Uses one attempt."""

    reason: str


Outcome: TypeAlias = Sent | Failed | Retry | Unknown
