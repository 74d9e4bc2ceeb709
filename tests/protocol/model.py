"""Every step that can be taken from a state: by workers, publishers, time, faults and people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tests.protocol import people, placing, restores, rules
from tests.protocol.rule import Rule
from tests.protocol.scopes import AWAY, LOST, PERMANENT, TAKEN, TAKEN_UNHEARD, TEMPORARY, Scope
from tests.protocol.state import (
    ABSENT,
    ACCEPTED,
    ANSWERED,
    CANCELLED,
    CLAIMED,
    DONE,
    HANDING_OFF,
    IDLE,
    IN_DOUBT,
    NONE,
    NOT_SENT,
    NOTED,
    PASSED,
    PAUSED,
    REFUSED,
    REFUSED_ONCE,
    RETRY,
    SETTLING,
    UNHEARD,
    UNKNOWN,
    WANTS,
    Batch,
    Hand,
    LateCall,
    Move,
    State,
    Worker,
    permit,
    with_batch,
    with_delivery,
    with_hand,
    with_worker,
)
from tests.protocol.worker import Ledger

_ANSWERS = (
    (TAKEN, ACCEPTED, 1),
    (TAKEN_UNHEARD, IN_DOUBT, 1),
    (LOST, IN_DOUBT, 0),
    (TEMPORARY, REFUSED_ONCE, 0),
    (PERMANENT, REFUSED, 0),
    (AWAY, NOT_SENT, 0),
)
#: What a journal can tell something about.
_TELLING = ANSWERED | {CLAIMED, UNHEARD, NOTED}


@dataclass(frozen=True)
class Model:
    """The protocol in one scope, with all rules on or some of them off."""

    scope: Scope
    off: frozenset[Rule] = frozenset()

    def moves(self, state: State) -> Iterator[Move]:
        """Every next step."""
        ledger = Ledger(self.scope, self.off)
        return chain(
            self._publishing(state),
            self._time(state),
            self._taking(state),
            *(self._working(ledger, state, worker) for worker in range(len(state.workers))),
            self._faults(state) if state.faults else (),
            self._journals(ledger, state),
            self._late_call(ledger, state),
            people.decisions(ledger, state),
            restores.moves(ledger, state) if "restore" in self.scope.events else (),
            placing.moves(ledger, state) if "place" in self.scope.events else (),
        )

    def _publishing(self, state: State) -> Iterator[Move]:
        events, room = self.scope.events, len(state.topic) < self.scope.messages
        spent = state._replace(faults=state.faults - 1)
        for index, batch in enumerate(state.batches):
            rests = batch.state == PAUSED and rules.NO_PAUSED not in self.off
            # Chunks settle it.
            rests = rests or (batch.state == CANCELLED and batch.unapplied)
            rests = rests or (state.stale and rules.FRESH_PUBLISHED not in self.off)
            placing = batch.placing and batch.state != CANCELLED
            rests = rests or (placing and rules.PLACED_PUBLISHED not in self.off)
            if batch.due and room and not rests and batch.unacknowledged is None:
                offset = len(state.topic)
                if "late acknowledgement" in events:
                    unheard = _appended(with_batch(state, index, batch._replace(unacknowledged=offset)), index)
                    yield Move("publish batch {}, unheard", (index,), unheard)
                published = with_batch(state, index, batch._replace(due=False, offset=offset))
                yield Move("publish batch {}", (index,), _appended(published, index))
                if "lose acknowledgement" in events and state.faults:
                    yield Move("a publisher of batch {} dies", (index,), _appended(spent, index), helps=False)
            if batch.unacknowledged is not None:
                yield from self._acknowledging(state, index)
            if self._is_lost(state, index):
                yield Move("batch {} is found lost", (index,), with_batch(state, index, batch._replace(due=True)))
            if "replay" in events and state.faults and room and batch.slots and batch.state != ABSENT:
                offset = batch.offset if batch.settled else len(state.topic)
                again = _appended(with_batch(spent, index, batch._replace(offset=offset)), index)
                yield Move("replay batch {}", (index,), again, helps=False)

    @staticmethod
    def _acknowledging(state: State, index: int) -> Iterator[Move]:
        batch = state.batches[index]
        assert batch.unacknowledged is not None
        heard = batch._replace(unacknowledged=None)
        if not batch.settled:
            heard = heard._replace(offset=batch.unacknowledged)
            # Is it due under this claim, or has a worker found it a later time?
            yield Move("acknowledge batch {}", (index,), with_batch(state, index, heard._replace(due=False)))
        yield Move("acknowledge batch {} late", (index,), with_batch(state, index, heard))

    def _is_lost(self, state: State, index: int) -> bool:
        batch = state.batches[index]
        if rules.LOST in self.off or batch.due or batch.offset != PASSED or batch.state in (PAUSED, ABSENT):
            return False
        if batch.settled and rules.SETTLED_IS_NOT_LOST not in self.off:
            return False
        # Its item follows the decision by itself.
        if batch.unapplied:
            return False
        return not any(delivery.state == HANDING_OFF and delivery.live for delivery in state.deliveries)

    def _time(self, state: State) -> Iterator[Move]:
        for slot, delivery in enumerate(state.deliveries):
            if delivery.state == RETRY and delivery.waits:
                yield Move("back-off {} ends", (slot,), with_delivery(state, slot, delivery._replace(waits=False)))
            if delivery.state == HANDING_OFF:
                held = any(worker.hands[slot].newest for worker in state.workers)
                if delivery.live and not (held and "steady" in self.scope.events):
                    ended = with_delivery(state, slot, delivery._replace(live=False))
                    if "deadline" in self.scope.events and rules.DEADLINE not in self.off:
                        ended = permit(ended, slot, permitted=False)
                    yield Move("lease {} ends", (slot,), ended)
                if not delivery.live and held:
                    renewed = with_delivery(state, slot, delivery._replace(live=True))
                    yield Move("lease {} is renewed", (slot,), permit(renewed, slot, permitted=True))

    @staticmethod
    def _taking(state: State) -> Iterator[Move]:
        """`look_up`: a message with nothing to do, or of a paused batch, is acknowledged and left alone."""
        if state.topic and state.workers[0].batch == NONE and not state.restored:
            index = state.topic[0]
            batch = state.batches[index]
            if batch.settled or batch.state == PAUSED:
                yield Move("pass over batch {}", (index,), _committed(state))
            else:
                hands = tuple(Hand(WANTS if s in batch.slots else IDLE) for s in range(len(state.deliveries)))
                yield Move("take batch {}", (index,), with_worker(state, 0, Worker(hands, index, assigned=True)))

    def _working(self, ledger: Ledger, state: State, worker: int) -> Iterator[Move]:
        at_work = state.workers[worker]
        if at_work.batch == NONE:
            return
        asking = [slot for slot, hand in enumerate(at_work.hands) if hand.phase in (WANTS, UNHEARD)]
        for slot in asking:
            yield from self._asking(ledger, state, worker, [slot])
        if len(asking) > 1:
            yield from self._asking(ledger, state, worker, asking)
        for slot, hand in enumerate(at_work.hands):
            if hand.phase == CLAIMED:
                yield from self._answers(state, worker, slot)
            elif hand.phase in ANSWERED:
                yield from self._recording(ledger, state, worker, slot)
            elif hand.phase == SETTLING:
                after = ledger.settle(state, at_work.batch, [slot], believed=UNKNOWN)
                yield Move("{} commits its conclusion", (_who(worker),), ledger.finish(after, worker, [slot]))
        if all(hand.phase in (IDLE, DONE) for hand in at_work.hands):
            after = _committed(state) if at_work.assigned else state
            yield Move("{} is done", (_who(worker),), with_worker(after, worker, _resting(at_work)))

    def _asking(self, ledger: Ledger, state: State, worker: int, slots: Sequence[int]) -> Iterator[Move]:
        """The transaction of `claim_deliveries`; for the rest `conclude_unclaimed`, then settling."""
        who, events = _who(worker), self.scope.events
        if state.late is not None and state.late.worker == worker and rules.FORMER_SESSION not in self.off:
            state = state._replace(late=None)
        claims = [slot for slot in slots if ledger.may_claim(state, worker, slot)]
        rest = [slot for slot in slots if slot not in claims]
        if "slow conclusion" in events and rest and state.deliveries[rest[0]].state == UNKNOWN:
            slot = rest[0]
            yield Move("{} settles {}", (who, slot), with_hand(state, worker, slot, Hand(SETTLING)))
            return
        yield Move("{} asks {}", (who, slots), self._advance(ledger, state, worker, claims, rest))
        if claims and "locked" in events:
            yield Move("{} finds {} locked", (who, slots), self._advance(ledger, state, worker, [], slots))
        if claims and "unacknowledged claim" in events and state.faults:
            spent = state._replace(faults=state.faults - 1)
            unheard = self._advance(ledger, spent, worker, claims, rest, UNHEARD)
            yield Move("{} asks {} and is not answered", (who, slots), unheard, helps=False)
        if claims and "late call" in events and state.faults and state.late is None:
            lost = state._replace(faults=state.faults - 1, late=LateCall(worker, tuple(slots)))
            yield Move("{} asks {} and loses its session", (who, slots), lost, helps=False)

    def _late_call(self, ledger: Ledger, state: State) -> Iterator[Move]:
        """The server runs it, and its worker does not hear of that."""
        if state.late is not None and state.workers[state.late.worker].batch != NONE:
            worker, slots = state.late
            before = state._replace(late=None)
            claims = [slot for slot in slots if ledger.may_claim(before, worker, slot)]
            rest = [slot for slot in slots if slot not in claims]
            after = self._advance(ledger, before, worker, claims, rest, UNHEARD)
            for slot in slots:
                hand = state.workers[worker].hands[slot]
                if hand.phase not in (WANTS, UNHEARD):
                    # It goes on under the claim that it has heard of.
                    newest = hand.newest and slot not in claims
                    after = with_hand(after, worker, slot, hand._replace(newest=newest))
            yield Move("the call that {} lost about {} runs", (_who(worker), list(slots)), after, helps=False)

    @staticmethod
    def _advance(
        ledger: Ledger, state: State, worker: int, claims: Sequence[int], rest: Sequence[int], phase: str = CLAIMED
    ) -> State:
        for slot in claims:
            state = ledger.claim(state, worker, slot, phase)
        for slot in rest:
            state = ledger.reject(state, worker, slot)
        if rest:
            state = ledger.settle(state, state.workers[worker].batch, rest)
        return ledger.finish(state, worker, rest) if phase == CLAIMED else state

    def _answers(self, state: State, worker: int, slot: int) -> Iterator[Move]:
        delivery, hand = state.deliveries[slot], state.workers[worker].hands[slot]
        outdated = hand.outdated and rules.BEGIN_BEFORE not in self.off
        if outdated or (not hand.permitted and rules.PERMITTED not in self.off):
            # However long it was frozen: it sends nothing, and says so.
            dropped = with_hand(state, worker, slot, hand._replace(phase=NOT_SENT))
            yield Move("{} drops {}", (_who(worker), slot), dropped)
            return
        if hand.unpublished and rules.CLAIM_PUBLISHED not in self.off:
            return
        if "journal" in self.scope.events and not hand.begun and rules.JOURNAL_BEGUN not in self.off:
            begun = with_hand(state, worker, slot, hand._replace(begun=True))
            yield Move("{} begins {}", (_who(worker), slot), begun)
            return
        for answer, phase, accepted in _ANSWERS:
            if answer in self.scope.answers:
                after = with_hand(state, worker, slot, hand._replace(phase=phase, permitted=False))
                if accepted:
                    after = with_delivery(after, slot, delivery._replace(accepted=delivery.accepted + 1))
                yield Move("{} sends {}: {}", (_who(worker), slot, answer), after)

    def _recording(self, ledger: Ledger, state: State, worker: int, slot: int) -> Iterator[Move]:
        """The transaction of `record_outcomes`, `settle_items` and `correct_log_entries`."""
        held = any(other.hands[slot].phase == SETTLING for other in state.workers)
        if held and rules.HELD_STILL not in self.off:
            return
        index, who = state.workers[worker].batch, _who(worker)
        recorded = ledger.record(state, worker, slot)
        if "slow conclusion" in self.scope.events and recorded is state and state.deliveries[slot].state == UNKNOWN:
            yield Move("{} settles {}", (who, slot), with_hand(state, worker, slot, Hand(SETTLING)))
            return
        if "refused record" in self.scope.events and state.faults and recorded is not state:
            written = ledger.fallback(state._replace(faults=state.faults - 1), worker, slot)
            yield Move("{} records {} and is refused", (who, slot), ledger.finish(written, worker, [slot]), helps=False)
        after = ledger.settle(recorded, index, [slot])
        yield Move("{} records {}", (who, slot), ledger.finish(after, worker, [slot]))
        if "unacknowledged record" in self.scope.events and state.faults:
            unheard = after._replace(faults=state.faults - 1)
            yield Move("{} records {} and is not answered", (who, slot), unheard, helps=False)

    def _faults(self, state: State) -> Iterator[Move]:
        events, spent = self.scope.events, state._replace(faults=state.faults - 1)
        first, second = state.workers
        if "crash" in events:
            for index, worker in enumerate(state.workers):
                if worker.batch != NONE:
                    yield Move("{} dies", (_who(index),), with_worker(spent, index, _resting(worker)), helps=False)
                    if "journal" in events:
                        yield from self._deaths_with_journals(spent, index)
        if "rebalance" in events:
            swapped = (second._replace(assigned=False), first._replace(assigned=False))
            yield Move("rebalance", (), spent._replace(workers=swapped), helps=False)
        if "lose message" in events and state.topic and not (first.batch != NONE and first.assigned):
            yield Move("a message is lost", (), _committed(spent), helps=False)

    def _deaths_with_journals(self, spent: State, index: int) -> Iterator[Move]:
        """A journal holds what its worker did, but for an answer whose note the kill has met."""
        worker = spent.workers[index]
        died = with_worker(spent, index, _resting(worker))
        hands = worker.hands
        notes = {
            "all": hands,
            "no answer": tuple(map(_unanswered, hands)),
            "a claim to come": tuple(map(_noted, hands)),
        }
        if rules.JOURNAL_BOOT in self.off:
            # The machine went down, and with it what was not on its disk yet.
            notes["the claims alone"] = tuple(map(_claimed_alone, hands))
        for what, noted in notes.items():
            if (what == "all" or noted != hands) and any(hand.phase in _TELLING for hand in noted):
                kept = Worker(tuple(map(_bare, noted)), worker.batch)
                after = died._replace(journals=(*died.journals, kept))
                yield Move("{} dies, its journal has {}", (_who(index), what), after, helps=False)

    def _journals(self, ledger: Ledger, state: State) -> Iterator[Move]:
        for number, journal in enumerate(state.journals):
            rest = state._replace(journals=(*state.journals[:number], *state.journals[number + 1 :]))
            yield Move("journal {} is settled", (number,), ledger.settle_journal(rest, journal), helps=False)
        if rules.JOURNAL_LOCK in self.off and "journal" in self.scope.events:
            for index, worker in enumerate(state.workers):
                if any(hand.phase == CLAIMED for hand in worker.hands):
                    yield Move("the journal of {} is settled", (_who(index),), ledger.settle_journal(state, worker))


def _who(worker: int) -> str:
    return ("the owner", "the zombie")[worker]


def _unanswered(hand: Hand) -> Hand:
    return hand._replace(phase=CLAIMED) if hand.phase in ANSWERED else hand


def _noted(hand: Hand) -> Hand:
    return hand._replace(phase=NOTED) if hand.phase == WANTS else hand


def _claimed_alone(hand: Hand) -> Hand:
    return hand._replace(phase=CLAIMED, begun=False) if hand.phase in ANSWERED or hand.begun else hand


def _bare(hand: Hand) -> Hand:
    """Without what no journal says."""
    return hand._replace(permitted=False) if hand.phase in _TELLING else Hand()


def _resting(worker: Worker) -> Worker:
    return Worker((Hand(),) * len(worker.hands))


def _appended(state: State, index: int) -> State:
    return state._replace(topic=(*state.topic, index))


def _committed(state: State) -> State:
    """The group commits past its first message: every offset is one nearer."""
    backup = state.backup
    if backup is not None:
        state = state._replace(backup=backup._replace(batches=tuple(map(_nearer, backup.batches))))
    return state._replace(batches=tuple(map(_nearer, state.batches)), topic=state.topic[1:])


def _nearer(batch: Batch) -> Batch:
    unacknowledged = None if batch.unacknowledged is None else max(batch.unacknowledged - 1, PASSED)
    return batch._replace(offset=max(batch.offset - 1, PASSED), unacknowledged=unacknowledged)
