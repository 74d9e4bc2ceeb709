"""What a kill at a crash point would be, within this process."""

from __future__ import annotations

from config import crash_points
from config.crash_points import CrashPoint


class Killed(Exception):  # noqa: N818 # what a kill would be
    """Here the process would have ended."""


class dies_at:  # noqa: N801 # reads as a word
    """The process ends when it comes to the point, the `passes`th time."""

    def __init__(self, point: CrashPoint, passes: int = 1) -> None:
        self._point, self._left = point, passes

    def __enter__(self) -> None:
        self._before = crash_points.reach
        crash_points.reach = self._reach

    def __exit__(self, *_: object) -> None:
        crash_points.reach = self._before

    def _reach(self, point: CrashPoint) -> None:
        self._left -= point is self._point
        if point is self._point and not self._left:
            raise Killed
