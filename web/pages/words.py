"""The words of an organiser for states, batches and results: the one place that maps them. Pure.

States keep their names in the API and on the command line, and in addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from producers.batch_control import Verdict
from schemas.vocabulary import Audience

_STATES: Final[Mapping[str, str]] = {
    "pending": "waiting",
    "unknown": "not sure if it arrived",
    "skipped": "no longer needed",
    "left out": "not invited",
    "left_out": "not invited, and why",
}
_WHOSE: Final[Mapping[str, str]] = {
    Audience.STUDENTS: "Students' invitations",
    Audience.COACHES: "Coaches' invitations",
    Audience.EVERYONE: "Everyone's invitations",
}


def word(state: str) -> str:
    """A state as an organiser says it; any other text as it is."""
    return _STATES.get(state, state)


def batch_title(audience: str, started_at: datetime, time_zone: str) -> str:
    """`Students' invitations, 28 Nov`."""
    day = started_at.astimezone(ZoneInfo(time_zone))
    return f"{_WHOSE.get(audience, 'Invitations')}, {day.day} {day:%b}"


def retried(count: int) -> str:
    """The result of trying failed mails again."""
    return f"We will try {_mails(count)} again." if count else "No mail had failed: there is nothing to try again."


def resolved(verdict: Verdict, count: int) -> str:
    """The result of saying what became of mails that nobody was sure of."""
    if not count:
        return "No mail was open any more: nothing was changed."
    if verdict is Verdict.RESEND:
        return f"We will send {_mails(count)} again."
    return f"{_mails(count)} {'counts' if count == 1 else 'count'} as {_VERDICTS[verdict]}."


_VERDICTS: Final = {Verdict.SENT: "arrived", Verdict.FAILED: "not arrived"}


def _mails(count: int) -> str:
    return f"{count:,} {'mail' if count == 1 else 'mails'}"
