"""A backup, what is published after it, its restore, and what the restored ledger learns (db/sql/restores.sql)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol import rules
from tests.protocol.state import (
    CLAIMED,
    HANDING_OFF,
    PLANNED,
    SENT,
    UNKNOWN,
    Backup,
    Hand,
    Move,
    State,
    Worker,
    put,
    with_delivery,
    with_hand,
)
from tests.protocol.worker import Ledger


def moves(ledger: Ledger, state: State) -> Iterator[Move]:
    """What can be taken of these steps."""
    if state.backup is None:
        if state.faults:
            nothing = (None,) * len(state.deliveries)
            kept = state._replace(backup=Backup(state.batches, state.deliveries, nothing))
            yield Move("back up", (), kept, helps=False)
        return
    if state.restored:
        yield Move("reconcile", (), reconciled(ledger, state))
        return
    for slot, delivery in enumerate(state.deliveries):
        outcome = delivery.state, delivery.batch
        changed = delivery._replace(accepted=0) != state.backup.deliveries[slot]._replace(accepted=0)
        if changed and delivery.state != HANDING_OFF and state.backup.published[slot] != outcome:
            yield Move("the outcome of {} is published", (slot,), _published(state, slot, outcome))
    for worker, at_work in enumerate(state.workers):
        for slot, hand in enumerate(at_work.hands):
            if hand.unpublished and hand.phase == CLAIMED:
                claim = (CLAIMED, at_work.batch)
                # One that is not the newest any more says nothing of the newest.
                after = _published(state, slot, claim) if hand.newest else state
                name = ("the owner", "the zombie")[worker]
                yield Move("{} tells its claim of {}", (name, slot), with_hand(after, worker, slot, _bare(hand)))
    if state.faults:
        yield Move("restore", (), _restored(ledger, state), helps=False)


def _bare(hand: Hand) -> Hand:
    return hand._replace(unpublished=False)


def _published(state: State, slot: int, what: tuple[str, int]) -> State:
    assert state.backup is not None
    return state._replace(backup=state.backup._replace(published=put(state.backup.published, slot, what)))


def _restored(ledger: Ledger, state: State) -> State:
    """All workers are gone, and so is what the ledger has learned. What was accepted stays accepted."""
    backup = state.backup
    assert backup is not None
    deliveries = tuple(
        old._replace(accepted=now.accepted) for old, now in zip(backup.deliveries, state.deliveries, strict=True)
    )
    idle = Worker((Hand(),) * len(deliveries))
    # With nothing published nobody can know that it was restored.
    noticed = any(backup.published) and rules.REFUSES_RESTORED not in ledger.off
    return state._replace(
        batches=backup.batches,
        deliveries=deliveries,
        workers=(idle,) * len(state.workers),
        backup=backup if noticed else None,
        restored=noticed,
        faults=state.faults - 1,
    )


def reconciled(ledger: Ledger, state: State) -> State:
    """The ledger adopts what was published, and settles what that is about."""
    backup = state.backup
    assert backup is not None
    state = state._replace(backup=None, restored=False, faults=0)
    touched = []
    for slot, event in enumerate(backup.published):
        if event is None:
            continue
        touched.append(slot)
        what, claimed_by = event
        delivery = state.deliveries[slot]
        if what == SENT:
            learned = delivery._replace(state=SENT, live=False, waits=False, batch=claimed_by)
        elif what in (CLAIMED, UNKNOWN):
            learned = delivery._replace(
                state=UNKNOWN, live=False, waits=False, batch=claimed_by, attempts=min(delivery.attempts + 1, 2)
            )
        elif delivery.state == HANDING_OFF:
            learned = delivery._replace(state=PLANNED, live=False)
        else:
            learned = delivery
        state = with_delivery(state, slot, learned)
    for index, batch in enumerate(state.batches):
        slots = [slot for slot in touched if slot in batch.slots]
        if slots and not batch.settled:
            state = ledger.settle(state, index, slots)
    for slot in touched:
        state = ledger.correct_log_entries(state, slot)
    return state
