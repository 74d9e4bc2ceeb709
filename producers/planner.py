"""Plans the batches whose triggers left that to the dispatchers: those for large audiences.

Each is planned in one transaction, so all its items are of one snapshot and visible at once, or not at all. A planner
that dies leaves the batch as it was, to be planned by any other. It holds no lock on the batch: a pause or cancel does
not wait, and a cancel wins.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import structlog

from config import crash_points, tracing
from config.crash_points import CrashPoint
from config.tracing import Kind
from db import planning
from db.connect import OUTAGES, Connection, connect, in_transaction
from db.planning import BatchToPlan
from producers.background import repeat
from producers.plan import refusal, trigger_of
from schemas.trace_context import parse
from schemas.vocabulary import Audience, UnknownPolicy

log = structlog.get_logger()

_IDLE_SECONDS: Final = 0.2
#: Between two tries to end what a planner is doing, and how many there are.
_END_SECONDS: Final = 0.5
_END_TRIES: Final = 10


class _Cancelled(Exception):  # noqa: N818 # no error: the plan is not wanted any more
    """The batch was cancelled while it was planned."""


def plan_waiting(conn: Connection) -> int:
    """Plan every batch that waits for it and that no other process plans now; returns how many.

    `conn` must be in autocommit mode. Any number of processes may call this at once.
    """
    planned = 0
    for batch_id in planning.batches_to_plan(conn):
        rows = plan_batch(conn, batch_id)
        if rows is not None:
            planned += 1
            planning.analyse_grown(conn, rows)
    return planned


def plan_batch(conn: Connection, batch_id: int) -> int | None:
    """Plan this batch; returns its deliveries. None if there was nothing to plan, or another process does it."""

    def work() -> int | None:
        batch = planning.claim_batch_to_plan(conn, batch_id)
        if batch is None:
            return None
        trace = parse(batch.traceparent)
        with tracing.current().span("plan", Kind.INTERNAL, trace, {"bidden.batch.id": batch_id}):
            deliveries = _write(conn, batch)
        crash_points.reach(CrashPoint.PLAN_READY)
        return deliveries

    try:
        deliveries = in_transaction(conn, work)
    except _Cancelled:
        return None
    if deliveries is not None:
        crash_points.reach(CrashPoint.PLAN_COMMITTED)
        log.info("planned", batch=batch_id, deliveries=deliveries)
    return deliveries


def _write(conn: Connection, batch: BatchToPlan) -> int:
    event = planning.lock_event(conn, batch.event_id)
    assert event is not None, "events are never deleted"
    why_not = refusal(event, Audience(batch.audience))
    if why_not is not None:
        planning.refuse_planning(conn, batch.id, f"event {event.event_id} ({event.name}) {why_not}")
        return 0
    trigger = trigger_of(
        event,
        Audience(batch.audience),
        initiator=batch.initiator,
        key=batch.trigger_key,
        policy=UnknownPolicy.HOLD if batch.hold_unknown else UnknownPolicy.RESEND,
        claim_seconds=0,
    )
    planning.write_plan(conn, trigger, batch.id, batch.shuffle_seed)
    deliveries = planning.counts(conn, batch.id).deliveries
    if not planning.finish_planning(conn, batch.id):
        raise _Cancelled
    return deliveries


class Planner:
    """The planning thread of a dispatcher: planning takes seconds, and publishing must not wait for it."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self._url = url
        self._stop = stop
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    def start(self) -> None:
        """Plan until stopped."""
        self._thread.start()

    def join(self) -> None:
        """End, after `stop` was set: a plan under way is rolled back, and planned by another dispatcher or later."""
        # A cancel that comes between two statements has no effect, so it is repeated.
        for _ in range(_END_TRIES):
            connection = self._connection
            if connection is not None:
                with suppress(*OUTAGES):
                    connection.cancel_safe(timeout=_END_SECONDS)
            self._thread.join(_END_SECONDS)
            if not self._thread.is_alive():
                return

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        repeat(self._plan, self._stop, waits="planning waits for PostgreSQL", fails="a batch cannot be planned")

    def _plan(self) -> None:
        with connect(self._url, application="bidden-planner", autocommit=True) as conn:
            self._connection = conn
            try:
                while not self._stop.is_set():
                    if not plan_waiting(conn):
                        self._stop.wait(_IDLE_SECONDS)
            finally:
                self._connection = None
