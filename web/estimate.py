"""The time that a batch will still take, smoothed: mails go out in bursts, and people wait by it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

#: After so many seconds a new measurement has two thirds of the weight.
_SMOOTHING_SECONDS: Final = 30.0
#: An estimate that nobody asked for since is forgotten.
_FORGOTTEN_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds left, as of `at`, a time of one clock in seconds."""

    seconds: float
    at: float
    #: When the first was made. What was measured while a batch had just begun is worth little.
    since: float = field(default=-math.inf, compare=False)


def smoothed(before: Estimate | None, measured: float | None, at: float) -> Estimate | None:
    """The next estimate. `measured`: by the pace of the last seconds; None if there is no pace, which is a pause in it.

    Time that passed counts in full; a change of the pace little by little, in proportion: whether hours or seconds are
    left, as many measurements are needed to halve the estimate. Young estimates follow faster.
    """
    if before is not None and at - before.at > _FORGOTTEN_SECONDS:
        before = None
    if measured is None or before is None:
        if measured is not None:
            return Estimate(measured, at, at)
        return before
    passed = max(at - before.at, 0.0)
    expected = max(before.seconds - passed, 1.0)
    smoothing = min(_SMOOTHING_SECONDS, max(at - before.since, 1.0) / 2)
    weight = 1 - math.exp(-passed / smoothing)
    seconds = math.exp((1 - weight) * math.log(expected) + weight * math.log(max(measured, 1.0)))
    return Estimate(seconds, at, before.since)
