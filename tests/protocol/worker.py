"""What a worker's statements do (db/sql/ledger.sql), each as a function from state to state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.protocol import rules
from tests.protocol.rule import Rule
from tests.protocol.scopes import Scope
from tests.protocol.state import (
    ACCEPTED,
    ANSWERED,
    CANCELLED,
    CLAIMED,
    DONE,
    FAILED,
    FINAL,
    HANDING_OFF,
    IN_DOUBT,
    NONE,
    NOT_SENT,
    NOTED_TOO,
    OURS,
    PLANNED,
    REFUSED,
    REFUSED_ONCE,
    RETRY,
    RUNNING,
    SENT,
    SKIPPED,
    THEIRS,
    UNHEARD,
    UNKNOWN,
    Batch,
    Delivery,
    Hand,
    State,
    Worker,
    older_claims,
    put,
    with_batch,
    with_delivery,
    with_hand,
)


@dataclass(frozen=True)
class Ledger:
    """The statements, under a scope's policy, and with some rules off."""

    scope: Scope
    off: frozenset[Rule] = frozenset()

    def judgement(self, state: State, index: int, slot: int, resend_below: int | None = None) -> str | None:
        """What the delivery means for the batch; None while it is pending."""
        delivery, batch = state.deliveries[slot], state.batches[index]
        own = delivery.batch == index
        if delivery.state == SENT:
            return SENT if own or rules.ONE_SENDER in self.off else SKIPPED
        if delivery.state == FAILED:
            return FAILED
        if delivery.state == SKIPPED and (own or rules.ITS_OWN_SKIP in self.off):
            return SKIPPED
        if delivery.state == UNKNOWN:
            below = self.scope.resend_below if resend_below is None else resend_below
            if delivery.attempts >= below or state.barred or batch.state == CANCELLED:
                return UNKNOWN
        elif batch.state == CANCELLED:
            in_flight = delivery.state == HANDING_OFF and own and rules.IN_FLIGHT_IS_OPEN not in self.off
            return None if in_flight else SKIPPED
        return None

    def may_claim(self, state: State, worker: int, slot: int) -> bool:
        """Whether `claim_deliveries` finds the delivery claimable for that worker's message."""
        index = state.workers[worker].batch
        batch, delivery = state.batches[index], state.deliveries[slot]
        if state.barred and rules.ELIGIBLE not in self.off:
            return False
        if state.stale and rules.FRESH not in self.off:
            return False
        if batch.state != RUNNING and rules.RUNS not in self.off:
            return False
        if batch.settled and rules.UNSETTLED not in self.off:
            return False
        if batch.placing and rules.PLACED not in self.off:
            return False
        if self._not_in_source(state) and rules.IN_SOURCE not in self.off:
            return False
        return self._takeable(delivery, index, state.workers[worker].hands[slot])

    def _not_in_source(self, state: State) -> bool:
        return "place" in self.scope.events and state.placement not in (OURS, THEIRS)

    def _takeable(self, delivery: Delivery, index: int, hand: Hand) -> bool:
        below = self.scope.resend_below
        match delivery.state:
            case "planned":
                return True
            case "retry":
                return not delivery.waits or rules.BACK_OFF in self.off
            case "skipped":
                return delivery.batch != index
            case "handing_off":
                if hand.newest and rules.UNHEARD not in self.off:
                    return True
                if delivery.live:
                    return rules.BUSY in self.off
                return delivery.attempts + 1 < below or rules.HOLD_EXPIRED in self.off
            case "unknown":
                return delivery.attempts < below or rules.HOLD in self.off
            case "sent":
                return rules.SENT_IS_CLOSED in self.off
        return False

    def claim(self, state: State, worker: int, slot: int, phase: str) -> State:
        """Give the worker a claim with a new fence; `phase` says whether it hears of it."""
        delivery, hand = state.deliveries[slot], state.workers[worker].hands[slot]
        own = hand.newest
        expired = delivery.state == HANDING_OFF and not own
        if rules.NEW_FENCE not in self.off:
            state = older_claims(state, slot)
        claimed = delivery._replace(
            state=HANDING_OFF,
            live=True,
            batch=state.workers[worker].batch,
            attempts=delivery.attempts + expired,
            waits=False,
        )
        hand = Hand(phase, newest=True, permitted=True, unpublished=state.backup is not None)
        return with_hand(with_delivery(state, slot, claimed), worker, slot, hand)

    def reject(self, state: State, worker: int, slot: int) -> State:
        """What becomes of a delivery that was requested and not claimed."""
        index = state.workers[worker].batch
        delivery, hand = state.deliveries[slot], state.workers[worker].hands[slot]
        batch = state.batches[index]
        excluded = state.barred or (self._not_in_source(state) and rules.IN_SOURCE not in self.off)
        skips = batch.state == RUNNING and not batch.placing and excluded and rules.SKIPS not in self.off
        free = delivery._replace(live=False, waits=False)
        if delivery.state == HANDING_OFF:
            if hand.newest and not self.off & {rules.GIVEN_BACK, rules.UNHEARD}:
                doubtful = delivery.attempts > 0 and self.scope.resend_below > 0
                given_back = UNKNOWN if doubtful else SKIPPED if skips else PLANNED
                return with_delivery(state, slot, free._replace(state=given_back, batch=index))
            if not delivery.live and rules.EXPIRES not in self.off:
                return with_delivery(state, slot, free._replace(state=UNKNOWN, attempts=delivery.attempts + 1))
        elif delivery.state in (PLANNED, RETRY, SKIPPED) and skips:
            return with_delivery(state, slot, free._replace(state=SKIPPED, batch=index))
        return state

    def record(self, state: State, worker: int, slot: int) -> State:
        """What the worker knows of its mail, if its claim is still the newest and nothing else is written."""
        return self._record(state, state.workers[worker].batch, slot, state.workers[worker].hands[slot])

    def settle_journal(self, state: State, journal: Worker) -> State:
        """What a journal tells of the claims of its dead worker, recorded as that worker would have done."""
        for slot, hand in enumerate(journal.hands):
            if hand.phase in ANSWERED:
                known = hand
            elif hand.begun:
                known = hand._replace(phase=IN_DOUBT)
            elif hand.phase in (CLAIMED, UNHEARD) or (hand.phase == NOTED_TOO and rules.JOURNAL_OWNER in self.off):
                known = hand._replace(phase=NOT_SENT)
            else:
                continue
            recorded = self._record(state, journal.batch, slot, known, at_once=known is not hand)
            if recorded is not state:
                state = self.settle(recorded, journal.batch, [slot])
        return state

    def _record(self, state: State, index: int, slot: int, hand: Hand, *, at_once: bool = False) -> State:
        delivery = state.deliveries[slot]
        if not hand.newest and rules.FENCE not in self.off:
            return state
        if delivery.state not in (HANDING_OFF, UNKNOWN) and rules.OPEN_OUTCOME not in self.off:
            return state
        before = max(delivery.attempts - 1, 0) if delivery.state == UNKNOWN else delivery.attempts
        after = delivery._replace(live=False, waits=False, attempts=before + 1)
        if hand.phase == ACCEPTED:
            after = after._replace(state=SENT)
        elif hand.phase == IN_DOUBT:
            after = after._replace(state=UNKNOWN)
        elif hand.phase == REFUSED or (hand.phase == REFUSED_ONCE and before + 1 >= self.scope.max_attempts):
            after = after._replace(state=FAILED)
        elif state.batches[index].state == CANCELLED:
            after = after._replace(state=SKIPPED, attempts=before + (hand.phase == REFUSED_ONCE))
        else:
            after = after._replace(state=RETRY, waits=not at_once, attempts=before + (hand.phase == REFUSED_ONCE))
        return with_delivery(state, slot, after)

    def fallback(self, state: State, worker: int, slot: int) -> State:
        """What is written instead of an outcome that the database refuses: the bare state, and its own item."""
        index = state.workers[worker].batch
        delivery, batch = state.deliveries[slot], state.batches[index]
        bare = {ACCEPTED: SENT, IN_DOUBT: UNKNOWN}.get(state.workers[worker].hands[slot].phase, FAILED)
        used = delivery.attempts + (delivery.state == HANDING_OFF)
        after = delivery._replace(state=bare, live=False, waits=False, attempts=used, batch=index)
        state = with_delivery(state, slot, after)
        log = put(batch.log, slot, bare)
        if rules.FALLBACK_EVERY_SLOT in self.off:
            is_open = any(d.state not in FINAL for d in state.deliveries)
        else:
            is_open = any(log[s] in (None, RETRY) for s in batch.slots)
        settled = batch.settled or not is_open
        state = with_batch(state, index, batch._replace(log=log, settled=settled, due=batch.due and is_open))
        return state if rules.FALLBACK_CORRECTS in self.off else self.correct_log_entries(state, slot)

    def settle(self, state: State, index: int, slots: Iterable[int], believed: str | None = None) -> State:
        """The batch's log and item, as the ledger says; and every log that a late outcome corrects.

        `believed` is what was read of the deliveries, and others may have changed by now, unseen.
        """
        batch = state.batches[index]
        log, finals, due = batch.log, 0, False
        for slot in batch.slots:
            final = self.judgement(state, index, slot)
            if slot in slots:
                final = believed or final
                now = believed or state.deliveries[slot].state
                if final is not None or now in (RETRY, UNKNOWN):
                    log = put(log, slot, final or now)
                due = due or final is None
                finals += final is not None
            elif log[slot] is not None:
                finals += final is not None and log[slot] != RETRY
                due = due or state.deliveries[slot].state == RETRY
        state = self._item(state, index, batch._replace(log=log), finals, due=due)
        if believed is None:
            for slot in slots:
                state = self.correct_log_entries(state, slot)
        return state

    def _item(self, state: State, index: int, batch: Batch, finals: int, *, due: bool) -> State:
        needed = 1 if rules.EVERY_SLOT in self.off else len(batch.slots)
        settled = finals >= needed
        if rules.OPENS_AGAIN in self.off:
            settled = settled or batch.settled
        return with_batch(state, index, batch._replace(settled=settled, due=(due or batch.due) and not settled))

    def correct_log_entries(self, state: State, slot: int) -> State:
        """Every log that calls unknown what the ledger knows by now."""
        delivery = state.deliveries[slot]
        if delivery.state not in (SENT, FAILED, SKIPPED) or rules.CORRECTED in self.off:
            return state
        for index, batch in enumerate(state.batches):
            if batch.log[slot] == UNKNOWN:
                status = self.judgement(state, index, slot) or delivery.state
                state = with_batch(state, index, batch._replace(log=put(batch.log, slot, status)))
        return state

    def finish(self, state: State, worker: int, slots: Iterable[int]) -> State:
        """The worker has nothing more to do about these slots."""
        for slot in slots:
            state = with_hand(state, worker, slot, Hand(DONE))
        return state


def reopened(state: State, slot: int) -> State:
    """What failed or was skipped is planned again. By a person's word it had not been sent: that counts from now on."""
    delivery = state.deliveries[slot]
    if delivery.word:
        delivery = delivery._replace(accepted=0, word=False)
    fresh = delivery._replace(state=PLANNED, live=False, batch=NONE, attempts=0, waits=False)
    return with_delivery(state, slot, fresh)
