"""Applies decisions about batches to their items, in chunks.

A decision (pause, resume, cancel) is one short transaction that marks its batch. The items follow in chunks, each a
transaction of milliseconds: applied by the command itself for a while, and by any dispatcher. How far it got is stored
on the batch, so a process that dies loses nothing. A later decision begins again with the first item: the batch's
state, read under a lock, says what a chunk does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import psycopg
import structlog

from db import batch_actions
from db.batch_actions import UnappliedDecision
from db.connect import Connection, in_transaction
from schemas.vocabulary import BatchState

log = structlog.get_logger()

#: Items in one transaction. Workers of a cancelled or paused batch wait for it: some 50 ms.
CHUNK: Final = 500
#: Workers that waited for a chunk get their turn before the next one.
_BETWEEN_CHUNKS_SECONDS: Final = 0.005
_LOCK_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 0.05


class Step(Enum):
    """The result of one chunk."""

    #: The decision is applied to all items.
    DONE = auto()
    MORE = auto()
    #: Another session held a lock for too long; nothing was done.
    BUSY = auto()


def apply_chunk(conn: Connection, batch_id: int, *, lock_seconds: float = _LOCK_SECONDS) -> Step:
    """Apply the batch's last decision to its next items. Any number of processes may do so at once.

    `conn` must be in autocommit mode. Waits at most `lock_seconds` for each lock.
    """
    decision = batch_actions.unapplied_decision(conn, batch_id)
    if decision is None:
        return Step.DONE

    def work() -> Step:
        batch_actions.limit_lock_waits(conn, lock_seconds)
        _lock(conn, batch_id, decision)
        now = batch_actions.unapplied_decision(conn, batch_id)
        if now is None:
            return Step.DONE
        # Decided otherwise while this waited: another lock may be wanted.
        return _apply(conn, batch_id, now) if now.state == decision.state else Step.MORE

    try:
        return in_transaction(conn, work)
    except psycopg.errors.LockNotAvailable:
        return Step.BUSY


def _lock(conn: Connection, batch_id: int, decision: UnappliedDecision) -> None:
    """Workers may go on with a batch that runs: making their items due cannot undo what they record."""
    if decision.state == BatchState.RUNNING:
        batch_actions.lock_batch_against_operators(conn, batch_id)
    else:
        # Workers that read the old state have committed when this is granted; none claims after that.
        batch_actions.lock_batch(conn, batch_id)


def _apply(conn: Connection, batch_id: int, decision: UnappliedDecision) -> Step:
    is_cancelled = decision.state == BatchState.CANCELLED
    chunk, has_more = batch_actions.next_chunk(conn, batch_id, decision.applied_to, CHUNK, settled=is_cancelled)
    if chunk is not None:
        if is_cancelled:
            batch_actions.cancel_items(conn, chunk)
        elif decision.state == BatchState.PAUSED:
            batch_actions.make_items_not_due(conn, chunk)
        else:
            batch_actions.make_items_due(conn, chunk, decision.unapplied_since)
    batch_actions.store_applied(conn, batch_id, chunk.upto if chunk is not None and has_more else None)
    return Step.MORE if has_more else Step.DONE


def apply_within(
    conn: Connection, batch_id: int, seconds: float, *, monotonic: Callable[[], float] = time.monotonic
) -> bool:
    """Apply the batch's last decision for about so many seconds; whether it is applied to all items."""
    end = monotonic() + seconds
    while True:
        step = apply_chunk(conn, batch_id)
        if step is Step.DONE:
            return True
        if monotonic() >= end:
            return False
        time.sleep(_BUSY_SECONDS if step is Step.BUSY else _BETWEEN_CHUNKS_SECONDS)


def let_workers_go_on() -> None:
    """Between two chunks that lock workers out."""
    time.sleep(_BETWEEN_CHUNKS_SECONDS)


class DecisionsLeft:
    """What a dispatcher does of the decisions that were not applied by their own command."""

    #: A batch whose lock was not granted is left alone for that long.
    _PAUSE_SECONDS: Final = 1.0
    #: Then it publishes what is due before it applies more.
    _SHARE_SECONDS: Final = 0.25
    #: A dispatcher waits shorter than a command: it has mails to publish.
    _LOCK_SECONDS: Final = 0.25

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._locked_until: dict[int, float] = {}

    def apply_some(self, conn: Connection) -> bool:
        """A chunk of each batch that has a decision left, for a short time; whether there are more to apply at once.

        `conn` must be in autocommit mode.
        """
        began = self._monotonic()
        self._locked_until = {batch: until for batch, until in self._locked_until.items() if until > began}
        has_more = False
        for batch_id in batch_actions.unapplied_batches(conn):
            if batch_id in self._locked_until:
                continue
            if self._monotonic() > began + self._SHARE_SECONDS:
                return True
            step = apply_chunk(conn, batch_id, lock_seconds=self._LOCK_SECONDS)
            if step is Step.BUSY:
                self._locked_until[batch_id] = self._monotonic() + self._PAUSE_SECONDS
                log.info("the items of a batch are locked; its decision is applied later", batch=batch_id)
            has_more = has_more or step is Step.MORE
        return has_more
