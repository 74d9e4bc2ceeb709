"""Actions of operators on batches: pause, resume, cancel, retry, resolve, clean up.

Each is refused here, before anything is written, or done. Every function is safe while workers run, may be repeated,
and needs a connection in autocommit mode. A decision takes effect with its first, short transaction; its items follow
in chunks (`producers.decisions`). Items that become due are published by any dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from db import batch_actions, planning, retention
from db.batch_actions import BatchRef, Chunk, Resolution, Resolved
from db.connect import Connection, in_transaction
from db.site_queries import EVERYONE, VisibleMembers
from producers import decisions
from producers.plan import refusal
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_text
from schemas.vocabulary import BatchState

#: How long a command applies its own decision; dispatchers apply the rest.
_OWN_SECONDS: Final = 0.5


class Verdict(StrEnum):
    """An operator's decision about unknown deliveries."""

    RESEND = "resend"
    SENT = "sent"
    FAILED = "failed"


def pause(conn: Connection, batch_id: int) -> None:
    """Publish and claim nothing more of the batch, from the commit on; mails in flight are still recorded."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        state = batch_actions.lock_batch_against_operators(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: there is nothing to pause", field="batch")
        if state == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to pause", field="batch")
        batch_actions.decide(conn, batch_id, BatchState.PAUSED)

    _decide(conn, batch_id, decide)


def resume(conn: Connection, batch_id: int) -> None:
    """Everything unsettled of a paused batch is due. Does nothing for a batch that is running or completed."""
    _require_batch(conn, batch_id)

    def decide() -> None:
        # Not the reported state: a paused batch may be completed, and a retry of it has to run.
        state = batch_actions.stored_state_for_operators(conn, batch_id)
        if state == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: invite again instead", field="batch")
        if state == BatchState.PAUSED:
            batch_actions.decide(conn, batch_id, BatchState.RUNNING)

    _decide(conn, batch_id, decide)


def cancel(conn: Connection, batch_id: int) -> None:
    """Cancel at once and for good. Mails in flight stay pending until their outcome is logged.

    Of a large batch the rest stays pending, too, until dispatchers have settled it.
    """
    _require_batch(conn, batch_id)

    def decide() -> None:
        if batch_actions.lock_batch_against_operators(conn, batch_id) == BatchState.COMPLETED:
            raise RefusedError(f"batch {batch_id} is completed: there is nothing to cancel", field="batch")
        batch_actions.decide(conn, batch_id, BatchState.CANCELLED)

    _decide(conn, batch_id, decide)


def _decide(conn: Connection, batch_id: int, decide: Callable[[], None]) -> None:
    in_transaction(conn, decide)
    decisions.apply_within(conn, batch_id, _OWN_SECONDS)


def retry(conn: Connection, batch_id: int, *, visible: VisibleMembers = EVERYONE) -> int:
    """Make the batch's failed deliveries due again, with all their attempts; returns how many (FM-10).

    Only deliveries to members who are `visible` to the operator.

    In chunks: if this process dies, a part of them is due, and a repeat does the rest.
    """
    batch = _require_batch(conn, batch_id)

    if batch.is_planning:
        # A lock would wait for the end of the planning.
        raise RefusedError(f"batch {batch_id} is still being planned: nothing of it has failed", field="batch")

    def require_open() -> None:
        _require_open_event(conn, batch.event_id)
        if batch_actions.lock_batch(conn, batch_id) == BatchState.CANCELLED:
            raise RefusedError(f"batch {batch_id} is cancelled, for good: invite again instead", field="batch")

    def prepare() -> None:
        require_open()
        batch_actions.reopen_paused(conn, batch_id)

    def retry_chunk(chunk: Chunk) -> int:
        require_open()
        return batch_actions.retry_failed(conn, chunk, visible)

    in_transaction(conn, prepare)
    retried, chunk = 0, batch_actions.next_failed(conn, batch_id, 0, decisions.CHUNK)
    while chunk is not None:
        retried += in_transaction(conn, partial(retry_chunk, chunk))
        decisions.let_workers_go_on()
        chunk = batch_actions.next_failed(conn, batch_id, chunk.upto, decisions.CHUNK)
    return retried


def resolve(
    conn: Connection,
    event_id: int,
    verdict: Verdict,
    *,
    member_id: int | None,
    by: str,
    resend_below: int,
    visible: VisibleMembers = EVERYONE,
) -> Resolved:
    """Resolve the unknown deliveries of the whole event or of one member by an operator's verdict (FM-12).

    Only deliveries to members who are `visible` to the operator.

    In chunks: if this process dies, a part of them is resolved, and a repeat does the rest.
    """
    require_text(by, "by")
    if member_id is not None and not batch_actions.member_exists(conn, member_id):
        raise NotFoundError(f"there is no member {member_id}", field="member")
    resolution = Resolution(event_id, verdict, f"resolved as {verdict} by {by}", member_id, visible)

    def resolve_chunk(wanted: list[dict[str, Any]]) -> Resolved:
        batch_actions.lock_event_against_planning(conn, event_id)
        if verdict is Verdict.RESEND:
            _require_open_event(conn, event_id)
        elif planning.lock_event(conn, event_id) is None:
            raise NotFoundError(f"there is no event {event_id}", field="event")
        return batch_actions.resolve(conn, resolution, wanted, resend_below=resend_below)

    done = Resolved(0)
    while True:
        # Unlocked, so that nobody waits for this search. What is resolved is not found again.
        wanted = batch_actions.unknown_deliveries(conn, resolution, decisions.CHUNK)
        done += in_transaction(conn, partial(resolve_chunk, wanted))
        if len(wanted) < decisions.CHUNK:
            return done
        decisions.let_workers_go_on()


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
