"""What becomes of a hand-over: values that the ledger records under the fence of the hand-over's mark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Sent:
    """Accepted by the provider. Final for ever."""

    reply: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused for good, or out of attempts. A new batch or `retry` opens it again. Uses one attempt."""

    reason: str
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """To be tried again after `delay` seconds. `uses` is 1 when the recipient was refused, 0 for an outage."""

    reason: str
    delay: float
    uses: int
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Handed over and never answered. Uses one attempt."""

    reason: str


Outcome: TypeAlias = Sent | Failed | Retry | Unknown
