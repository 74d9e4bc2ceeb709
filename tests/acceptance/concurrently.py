"""Runs scenarios that mostly wait, several at a time in one thread: each yields the condition that it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.acceptance.processes import TIMEOUT_SECONDS

K = TypeVar("K")
T = TypeVar("T")
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Until:
    """A condition, and its description for the failure."""

    condition: Callable[[], bool]
    what: str


Steps = Generator[Until, None, T]


@dataclass
class _Running(Generic[K, T]):
    key: K
    scenario: Steps[T]
    waits_for: Until
    deadline: float


def run_concurrently(
    scenarios: Mapping[K, Callable[[], Steps[T]]], limit: int, timeout: float = TIMEOUT_SECONDS
) -> dict[K, T | Exception]:
    """What each scenario returned, or the exception that ended it. A condition that times out ends its scenario."""
    results: dict[K, T | Exception] = {}
    waiting = list(scenarios.items())
    running: list[_Running[K, T]] = []
    while waiting or running:
        while waiting and len(running) < limit:
            key, start = waiting.pop(0)
            running.append(_Running(key, start(), Until(lambda: True, "start"), time.monotonic() + timeout))
        for each in list(running):
            try:
                if each.waits_for.condition():
                    each.waits_for = next(each.scenario)
                    each.deadline = time.monotonic() + timeout
                elif time.monotonic() > each.deadline:
                    each.scenario.throw(AssertionError(f"after {timeout:.0f} s still not: {each.waits_for.what}"))
            except StopIteration as end:
                results[each.key] = end.value
                running.remove(each)
            except Exception as error:
                results[each.key] = error
                running.remove(each)
        time.sleep(_POLL_SECONDS)
    return results
