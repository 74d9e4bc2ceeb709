"""What must hold of every state, of every step, and of every future."""

from __future__ import annotations

from tests.protocol.scopes import Scope
from tests.protocol.state import (
    ABSENT,
    ANSWERED,
    CANCELLED,
    CLAIMED,
    FAILED,
    FINAL,
    HANDING_OFF,
    PAUSED,
    PLANNED,
    RETRY,
    RUNNING,
    SENT,
    SKIPPED,
    THEIRS,
    UNKNOWN,
    Batch,
    Delivery,
    Move,
    State,
)

_ACTIVE = ANSWERED | {CLAIMED}


def broken(scope: Scope, state: State) -> str | None:
    """What does not hold of the state."""
    for slot, delivery in enumerate(state.deliveries):
        wrong = _wrong_delivery(scope, state, slot, delivery)
        if wrong:
            return f"delivery {slot}: {wrong}"
    for index, batch in enumerate(state.batches):
        wrong = _wrong_batch(state, index, batch)
        if wrong:
            return f"batch {index}: {wrong}"
    return None


def _wrong_delivery(scope: Scope, state: State, slot: int, delivery: Delivery) -> str | None:
    holds = not scope.resend_below
    if holds and delivery.accepted > 1:
        return "two mails were accepted"
    if delivery.attempts > scope.max_attempts:
        return "more attempts than there are"
    if delivery.state == SENT and not delivery.accepted and not delivery.word:
        return "the ledger says sent, and no mail was accepted"
    if "steady" in scope.events and delivery.state == UNKNOWN:
        return "unknown, although every worker lives and knows the outcome"
    at_work = any(worker.hands[slot].phase in _ACTIVE for worker in state.workers)
    known = delivery.word or delivery.state in (SENT, UNKNOWN, HANDING_OFF) or state.restored
    # What a rival mailed the ledger learns from the source.
    known = known or state.row == THEIRS
    if holds and delivery.accepted and not at_work and not known:
        return f"a mail was accepted, and the ledger says {delivery.state}"
    if delivery.state in (PLANNED, RETRY):
        having = [batch for batch in state.batches if batch.state != ABSENT and slot in batch.slots]
        if all(batch.settled and not batch.unapplied for batch in having):
            return f"{delivery.state}, and no batch has it to do"
    return None


def _wrong_batch(state: State, index: int, batch: Batch) -> str | None:
    if batch.settled and batch.due:
        return "settled and due"
    for slot in batch.slots:
        delivery, status = state.deliveries[slot], batch.log[slot]
        own = delivery.batch == index
        if status == SENT and not (delivery.state == SENT and own):
            return f"logs {slot} as sent, and the ledger does not say that it sent it"
        if not batch.settled or batch.state == ABSENT:
            continue
        if status not in FINAL:
            return f"settled, and its log says of {slot}: {status}"
        if delivery.state == HANDING_OFF and own:
            return f"settled, and {slot} is in flight for it"
        if delivery.state == SENT and own and status != SENT:
            return f"logs what it sent as {status}"
        if status == UNKNOWN and delivery.state in (SENT, FAILED, SKIPPED):
            return f"logs {slot} as unknown, and the ledger says {delivery.state}"
    return None


def broken_step(before: State, move: Move) -> str | None:
    """What does not hold of the step."""
    after = move.state
    if move.verb == "restore":
        return None
    if before.deliveries is not after.deliveries:
        for slot, (old, new) in enumerate(zip(before.deliveries, after.deliveries, strict=True)):
            wrong = _wrong_change(before, old, new) if old is not new else None
            if wrong:
                return f"delivery {slot}: {wrong}"
    if before.batches is not after.batches:
        for index, (was, is_now) in enumerate(zip(before.batches, after.batches, strict=True)):
            if was.log is not is_now.log and _skipped_for_nothing(before, after, index):
                return f"batch {index}: logs as skipped whom it may mail"
    if len(after.topic) > len(before.topic) and after.batches[after.topic[-1]].state == PAUSED:
        return "a paused batch was published"
    published = after.batches[after.topic[-1]] if len(after.topic) > len(before.topic) else None
    if (
        published
        and not move.verb.startswith("replay")
        and (before.stale or (published.placing and published.state != CANCELLED))
    ):
        return "published, and nothing can be claimed"
    return None


def _wrong_change(before: State, old: Delivery, new: Delivery) -> str | None:
    if old.state == SENT and (new.state != SENT or new.batch != old.batch):
        return "what was sent has changed"
    if new.accepted > old.accepted and before.stale:
        return "a mail was begun by what an old snapshot says"
    if new.state == HANDING_OFF and old.state != HANDING_OFF:
        batch = before.batches[new.batch]
        if before.stale:
            return "claimed by what an old snapshot says"
        if before.barred:
            return "claimed, and the member may not be mailed"
        if batch.state != RUNNING:
            return f"claimed for a batch that is {batch.state}"
        if batch.settled:
            return "claimed for an item that is settled"
        if old.waits:
            return "claimed before its time"
    return None


def _skipped_for_nothing(before: State, after: State, index: int) -> bool:
    batch = after.batches[index]
    if after.barred or batch.state == CANCELLED:
        return False
    for slot in batch.slots:
        if batch.log[slot] == SKIPPED and before.batches[index].log[slot] != SKIPPED:
            delivery = after.deliveries[slot]
            its_own = delivery.state == SKIPPED and delivery.batch == index
            if delivery.state != SENT and not its_own and before.batches[index].log[slot] != UNKNOWN:
                return True
    return False


def is_over(state: State) -> bool:
    """Whether everything that was planned is settled."""
    return all(batch.settled for batch in state.batches)
