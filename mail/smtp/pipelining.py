"""When the envelope of the next mail goes out with the body of the one before (RFC 2920, 3.1). Pure.

It saves a round trip and half of the writes. A server that refuses the body or closes after it costs the session,
because it may have heard of the next mail; one that throws away what comes with a body costs a time-out. Where that
happens it is not tried again for a while.
"""

from __future__ import annotations

from typing import Final

#: Only where mails take less than so many seconds: what follows a slow mail would wait for it while others are free.
_FAST: Final = 0.05
_FIRST_WAIT: Final = 10.0
_LONGEST_WAIT: Final = 3600.0
#: After so many that went well the next failure is a first one.
_PROOF: Final = 1000


class Pipelining:
    """Whether envelopes may follow bodies, by what became of those that did. Times are in seconds, of one clock."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._wait = _FIRST_WAIT
        self._in_a_row = 0

    def allowed(self, now: float, mail_seconds: float | None) -> bool:
        """Whether to try. `mail_seconds` is what a mail takes on a connection; None while that is not known."""
        return mail_seconds is not None and mail_seconds < _FAST and now >= self._not_before

    def worked(self) -> None:
        """A mail was accepted, and the next one was begun in the same write."""
        self._in_a_row += 1
        if self._in_a_row == _PROOF:
            self._wait = _FIRST_WAIT

    def failed(self, now: float) -> None:
        """A session ended before it answered a mail that was begun in the same write as a body."""
        if now < self._not_before:
            # Another connection of the same moment.
            return
        self._in_a_row = 0
        self._not_before = now + self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
