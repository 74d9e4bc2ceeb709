"""How many mails a pool of connections can take, by the time that each takes: measured, not set.

Claimed mails that wait for a connection grow old while they wait. A slow server is given about as many as there are
connections; a fast one so many more that no connection idles until the next claims are committed.
"""

from __future__ import annotations

from typing import Final

#: What waits is begun within about so many seconds.
_AHEAD_SECONDS: Final = 0.1
#: The weight of the newest mail in the mean.
_NEWEST: Final = 0.1


class Pace:
    """The mean time of a mail on a connection, in seconds; recent mails weigh most."""

    def __init__(self) -> None:
        self._mean: float | None = None

    def note(self, seconds: float) -> None:
        """A mail has taken this long."""
        self._mean = seconds if self._mean is None else self._mean + _NEWEST * (seconds - self._mean)

    def room(self, connections: int, shortest_wait: float) -> int:
        """How many mails so many connections should have, in mid-dialogue or waiting.

        `shortest_wait` is how long every connection has been busy with its mail at least: a server that falls silent
        is slow before any mail has shown it.
        """
        if self._mean is None:
            return connections
        return connections + int(connections * _AHEAD_SECONDS / max(self._mean, shortest_wait, 1e-4))
