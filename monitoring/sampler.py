"""Threads that ask servers at a fixed pace, for `/readyz` and for the metrics that nobody in the process knows.

A scrape never asks. Each thread has a connection of its own, makes one request after the other, and rests at least
twenty times as long as its requests took. What failed is logged, throttled; its values run out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from config.health import Health
from config.log_throttle import LogThrottle
from config.metrics import SAMPLES_FAILED
from schemas.errors import first_line

log = structlog.get_logger()

#: A thread rests for at least so many times what its requests took: they cost a server little, however large it is.
_REST: Final = 20.0
#: But whether a server is there is asked again after so long, in seconds.
_LONGEST: Final = 30.0


class Sampler(threading.Thread):
    """Asks one server again and again. An `ask` that raises shows the server as away, if `shows` it.

    `ask` gets how long, in seconds, what it finds holds without the next.
    """

    def __init__(
        self,
        name: str,
        server: str,
        every_seconds: float,
        ask: Callable[[float], None],
        health: Health,
        *,
        shows: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"sampler {name}", daemon=True)
        self._what = name
        self._server = server
        self._every = every_seconds
        self._ask = ask
        self._health = health
        self._shows = shows
        self._monotonic = monotonic
        self._throttle = LogThrottle(monotonic)
        self._asked = False
        if shows:
            health.ready_by(f"{name} sample", lambda: None if self._asked else "was not asked yet")
            health.needs(server)

    def run(self) -> None:
        """Until the process ends."""
        rest = 0.0
        while True:
            rest = self.ask_once(rest)
            time.sleep(rest)

    def ask_once(self, rest: float) -> float:
        """How many seconds to rest now. `rest`: the last pause; what is found now is kept for three such."""
        began = self._monotonic()
        answered = False
        try:
            self._ask(3 * max(rest, self._every))
            answered = True
        except Exception as error:  # of any kind: a thread that ended would show its last answer for ever
            SAMPLES_FAILED.labels(self._server).inc()
            if self._shows:
                self._health.away(self._server, self)
            if self._throttle.admits():
                log.warning("could not be sampled for monitors", what=self._what, cause=first_line(error))
        if answered and self._shows:
            self._health.back(self._server, self)
        self._asked = True
        if not answered:
            # The time of a failure is waiting, which costs the server nothing.
            return self._every
        rest = _REST * (self._monotonic() - began)
        return max(self._every, min(rest, _LONGEST) if self._shows else rest)
