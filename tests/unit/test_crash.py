"""Crash points: off unless armed, armed by name, refused by name. The kills themselves are acceptance tests."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from schemas import crash
from schemas.crash import VARIABLE, CrashPoint
from schemas.errors import SettingsError

SCRIPT = """
from schemas import crash
crash.arm({"BIDDEN_CRASH_AT": "take.done:3"})
for visit in range(1, 5):
    crash.reach(crash.CrashPoint.TAKE_FETCHED)
    print(visit, flush=True)
    crash.reach(crash.CrashPoint.TAKE_DONE)
"""


def test_off_by_default() -> None:
    """Where the variable is not set a point is passed by."""
    before = crash.reach
    for environment in ({}, {VARIABLE: ""}):
        crash.arm(environment)
        assert crash.reach is before
    for point in CrashPoint:
        crash.reach(point)


@pytest.mark.parametrize("wish", ["nowhere", "take.done:x", "TAKE_DONE", ":2", "take.done:-1", "take.done:1:pause"])
def test_unknown_points_are_refused(wish: str) -> None:
    """By name, with those that there are."""
    with pytest.raises(SettingsError, match=r"not a crash point.*take\.done") as caught:
        crash.arm({VARIABLE: wish})
    assert caught.value.field == VARIABLE


def test_armed_it_kills_at_its_visit() -> None:
    """FM-08: SIGKILL, at the visit that was named and at no other point."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2", "3"])
