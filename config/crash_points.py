"""Named places at which a process can be made to die, to prove that nothing is lost there.

`BIDDEN_CRASH_AT=outcome.begun` in the environment arms one: the process ends with SIGKILL when it first comes there;
`smtp.data:5` lets it pass four times, and `smtp.data:5:stop` stops it with SIGSTOP instead, as a frozen machine would;
`smtp.data:5:hang` blocks the thread that comes there for ever, and with it its event loop.
For the tests behind docs/reference/crash-matrix.md. Where the variable is not set, `reach` does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from itertools import count
from typing import Final

from schemas.errors import SettingsError

VARIABLE: Final = "BIDDEN_CRASH_AT"


class CrashPoint(StrEnum):
    """Every boundary of the flow, in its order. The value is the name that the variable takes."""

    IMPORT_READY = "import.ready"
    SNAPSHOT_READ = "snapshot.read"
    SNAPSHOT_READY = "snapshot.ready"
    DEPARTURES_WRITTEN = "departures.written"
    INVITATIONS_PLACED = "invitations.placed"
    OUTCOMES_REPORTED = "outcomes.reported"
    PLAN_READY = "plan.ready"
    PLAN_COMMITTED = "plan.committed"
    PUBLISH_CLAIMED = "publish.claimed"
    PUBLISH_PRODUCING = "publish.producing"
    PUBLISH_DELIVERED = "publish.delivered"
    PUBLISH_RECORDED = "publish.recorded"
    LOST_FOUND = "lost.found"
    POLL_FETCHED = "poll.fetched"
    POLL_LOOKED_UP = "poll.looked_up"
    CLAIM_READY = "claim.ready"
    CLAIM_COMMITTED = "claim.committed"
    CLAIM_PUBLISHED = "claim.published"
    SMTP_ENVELOPE = "smtp.envelope"
    SMTP_DATA = "smtp.data"
    SMTP_ACCEPTED = "smtp.accepted"
    OUTCOME_BEGUN = "outcome.begun"
    OUTCOME_COMMITTED = "outcome.committed"
    OUTCOMES_PRODUCED = "outcomes.produced"
    OUTCOMES_COMMITTED = "outcomes.committed"
    DEAD_LETTER_FOUND = "dead_letter.found"
    DEAD_LETTER_DELIVERED = "dead_letter.delivered"
    POLL_DONE = "poll.done"
    OFFSET_STORED = "offset.stored"
    REDRIVE_DELIVERED = "redrive.delivered"


def _pass_by(point: CrashPoint) -> None:
    del point


#: Called as `crash_points.reach(point)` at each point of the flow.
reach: Callable[[CrashPoint], None] = _pass_by


def arm(environment: Mapping[str, str]) -> None:
    """Arm the point that the environment names, if it names one. SettingsError for one that there is not."""
    global reach
    wish = environment.get(VARIABLE)
    if wish:
        reach = _armed(wish)


def _armed(wish: str) -> Callable[[CrashPoint], None]:
    name, times, how = (*wish.split(":"), "", "")[:3]
    if name not in set(CrashPoint) or not (times or "1").isdecimal() or how not in ("", "stop", "hang"):
        known = ", ".join(CrashPoint)
        raise SettingsError(f"{VARIABLE}: not a crash point: {wish!r}; there are {known}", field=VARIABLE)
    armed, visit, visits = CrashPoint(name), int(times or 1), count(1)
    number = signal.SIGSTOP if how else signal.SIGKILL

    def die(point: CrashPoint) -> None:
        if point is armed and next(visits) == visit:
            if how == "hang":
                threading.Event().wait()
            os.kill(os.getpid(), number)

    return die
