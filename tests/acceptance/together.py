"""Runs stories that mostly wait, several at a time, in one thread: each yields what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.acceptance.processes import PATIENCE_SECONDS

K = TypeVar("K")
T = TypeVar("T")
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Until:
    """A condition, and what it means in words."""

    condition: Callable[[], bool]
    what: str


Story = Generator[Until, None, T]


@dataclass
class _Running(Generic[K, T]):
    key: K
    story: Story[T]
    waits_for: Until
    until: float


def together(
    stories: Mapping[K, Callable[[], Story[T]]], at_once: int, patience: float = PATIENCE_SECONDS
) -> dict[K, T | Exception]:
    """What each story returned, or the exception that ended it. A condition that never comes true ends one too."""
    results: dict[K, T | Exception] = {}
    waiting = list(stories.items())
    running: list[_Running[K, T]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            key, begin = waiting.pop(0)
            running.append(_Running(key, begin(), Until(lambda: True, "begin"), time.monotonic() + patience))
        for story in list(running):
            try:
                if story.waits_for.condition():
                    story.waits_for = next(story.story)
                    story.until = time.monotonic() + patience
                elif time.monotonic() > story.until:
                    story.story.throw(AssertionError(f"after {patience:.0f} s still not: {story.waits_for.what}"))
            except StopIteration as end:
                results[story.key] = end.value
                running.remove(story)
            except Exception as error:
                results[story.key] = error
                running.remove(story)
        time.sleep(_POLL_SECONDS)
    return results
