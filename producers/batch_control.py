"""Actions of operators on batches: pause, resume, cancel, retry, resolve, clean up.

Each is refused here, before anything is written, or done. Every function is safe while workers run, may be repeated,
and needs a connection in autocommit mode. Items that become due are published by any dispatcher.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from db import batch_actions, planning, retention
from db.batch_actions import BatchRef, Resolution, Resolved
from db.connect import Connection, in_transaction
from producers.plan import refusal
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_text
from schemas.vocabulary import BatchState


class Verdict(StrEnum):
    """An operator's decision about unknown deliveries."""

    RESEND = "resend"
    SENT = "sent"
    FAILED = "failed"


def pause(conn: Connection, batch_id: int) -> None:
    """Publish and claim nothing more of the batch, from the first commit on; mails in flight are still recorded."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        state = batch_actions.lock_batch_against_operators(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: there is nothing to pause", field="batch")
        if state == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to pause", field="batch")
        batch_actions.set_batch_state(conn, batch_id, BatchState.PAUSED)

    def clear_due_times() -> None:
        if batch_actions.lock_batch(conn, batch_id) == BatchState.PAUSED:
            batch_actions.make_items_not_due(conn, batch_id)

    # Two transactions: workers see the first at once; the second waits for those that are committing.
    in_transaction(conn, decide)
    in_transaction(conn, clear_due_times)


def resume(conn: Connection, batch_id: int) -> None:
    """Everything unsettled of a paused batch is due. Does nothing for a batch that is running or completed."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        state = batch_actions.lock_batch(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: invite again instead", field="batch")
        if state == BatchState.PAUSED:
            batch_actions.set_batch_state(conn, batch_id, BatchState.RUNNING)
            batch_actions.make_items_due(conn, batch_id)

    in_transaction(conn, decide)


def cancel(conn: Connection, batch_id: int) -> None:
    """Cancel at once and for good. Mails in flight stay pending until their outcome is logged.

    If this process dies between the transactions the batch is cancelled, and workers, or a repeat, settle the rest.
    """
    _require_batch(conn, batch_id)

    def decide() -> None:
        if batch_actions.lock_batch_against_operators(conn, batch_id) == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to cancel", field="batch")
        batch_actions.set_batch_state(conn, batch_id, BatchState.CANCELLED)

    def settle() -> None:
        batch_actions.lock_batch(conn, batch_id)
        batch_actions.cancel_items(conn, batch_id)

    in_transaction(conn, decide)
    in_transaction(conn, settle)


def retry(conn: Connection, batch_id: int) -> int:
    """Make the batch's failed deliveries due again, with all their attempts; returns how many (FM-10)."""
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
    """Resolve the unknown deliveries of the whole event or of one member by an operator's verdict (FM-12)."""
    require_text(by, "by")
    if member_id is not None and not batch_actions.member_exists(conn, member_id):
        raise NotFoundError(f"there is no member {member_id}", field="member")
    resolution = Resolution(event_id, verdict, f"resolved as {verdict} by {by}", member_id)

    def decide() -> Resolved:
        batch_actions.lock_event_against_planning(conn, event_id)
        if verdict is Verdict.RESEND:
            _require_open_event(conn, event_id)
        elif planning.lock_event(conn, event_id) is None:
            raise NotFoundError(f"there is no event {event_id}", field="event")
        return batch_actions.resolve(conn, resolution, resend_below=resend_below)

    return in_transaction(conn, decide)


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """How many rows of logs and items were removed, and from how many batches."""

    removed: int
    batches: int


def clean_up(conn: Connection, older_than: timedelta) -> CleanupResult:
    """Run all rules of retention to their end. Never the ledger (FM-26).

    `older_than`: how long ago a batch must have ended to lose its log and items.
    """
    done = retention.run_all(conn, older_than.total_seconds())
    return CleanupResult(done.rows[retention.OF_BATCHES], done.batches)


def _require_batch(conn: Connection, batch_id: int) -> BatchRef:
    batch = batch_actions.find_batch(conn, batch_id)
    if batch is None:
        raise NotFoundError(f"there is no batch {batch_id}", field="batch")
    return batch


def _require_open_event(conn: Connection, event_id: int) -> None:
    """Lock the event as planning does. RefusedError if it is no longer open for invitations."""
    event = planning.lock_event(conn, event_id)
    if event is None:
        raise NotFoundError(f"there is no event {event_id}", field="event")
    why_not = refusal(event)
    if why_not:
        raise RefusedError(f"event {event_id} ({event.name}) {why_not}: no mail is sent about it", field="event")
