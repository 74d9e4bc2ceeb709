"""Dates and times as text: English, the same in every locale, and right on any day they are read.

No "today" and no "tomorrow": a mail is read later than it is composed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Not strftime: %A and %B follow the process's locale.
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, slots=True)
class When:
    """An event's time as text: `short` for a subject, `span` and `zone` for the text."""

    short: str
    span: str
    zone: str


def describe(starts_at: datetime, ends_at: datetime, time_zone: str) -> When:
    """The span from start to end in the zone named.

    A zone that this machine's time zone data does not have is shown as UTC, and says so: a right time in another zone
    is better than no mail.
    """
    zone, name = _zone(time_zone)
    starts, ends = starts_at.astimezone(zone), ends_at.astimezone(zone)
    first, last = _abbreviation(starts), _abbreviation(ends)
    begin = f"{_day(starts)}, {starts:%H:%M}"
    # The zone's short name stands once, unless the clocks change during the event.
    begin_zoned = f"{begin} {first}" if first != last else begin
    end = f"{ends:%H:%M}" if starts.date() == ends.date() else f"{_day(ends)}, {ends:%H:%M}"
    return When(
        short=begin,
        span=f"{begin_zoned} to {end} {last}".rstrip(),
        zone=f"{name}, {_offset(starts)}" if zone is not UTC else name,
    )


def moment(at: datetime, time_zone: str) -> str:
    """A moment in the zone named: `22 November 2026, 14:05 CET`. In UTC where the zone is not known."""
    local = at.astimezone(_zone(time_zone)[0])
    return f"{local.day} {_MONTHS[local.month - 1]} {local.year}, {local:%H:%M} {_abbreviation(local)}"


def _zone(name: str) -> tuple[tzinfo, str]:
    try:
        return ZoneInfo(name), name
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC, "UTC"


def _day(at: datetime) -> str:
    return f"{_DAYS[at.weekday()]} {at.day} {_MONTHS[at.month - 1]} {at.year}"


def _abbreviation(at: datetime) -> str:
    """`CEST` and the like; many zones have only a number, which `_offset` says better."""
    name = at.tzname() or ""
    return name if name.isalpha() else _offset(at)


def _offset(at: datetime) -> str:
    offset = at.utcoffset() or timedelta()
    sign = "-" if offset < timedelta() else "+"
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    return f"UTC{sign}{hours:02}:{minutes:02}"
