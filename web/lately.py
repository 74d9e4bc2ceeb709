"""Answers that take long, for many who ask: one of them asks, the others get what was heard last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    """An answer, and when it was heard by the clock of `Lately`."""

    answer: T
    at: float


class Lately(Generic[T]):
    """Asks when the last answer is older than `seconds`, and never twice at the same time. For any thread.

    `ask` words its troubles in its answer: an outage is worth keeping, too.
    """

    def __init__(self, ask: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._asking = threading.Lock()
        self._heard: Heard[T] | None = None

    def answer(self) -> T | None:
        """The newest answer; None while somebody else is the first to ask."""
        heard = self._heard
        if heard is not None and self._clock() - heard.at < self._seconds:
            return heard.answer
        if not self._asking.acquire(blocking=False):
            return None if heard is None else heard.answer
        try:
            answer = self._ask()
            self._heard = Heard(answer, self._clock())
            return answer
        finally:
            self._asking.release()
