"""What this process can do, for `/livez` and `/readyz`: which of its servers are away, and what its parts say.

One object for the process, `HEALTH`: the parts that meet a server report to it, and their reports also count outages.
Nothing here asks anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from config.metrics import AWAY, OUTAGES, SERVERS

#: Why something does not hold, in a few words without addresses or secrets; None while it holds. Quick, any thread.
Check = Callable[[], str | None]

_NAMES: Final = {"postgresql": "PostgreSQL", "kafka": "Kafka", "mail": "the mail server"}


class Health:
    """From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alive: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._away: dict[str, set[object]] = {server: set() for server in SERVERS}

    def lives_by(self, name: str, check: Check) -> None:
        """The process makes progress as long as this says so."""
        self._alive[name] = check

    def ready_by(self, name: str, check: Check) -> None:
        """The process can do its work as long as this says so, too."""
        self._ready[name] = check

    def starting(self) -> None:
        """Not ready before `started`: its parts have yet to say what they need."""
        self.ready_by("start", lambda: "is starting")

    def started(self) -> None:
        """All its parts have said what they need."""
        self._ready.pop("start", None)

    def needs(self, server: str) -> None:
        """The process can do its work only while this server is there."""
        self.ready_by(server, lambda: f"{_NAMES[server]} is away" if self.is_away(server) else None)

    def away(self, server: str, witness: object) -> None:
        """`witness`, a part of the process, waits for the server. Of several that do, the first begins the outage."""
        with self._lock:
            if not self._away[server]:
                OUTAGES.labels(server).inc()
                AWAY.labels(server).set(1)
            self._away[server].add(witness)

    def back(self, server: str, witness: object) -> None:
        """It waits no longer. May be said at any time."""
        # Read without the lock: said often, and nearly always of a server that was never away.
        if witness in self._away[server]:
            with self._lock:
                self._away[server].discard(witness)
                if not self._away[server]:
                    AWAY.labels(server).set(0)

    def is_away(self, server: str) -> bool:
        """Whether any part waits for it."""
        return bool(self._away[server])

    def not_alive(self) -> dict[str, str]:
        """What keeps the process from progress, by part; nothing while it makes progress."""
        return _failing(self._alive)

    def not_ready(self) -> dict[str, str]:
        """What keeps the process from its work, by part; nothing while it can do it."""
        return self.not_alive() | _failing(self._ready)


def _failing(checks: dict[str, Check]) -> dict[str, str]:
    return {name: reason for name, check in list(checks.items()) if (reason := check()) is not None}


HEALTH: Final = Health()
