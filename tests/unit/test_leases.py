"""The arithmetic of a claim's deadline: never later than the end of the lease, whatever the clocks do."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from config.clock import elapsed
from schemas.delivery import Delivery
from schemas.keys import DeliveryKey
from schemas.leases import MARGIN_SECONDS, ClockReading, margin
from streams.lease_clocks import LOST, LeaseClocks

LEASES = st.floats(1, 3600)
SECONDS = st.floats(0, 1000)


@pytest.mark.parametrize(("lease", "left"), [(1, 0.2), (3, 0.6), (25, 5), (60, 5), (3600, 5)])
def test_the_margin(lease: float, left: float) -> None:
    """A fifth of a short lease, 5 s of a long one."""
    assert margin(lease) == pytest.approx(left)
    assert margin(lease) <= MARGIN_SECONDS


@given(lease=LEASES, offset=st.floats(-1e6, 1e6), sent=SECONDS, out=st.floats(0, 5), back=st.floats(0, 5))
def test_a_deadline_comes_before_the_end_of_the_lease(
    lease: float, offset: float, sent: float, out: float, back: float
) -> None:
    """FM-35: whatever the offset of the clocks and however long the ways, by the margin at least."""
    clocks = ClockReading(sent, sent + out + offset, sent + out + back)
    ends = clocks.database + lease - offset  # by the worker's clock
    assert clocks.deadline(lease) <= ends - margin(lease) + 1e-6


@given(first=SECONDS, way=st.floats(0, 5), later=SECONDS, ways=st.floats(0, 5), offset=st.floats(-1e6, 1e6))
def test_steady_clocks_are_never_ahead(first: float, way: float, later: float, ways: float, offset: float) -> None:
    """A slow answer is no difference of clocks."""
    claimed = ClockReading(first, first + way + offset, first + 2 * way)
    then = first + 10 + later
    assert claimed.ahead(ClockReading(then, then + ways + offset, then + 2 * ways)) <= 1e-6


def delivery(member: int = 1) -> Delivery:
    return Delivery(1, DeliveryKey(1, "invite", member, "Student"), "Student", 0, 0)


def test_a_clock_that_is_set_forward_shortens_the_claims_in_flight() -> None:
    """FM-35: a lease that ends 20 s sooner by the database's clock ends 20 s sooner for its worker; no new one does."""
    clocks, old, new = LeaseClocks(60), delivery(1), delivery(2)
    assert clocks.limit(ClockReading(100, 5000, 100.2), [old], []) == 0
    assert old.deadline == 155
    assert clocks.limit(ClockReading(110, 5030.1, 110.1), [new], [old]) == pytest.approx(20, abs=0.5)
    assert old.deadline == pytest.approx(135, abs=0.5)
    assert new.deadline == 165
    # Said again, it does not count twice.
    clocks.limit(ClockReading(111, 5031.1, 111.1), [], [old, new])
    assert old.deadline == pytest.approx(135, abs=0.5)
    assert new.deadline == 165


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    """The lease lasts longer by it; the claim does not."""
    clocks, old = LeaseClocks(60), delivery()
    clocks.limit(ClockReading(100, 5000, 100.2), [old], [])
    assert clocks.limit(ClockReading(110, 3000, 110.1), [], [old]) == 0
    assert old.deadline == 155


def test_a_clock_that_runs_fast_is_noticed_before_the_margin_is_used_up() -> None:
    """FM-35: ten per cent, in many small readings none of which says much."""
    clocks, old = LeaseClocks(60), delivery()
    clocks.limit(ClockReading(0, 5000, 0.05), [old], [])
    for at in range(1, 56):
        clocks.limit(ClockReading(at, 5000 + 1.1 * at, at + 0.05), [], [old])
    # The lease ends at 60 by the database's clock: after 54.5 s.
    assert old.deadline < 54.5 - margin(60) + 0.1


def test_a_renewal_gives_a_new_deadline_and_what_is_lost_stays_lost() -> None:
    """What was not renewed keeps its deadline in the past, whatever the clocks say later."""
    clocks, held, lost = LeaseClocks(60), delivery(1), delivery(2)
    clocks.limit(ClockReading(100, 5000, 100.1), [held, lost], [])
    lost.deadline = LOST
    clocks.limit(ClockReading(120, 5020, 120.1), [held], [held, lost])
    assert (held.deadline, lost.deadline) == (175, LOST)


def test_the_clock_goes_on() -> None:
    """It never goes back, and knows of suspensions where the system does."""
    assert elapsed() <= elapsed()
