"""The progress of a batch: its numbers and its pace, shared by all who watch it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio

from db import progress as details
from db import site_queries, source_status
from db.connect import Connection
from db.progress import Idle
from db.source_status import SourceStatus
from monitoring import sending
from monitoring.sending import Sending
from schemas.send_rates import SendRates
from web.database import Pool
from web.estimate import Estimate, smoothed
from web.single_flight import SingleFlightCache

#: Between two events of a stream, and how long a query's result serves all streams of a batch.
LIVE_SECONDS: Final = 1.0
_THREADS: Final = 4
#: For so long nothing may happen before the page says so: a worker that died leaves its claims for about a minute.
_IDLE_SECONDS: Final = 180.0
#: The most of the time that queries about one batch take: of a large one the events come less often.
_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch in numbers. The five states always sum to `deliveries`.

    `excluded`: members not invited, by reason. `error_lists`: the chapters of the member that the first error is about,
    as `site_queries.chapters_of_error` returns them. `has_errors`: as lists of batches say it.
    """

    status: dict[str, Any]
    per_second: float
    excluded: dict[str, int] = field(default_factory=dict)
    error_lists: list[int] | None = None
    has_errors: bool = False
    #: Why mails are not sent faster, where anything is pending.
    sending: Sending = field(default_factory=lambda: Sending(SendRates()))
    #: The newest snapshot of the source, if there is one and anything is pending.
    source: SourceStatus | None = None
    #: The source is yet to get its invitations.
    is_being_placed: bool = False
    #: Since when nobody works on it, if that is too long.
    idle: Idle | None = None
    #: Whether another batch had every mail of this one.
    all_sent_elsewhere: bool = False
    #: The estimate of those who watched before, for the next.
    estimate: Estimate | None = None

    @property
    def done(self) -> int:
        """Deliveries that are not pending."""
        pending: int = self.status["pending"]
        deliveries: int = self.status["deliveries"]
        return deliveries - pending

    @property
    def percent(self) -> int:
        """Rounded down: 100 only when nothing is pending."""
        if self.status["planning"]:
            return 0
        return 100 * self.done // self.status["deliveries"] if self.status["deliveries"] else 100

    @property
    def seconds_left(self) -> float | None:
        """The estimate where there is one; else as measured."""
        if (
            self.status["state"] != "running"
            or not self.status["pending"]
            or self.idle is not None
            or self.waits_for_source
            or self.is_being_placed
        ):
            return None
        return self.measured_seconds if self.estimate is None else self.estimate.seconds

    @property
    def waits_for_source(self) -> bool:
        """Whether nothing is claimed until the directory is read again."""
        return self.source is not None and self.source.is_stale

    @property
    def measured_seconds(self) -> float | None:
        """At the current pace, and at the rate in force; None if nothing is being sent."""
        if self.status["state"] != "running" or not self.status["pending"]:
            return None
        pending: int = self.status["pending"]
        at_pace = pending / self.per_second if self.per_second else 0.0
        return max(at_pace, self.sending.seconds_to_send(pending)) or None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is pending any more."""
        return self.status["state"] == "completed" or (
            self.status["state"] == "cancelled" and not self.status["pending"]
        )


def read_progress(conn: Connection, batch_id: int, rates: SendRates) -> Progress:
    """The current progress. `rates`: those of the settings."""
    found = site_queries.batch_numbers(conn, batch_id)
    lists = site_queries.chapters_of_error(conn, batch_id) if found.status["error"] else None
    running = found.status["state"] == "running" and found.status["pending"]
    now = sending.read(conn, rates) if running else Sending(rates)
    source = source_status.read(conn) if running else None
    placing = source is not None and details.is_being_placed(conn, batch_id)
    waits = now.permitted == 0.0 or placing or (source is not None and source.is_stale)
    idle = details.idle(conn, batch_id) if running and not found.per_second and not waits else None
    all_skipped = found.status["deliveries"] and found.status["skipped"] == found.status["deliveries"]
    return Progress(
        found.status,
        found.per_second,
        found.excluded,
        lists,
        found.has_errors,
        now,
        source=source,
        is_being_placed=placing,
        idle=idle if idle is not None and idle.seconds >= _IDLE_SECONDS else None,
        all_sent_elsewhere=bool(all_skipped) and details.all_sent_elsewhere(conn, batch_id),
    )


class ProgressCache(SingleFlightCache[int, Progress]):
    """The progress of watched batches by id: one query a second for each batch at most, however many watch it."""

    def __init__(self, load: Callable[[int], Progress]) -> None:
        super().__init__(load, LIVE_SECONDS, share=_SHARE)
        #: All other requests run in threads, too: however long the queries take, watchers leave them most.
        self.threads = anyio.CapacityLimiter(_THREADS)


def progress_cache(pool: Pool, rates: SendRates, clock: Callable[[], float] = time.monotonic) -> ProgressCache:
    """The cache of one application. Each progress has an estimate that follows those before it."""
    estimates: dict[int, Estimate] = {}

    def load(batch_id: int) -> Progress:
        with pool.connection() as conn:
            found = read_progress(conn, batch_id, rates)
        # Of one batch one thread loads at a time.
        estimate = None
        if found.status["state"] == "running" and found.status["pending"]:
            estimate = smoothed(estimates.get(batch_id), found.measured_seconds, clock())
        if estimate is None:
            estimates.pop(batch_id, None)
        else:
            estimates[batch_id] = estimate
        return replace(found, estimate=estimate)

    return ProgressCache(load)
