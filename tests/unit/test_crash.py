"""Crash points: off unless armed, armed by name, refused by name. The kills themselves are acceptance tests."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from config import crash_points
from config.crash_points import VARIABLE, CrashPoint
from schemas.errors import SettingsError

SCRIPT = """
from config import crash_points
crash_points.arm({"BIDDEN_CRASH_AT": "poll.done:3"})
for visit in range(1, 5):
    crash_points.reach(crash_points.CrashPoint.POLL_FETCHED)
    print(visit, flush=True)
    crash_points.reach(crash_points.CrashPoint.POLL_DONE)
"""


def test_off_by_default() -> None:
    """Without the variable no crash point does anything."""
    before = crash_points.reach
    for environment in ({}, {VARIABLE: ""}):
        crash_points.arm(environment)
        assert crash_points.reach is before
    for point in CrashPoint:
        crash_points.reach(point)


@pytest.mark.parametrize("wish", ["nowhere", "poll.done:x", "POLL_DONE", ":2", "poll.done:-1", "poll.done:1:pause"])
def test_unknown_points_are_refused(wish: str) -> None:
    """By name, with a list of those that exist."""
    with pytest.raises(SettingsError, match=r"not a crash point.*poll\.done") as caught:
        crash_points.arm({VARIABLE: wish})
    assert caught.value.field == VARIABLE


def test_armed_it_kills_at_its_visit() -> None:
    """FM-08: SIGKILL at the named visit, and at no other point."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"])
