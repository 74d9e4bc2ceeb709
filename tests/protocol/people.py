"""What people decide (db/sql/batch_actions.sql, db/sql/planning.sql), each as a function from state to state."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol import people_rules
from tests.protocol.state import (
    ABSENT,
    CANCELLED,
    FAILED,
    HANDING_OFF,
    NONE,
    PAUSED,
    PLANNED,
    RETRY,
    RUNNING,
    SENT,
    SETTLING,
    SKIPPED,
    UNKNOWN,
    Move,
    State,
    older_claims,
    outdate,
    put,
    with_batch,
    with_delivery,
)
from tests.protocol.worker import Ledger, reopened

#: What was in doubt is as it is: a person's word, not a policy that would send again.
_RESEND_NEVER = 0


def is_locked(state: State, index: int) -> bool:
    """Whether a worker is inside a transaction about the batch: `lock_batches` keeps chunks waiting."""
    return any(w.batch == index and any(h.phase == SETTLING for h in w.hands) for w in state.workers)


def decisions(ledger: Ledger, state: State) -> Iterator[Move]:
    """What people can do now. A paused batch can always be resumed; the rest is bounded.

    A decision about a batch stores its state and waits for nobody; a later step applies it to the item, at any time,
    by any process.
    """
    for index, batch in enumerate(state.batches):
        if batch.state == PAUSED:
            resumed = batch._replace(state=RUNNING, unapplied=True)
            yield Move("resume batch {}", (index,), with_batch(state, index, resumed))
        if batch.unapplied and (batch.state == RUNNING or not is_locked(state, index)):
            yield Move("the decision on batch {} is applied", (index,), apply(ledger, state, index))
    if state.stale:
        yield Move("a snapshot is taken", (), state._replace(stale=False))
    if not state.decisions:
        return
    events, spent = ledger.scope.events, state._replace(decisions=state.decisions - 1)
    for index in range(len(state.batches)):
        for name, after in _about_batch(ledger, spent, index):
            yield Move("{} batch {}", (name, index), after, helps=False)
    if "resolve" in events and not any(is_locked(state, index) for index in range(len(state.batches))):
        for verdict in (SENT, FAILED, "resend"):
            after = resolve(ledger, spent, verdict)
            if after is not spent:
                yield Move("resolve as {}", (verdict,), after, helps=False)
    if "stale" in events and not state.stale:
        yield Move("the snapshot is too old", (), outdate(spent), helps=False)
    if "ban" in events and not state.barred:
        yield Move("ban", (), spent._replace(barred=True), helps=False)
    if "lift ban" in events and state.barred:
        yield Move("lift the ban", (), spent._replace(barred=False), helps=False)


def _about_batch(ledger: Ledger, state: State, index: int) -> Iterator[tuple[str, State]]:
    batch, events = state.batches[index], ledger.scope.events
    if batch.state == ABSENT:
        if "plan" in events:
            after = plan(ledger, state, index)
            if after is not state:
                yield "plan", after
        return
    if "pause" in events and batch.state == RUNNING and not batch.settled:
        yield "pause", with_batch(state, index, batch._replace(state=PAUSED, unapplied=True))
    if "cancel" in events and batch.state != CANCELLED and not batch.settled:
        yield "cancel", with_batch(state, index, batch._replace(state=CANCELLED, unapplied=True))
    if "retry" in events and batch.state != CANCELLED and not is_locked(state, index):
        after = retry(ledger, state, index)
        if after is not state:
            yield "retry", after


def plan(ledger: Ledger, state: State, index: int) -> State:
    """A new batch for the slots that are open; what failed or was skipped is open again. The same state, if none is."""
    batch = state.batches[index]
    closed = {SENT} if ledger.scope.resend_below else {SENT, UNKNOWN}
    slots = tuple(s for s in batch.slots if state.deliveries[s].state not in closed)
    if state.barred or not slots:
        return state
    for slot in slots:
        if state.deliveries[slot].state in (FAILED, SKIPPED) or people_rules.ONLY_CLOSED in ledger.off:
            state = reopened(state, slot)
    return with_batch(state, index, batch._replace(state=RUNNING, slots=slots, due=True, settled=False))


def apply(ledger: Ledger, state: State, index: int) -> State:
    """A chunk of `producers.decisions`: the item follows what was decided last."""
    batch = state.batches[index]
    if batch.state == CANCELLED:
        return cancel_items(ledger, state, index)
    due = batch.state == RUNNING and (not batch.settled or people_rules.SETTLED_STAYS in ledger.off)
    return with_batch(state, index, batch._replace(unapplied=False, due=due))


def cancel_items(ledger: Ledger, state: State, index: int) -> State:
    """The chunk of a cancelled batch: `cancel_deliveries` and `settle_cancelled_items`."""
    batch = state.batches[index]
    for slot in batch.slots:
        delivery = state.deliveries[slot]
        takes = delivery.state in (PLANNED, RETRY) or (
            people_rules.IN_FLIGHT_STAYS in ledger.off and delivery.state == HANDING_OFF
        )
        if takes and not _another_has_it(state, index, slot):
            skipped = delivery._replace(state=SKIPPED, batch=index, waits=False, live=False)
            state = with_delivery(state, slot, skipped)
            if people_rules.CANCEL_CORRECTS not in ledger.off:
                state = ledger.correct_log_entries(state, slot)
    batch = state.batches[index]._replace(unapplied=False)
    if batch.settled:
        return with_batch(state, index, batch)
    log, ends = batch.log, True
    for slot in batch.slots:
        delivery = state.deliveries[slot]
        in_flight = delivery.state == HANDING_OFF and delivery.batch == index
        if (in_flight and people_rules.LOGGED_IS_NOT_OVER not in ledger.off) or log[slot] not in (
            SENT,
            FAILED,
            SKIPPED,
        ):
            final = ledger.judgement(state, index, slot, _RESEND_NEVER)
            ends = ends and final is not None
            log = log if final is None else put(log, slot, final)
    return with_batch(state, index, batch._replace(log=log, settled=ends, due=batch.due and not ends))


def _another_has_it(state: State, index: int, slot: int) -> bool:
    return any(
        other != index and batch.state not in (CANCELLED, ABSENT) and not batch.settled and slot in batch.slots
        for other, batch in enumerate(state.batches)
    )


def retry(ledger: Ledger, state: State, index: int) -> State:
    """What failed in the batch is planned again. The same state, if nothing did."""
    before = state
    for slot in state.batches[index].slots:
        still = state.deliveries[slot].state == FAILED or people_rules.ONLY_FAILED in ledger.off
        if state.batches[index].log[slot] == FAILED and still:
            state = reopened(state, slot)
            batch = state.batches[index]
            if batch.state == PAUSED and batch.settled:
                batch = batch._replace(state=RUNNING)
            batch = batch._replace(log=put(batch.log, slot, RETRY))
            if people_rules.RETRY_IS_DUE not in ledger.off:
                batch = batch._replace(settled=False, due=batch.state == RUNNING)
            state = with_batch(state, index, batch)
    return state if state is not before else before


def resolve(ledger: Ledger, state: State, verdict: str) -> State:
    """A person's word about what is unknown of the member. The same state, if nothing is."""
    resolvable = (UNKNOWN, SENT) if people_rules.ONLY_DOUBT in ledger.off else (UNKNOWN,)
    slots = [slot for slot, delivery in enumerate(state.deliveries) if delivery.state in resolvable]
    for slot in slots:
        state = _resolve_delivery(state, slot, verdict)
    entries = [(i, s) for i, batch in enumerate(state.batches) for s in slots if batch.log[s] == UNKNOWN]
    for index, slot in entries:
        batch = state.batches[index]
        if verdict == "resend" and batch.state == PAUSED and batch.settled:
            state = with_batch(state, index, batch._replace(state=RUNNING))
        if people_rules.WORD_IN_LOGS not in ledger.off:
            status = ledger.judgement(state, index, slot) or RETRY
            batch = state.batches[index]
            state = with_batch(state, index, batch._replace(log=put(batch.log, slot, status)))
    for index in sorted({index for index, _ in entries}):
        state = _settle_resolved(ledger, state, index)
    return state


def _resolve_delivery(state: State, slot: int, verdict: str) -> State:
    delivery = state.deliveries[slot]._replace(live=False)
    if verdict != "resend":
        return with_delivery(state, slot, delivery._replace(state=verdict, word=True))
    has_batch = any(batch.log[slot] == UNKNOWN and batch.state != CANCELLED for batch in state.batches)
    fresh = delivery._replace(
        state=PLANNED if has_batch else SKIPPED,
        batch=NONE if has_batch else delivery.batch,
        attempts=0,
        accepted=0,
        word=False,
    )
    return with_delivery(older_claims(state, slot), slot, fresh)


def _settle_resolved(ledger: Ledger, state: State, index: int) -> State:
    if people_rules.RESEND_IS_DUE in ledger.off:
        return state
    batch = state.batches[index]
    finals = sum(
        batch.log[slot] not in (None, RETRY) and ledger.judgement(state, index, slot) is not None
        for slot in batch.slots
    )
    settled = finals >= len(batch.slots)
    return with_batch(state, index, batch._replace(settled=settled, due=not settled and batch.state != PAUSED))
