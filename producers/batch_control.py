"""What a person decides about batches under way: pause, resume, cancel, retry, resolve, clean up.

Refusals are decided here, before anything is written. Every function is safe while workers run, may be repeated, and
needs a connection in autocommit mode. What becomes due is published by whichever dispatcher is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial

from db import batch_actions, planning
from db.batch_actions import KnownBatch, Resolution, Resolved
from db.connect import Connection, in_transaction
from producers.plan import refusal
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_words
from schemas.vocabulary import BatchState


class Verdict(StrEnum):
    """What a person says of deliveries in doubt."""

    RESEND = "resend"
    SENT = "sent"
    FAILED = "failed"


def pause(conn: Connection, batch_id: int) -> None:
    """Nothing more of the batch is published or marked, from the first commit on; what is in flight is recorded."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        state = batch_actions.hold_batch(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: there is nothing to pause", field="batch")
        if state == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to pause", field="batch")
        batch_actions.decide_state(conn, batch_id, BatchState.PAUSED)

    def tidy() -> None:
        if batch_actions.lock_batch(conn, batch_id) == BatchState.PAUSED:
            batch_actions.rest_items(conn, batch_id)

    # Two transactions: the first is seen by every worker at once, the second waits for those that are committing.
    in_transaction(conn, decide)
    in_transaction(conn, tidy)


def resume(conn: Connection, batch_id: int) -> None:
    """A paused batch goes on: all that is unsettled is due. Nothing to do for one that runs, or has ended by itself."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        state = batch_actions.lock_batch(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: invite again instead", field="batch")
        if state == BatchState.PAUSED:
            batch_actions.decide_state(conn, batch_id, BatchState.RUNNING)
            batch_actions.make_items_due(conn, batch_id)

    in_transaction(conn, decide)


def cancel(conn: Connection, batch_id: int) -> None:
    """At once and for good. What is in flight stays pending until it is logged as what became of it.

    If this dies half-way the batch is cancelled, and workers settle the rest as its messages come; so does a repeat.
    """
    _require_batch(conn, batch_id)

    def decide() -> None:
        if batch_actions.hold_batch(conn, batch_id) == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to cancel", field="batch")
        batch_actions.decide_state(conn, batch_id, BatchState.CANCELLED)

    def settle() -> None:
        batch_actions.lock_batch(conn, batch_id)
        batch_actions.end_items(conn, batch_id)

    in_transaction(conn, decide)
    in_transaction(conn, settle)


def retry(conn: Connection, batch_id: int) -> int:
    """The batch's failed deliveries are due again, with all their attempts; returns how many (FM-10)."""
    batch = _require_batch(conn, batch_id)

    def decide() -> int:
        _require_open_event(conn, batch.event_id)
        if batch_actions.lock_batch(conn, batch_id) == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: invite again instead", field="batch")
        return batch_actions.retry_failed(conn, batch_id)

    return in_transaction(conn, decide)


def resolve(
    conn: Connection, event_id: int, verdict: Verdict, *, member_id: int | None, by: str, resend_below: int
) -> Resolved:
    """A person's word about what is unknown, for the whole event or one member (FM-12)."""
    require_words(by, "by")
    if member_id is not None and not batch_actions.member_exists(conn, member_id):
        raise NotFoundError(f"there is no member {member_id}", field="member")
    resolution = Resolution(event_id, verdict, f"resolved as {verdict} by {by}", member_id)

    def decide() -> Resolved:
        batch_actions.hold_event(conn, event_id)
        if verdict is Verdict.RESEND:
            _require_open_event(conn, event_id)
        elif planning.lock_event(conn, event_id) is None:
            raise NotFoundError(f"there is no event {event_id}", field="event")
        return batch_actions.resolve(conn, resolution, resend_below=resend_below)

    return in_transaction(conn, decide)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Rows of logs and items that were removed, and of how many batches."""

    removed: int
    batches: int


def clean_up(conn: Connection, older_than: timedelta) -> Cleaned:
    """Remove logs and items of batches that ended longer ago, one transaction each; never the ledger (FM-26)."""
    seconds = older_than.total_seconds()
    removed = [
        in_transaction(conn, partial(batch_actions.clean_batch, conn, batch_id, seconds))
        for batch_id in batch_actions.batches_to_clean(conn, seconds)
    ]
    return Cleaned(sum(removed), sum(rows > 0 for rows in removed))


def _require_batch(conn: Connection, batch_id: int) -> KnownBatch:
    batch = batch_actions.find_batch(conn, batch_id)
    if batch is None:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    return batch


def _require_open_event(conn: Connection, event_id: int) -> None:
    """Holds the event as planning does. RefusedError if nobody may be invited to it any more."""
    event = planning.lock_event(conn, event_id)
    if event is None:
        raise NotFoundError(f"there is no event {event_id}", field="event")
    why_not = refusal(event)
    if why_not:
        raise RefusedError(f"event {event_id} ({event.name}) {why_not}: nobody is mailed about it", field="event")
