"""Which runner a worker may use: that of its group's workers. Asked at its start, where a person sees the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from schemas.errors import RefusedError

if TYPE_CHECKING:
    from producers.topics import Topics

#: How Faust divides partitions. The runner on confluent-kafka does it by another protocol, and a group admits one.
_OF_FAUST: Final = "faust"
#: A worker that was killed is a member until its session of 10 s ends.
_GONE_SECONDS: Final = 15.0


def other_runner(assignor: str | None, runner: str) -> str | None:
    """The runner of the group's workers, where it is not this one; None without workers. Pure."""
    if assignor is None:
        return None
    theirs = "faust" if assignor == _OF_FAUST else "confluent"
    return theirs if theirs != runner else None


def require_same_runner(
    topics: Topics,
    group: str,
    runner: str,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """RefusedError when workers of the other runner are in the group, and stay.

    Brokers refuse to let such a worker join, and tell only its library's log.
    """
    end = monotonic() + _GONE_SECONDS
    while (theirs := other_runner(topics.assignor(), runner)) is not None:
        if monotonic() > end:
            raise RefusedError(
                f"--runner: the group {group} has workers of the runner {theirs}, and admits no other: stop them "
                f"first, start this one with --runner {theirs}, or set another BIDDEN_GROUP",
                field="runner",
            )
        sleep(1.0)
