"""The table of moves by itself: complete, without dead ends that are not meant, and in the words of the domain."""

from __future__ import annotations

from itertools import product

from schemas.states import SETTLED, TRANSITIONS
from schemas.vocabulary import DeliveryState as S


def reachable(start: S) -> set[S]:
    found, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for move in TRANSITIONS:
            if move.source is state and move.target not in found:
                found.add(move.target)
                todo.append(move.target)
    return found


def test_every_state_is_reached_from_planned() -> None:
    """Deliveries are born planned; no state exists that none can get to."""
    assert reachable(S.PLANNED) == set(S)


def test_only_sent_is_a_dead_end() -> None:
    """FM-03, FM-10: `sent` is final; from every other state there is a way to `sent`."""
    assert reachable(S.SENT) == {S.SENT}
    assert all(S.SENT in reachable(state) for state in S)


def test_mails_go_out_only_under_a_mark() -> None:
    """FM-11: `sent` is recorded under the fence of a mark, or taken over from another system or an operator's word."""
    told = {"import_sent", "resolve_deliveries"}
    ways = {(move.source, move.by) for move in TRANSITIONS if move.target is S.SENT and move.by not in told}
    assert ways == set(product((S.HANDING_OFF, S.UNKNOWN), ("record_outcomes", "fallback_delivery")))


def test_a_mark_is_the_only_way_into_a_hand_over() -> None:
    """FM-16: one statement hands out the right to send."""
    assert {move.by for move in TRANSITIONS if move.target is S.HANDING_OFF} == {"claim_deliveries"}


def test_settled_states() -> None:
    """FM-24: what waits for something is not settled."""
    assert set(S) - SETTLED == {S.PLANNED, S.HANDING_OFF, S.RETRY}
