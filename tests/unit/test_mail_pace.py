"""How many mails a pool of connections is given: as many as it can begin within moments."""

from __future__ import annotations

import pytest

from mail.smtp.pace import Pace


def paced(*seconds: float) -> Pace:
    pace = Pace()
    for each in seconds:
        pace.note(each)
    return pace


def test_nothing_waits_before_anything_is_known() -> None:
    """One mail for each connection."""
    assert Pace().room(10, 0.0) == 10


@pytest.mark.parametrize(("seconds", "room"), [(0.002, 510), (0.01, 110), (0.05, 30), (0.5, 12), (30.0, 10)])
def test_room_by_the_time_of_a_mail(seconds: float, room: int) -> None:
    """FM-35: a slow server has one or two mails waiting, a fast one more than a window."""
    assert paced(seconds).room(10, 0.0) == pytest.approx(room, abs=1)


def test_a_server_that_falls_silent_is_slow() -> None:
    """Every connection waits for half a second: nothing is claimed for when they may answer."""
    assert paced(0.002).room(10, 0.5) == 12


def test_one_slow_mail_among_many_changes_little() -> None:
    """And many change everything."""
    assert paced(*[0.002] * 20, 0.05).room(10, 0.0) > 50
    assert paced(*[0.002] * 20, *[0.5] * 20).room(10, 0.0) <= 14
