"""A source that gets the invitations first, and a rival who mails whomever they make a row for (db/sql/placing.sql)."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol import rules
from tests.protocol.state import (
    HANDING_OFF,
    NOBODYS,
    NONE,
    OURS,
    RUNNING,
    SENT,
    THEIRS,
    Move,
    State,
    older_claims,
    with_batch,
    with_delivery,
)
from tests.protocol.worker import Ledger


def moves(ledger: Ledger, state: State) -> Iterator[Move]:
    """What can be taken of these steps, for the one delivery that there is."""
    asks = any(batch.placing and batch.state == RUNNING for batch in state.batches)
    if state.row is None:
        delivery = state.deliveries[0]
        mailed = with_delivery(state, 0, delivery._replace(accepted=delivery.accepted + 1))
        yield Move("the rival invites", (), mailed._replace(row=THEIRS), helps=False)
        if asks and state.placement is None:
            yield Move("the source gets the invitation", (), state._replace(row=OURS))
            untaken = state._replace(placement=NOBODYS, looked=False)
            yield Move("the source does not take the invitation", (), untaken, helps=False)
    if asks and state.row is not None and state.placement is None:
        yield Move("its placement is recorded", (), state._replace(placement=state.row, looked=False))
    after = _looked(ledger, state)
    if after != state:
        yield Move("the source is read", (), after)
    if asks and state.placement is not None and may_open(ledger, state):
        yield Move("what is placed is opened", (), _opened(state))


def may_open(ledger: Ledger, state: State) -> bool:
    """What is not ours waits for a snapshot that began later."""
    return state.placement == OURS or state.looked or rules.THEIRS_WAIT in ledger.off


def _looked(ledger: Ledger, state: State) -> State:
    """A snapshot. A row with another token than the ledger's, which it has until it knows of the row, is set aside."""
    after = state._replace(looked=state.placement not in (None, OURS))
    own = state.row == OURS and rules.NOT_READ_BACK in ledger.off
    delivery = state.deliveries[0]
    if (own or (state.row, state.placement) == (THEIRS, THEIRS)) and delivery.state not in (SENT, HANDING_OFF):
        mailed = delivery._replace(state=SENT, live=False, waits=False, batch=NONE)
        after = ledger.correct_log_entries(with_delivery(older_claims(after, 0), 0, mailed), 0)
    return after


def _opened(state: State) -> State:
    for index, batch in enumerate(state.batches):
        if batch.placing and batch.state == RUNNING:
            state = with_batch(state, index, batch._replace(placing=False))
    return state
