"""The retry policy: what a hand-over comes to, and how long is waited."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.send_results import Accepted, Ambiguous, Lapsed, NotSent, Refused, SendResult, Throttled, Undecided
from streams.policy import RetryPolicy, decide

POLICY = RetryPolicy(max_attempts=5, base_seconds=30, max_seconds=3600)
JITTER = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    base_seconds=st.floats(0.01, 86_400),
    max_seconds=st.floats(86_400, 7 * 86_400),
)


@pytest.mark.parametrize(
    ("hand_over", "attempts", "outcome"),
    [
        (Accepted("250 queued"), 0, Sent("250 queued")),
        (Accepted("250 queued"), 99, Sent("250 queued")),
        (Refused("550 no such user", permanent=True), 0, Failed("550 no such user", "550 no such user")),
        (Refused("451 later", permanent=False), 0, Retry("451 later", 15, 1, "451 later")),
        (Refused("451 later", permanent=False), 3, Retry("451 later", 120, 1, "451 later")),
        (
            Refused("451 later", permanent=False),
            4,
            Failed("refused 5 times in 0 s, the last time: 451 later", "451 later"),
        ),
        (NotSent("connection refused"), 0, Retry("connection refused", 2.5, 0)),
        (NotSent("connection refused"), 99, Retry("connection refused", 2.5, 0)),
        (Throttled("454 slow down"), 99, Retry("454 slow down", 2.5, 0, "454 slow down")),
        (Lapsed("too late"), 99, Retry("too late", 2.5, 0)),
        (Undecided("421 bye"), 99, Retry("421 bye", 2.5, 0, "421 bye", refused=True)),
        (Ambiguous("no answer after the data"), 0, Unknown("no answer after the data")),
    ],
)
def test_what_a_hand_over_comes_to(hand_over: SendResult, attempts: int, outcome: Outcome) -> None:
    """FM-10, FM-11, FM-12: sent only when accepted; 5xx failed; 4xx retried; in doubt is unknown; outages are free."""
    assert decide(hand_over, attempts, POLICY, jitter=0.0) == outcome


@given(st.builds(NotSent, st.text()), st.integers(0, 10_000), POLICIES, JITTER)
def test_an_outage_uses_up_nobodys_attempts(
    hand_over: NotSent, attempts: int, policy: RetryPolicy, jitter: float
) -> None:
    """FM-10: however often the mail server was away, the mail is tried again, within seconds."""
    outcome = decide(hand_over, attempts, policy, jitter)
    assert isinstance(outcome, Retry)
    assert outcome.uses == 0
    assert 0 < outcome.delay <= 5


@given(POLICIES, JITTER)
def test_a_refused_mail_is_tried_as_often_as_allowed(policy: RetryPolicy, jitter: float) -> None:
    """FM-10: exactly `max_attempts` hand-overs, then failed for good."""
    attempts = 0
    assert policy.max_attempts is not None
    while isinstance(outcome := decide(Refused("451", permanent=False), attempts, policy, jitter), Retry):
        attempts += outcome.uses
        assert attempts < policy.max_attempts
    assert isinstance(outcome, Failed)
    assert attempts + 1 == policy.max_attempts


@given(POLICIES, st.integers(0, 10**9), JITTER)
def test_a_delay_is_within_its_bounds(policy: RetryPolicy, attempts: int, jitter: float) -> None:
    """Back-off is capped, never shorter than half the base, and never overflows."""
    assert policy.base_seconds / 2 <= policy.delay(attempts, jitter) <= policy.max_seconds


@given(POLICIES, st.integers(1, 200), JITTER)
def test_a_delay_grows(policy: RetryPolicy, attempts: int, jitter: float) -> None:
    """With the same jitter the next wait is the double, up to the maximum, and never less."""
    now, after = policy.delay(attempts, jitter), policy.delay(attempts + 1, jitter)
    assert now <= after <= 2 * now * (1 + 1e-9)


@given(st.integers(1, 50), JITTER, JITTER)
def test_jitter_spreads(attempts: int, one: float, other: float) -> None:
    """Jitter spreads a wait over its upper half, in its own order."""
    shorter, longer = sorted((one, other))
    assert POLICY.delay(attempts, shorter) <= POLICY.delay(attempts, longer) <= 2 * POLICY.delay(attempts, 0)


DAY = RetryPolicy()
TEMPORARIES = st.one_of(
    st.builds(Refused, st.text(), permanent=st.just(False)), st.builds(Undecided, st.text(), permanent=st.booleans())
)


def tries(hand_over: SendResult, policy: RetryPolicy, jitter: float) -> tuple[list[float], Outcome, int]:
    """When a delivery is tried that is always refused in this way, in seconds, and what it comes to after how many."""
    times, attempts, now = [0.0], 0, 0.0
    while isinstance(outcome := decide(hand_over, attempts, policy, jitter, now if len(times) > 1 else None), Retry):
        assert len(times) < 10_000
        now += outcome.delay
        attempts += outcome.uses
        times.append(now)
    return times, outcome, attempts


@given(
    TEMPORARIES,
    st.builds(
        RetryPolicy,
        base_seconds=st.floats(0.5, 600),
        max_seconds=st.floats(600, 86_400),
        retry_for=st.floats(1, 5 * 86_400),
    ),
    JITTER,
)
def test_a_temporary_refusal_ends_by_time(hand_over: SendResult, policy: RetryPolicy, jitter: float) -> None:
    """FM-37: whatever the back-off, the last try comes shortly before the end of `retry_for`, and never after."""
    times, outcome, _ = tries(hand_over, policy, jitter)
    assert isinstance(outcome, Failed)
    assert policy.retry_for - policy.slack <= times[-1] <= policy.retry_for
    assert len(times) >= 2
    assert "in" in outcome.reason


def test_a_day_by_default() -> None:
    """FM-37: a greylisted recipient is tried for a day, not five times in eight minutes; the reason says so."""
    times, outcome, attempts = tries(Refused("450 4.2.0 Greylisted", permanent=False), DAY, 0.5)
    assert 24 <= len(times) <= 48
    assert attempts == len(times) - 1
    assert outcome == Failed(
        f"refused {len(times)} times in 24 h, the last time: 450 4.2.0 Greylisted", "450 4.2.0 Greylisted"
    )
    assert times[1] <= 30


def test_what_looks_permanent_and_may_be_about_us_is_tried_less() -> None:
    """FM-37: 554 for want of a right to relay may be mended by somebody, and must not hammer the server until then."""
    often, outcome, _ = tries(Undecided("554 relay denied", permanent=True), DAY, 0.5)
    assert isinstance(outcome, Failed)
    assert len(often) <= 12
    assert len(often) < len(tries(Undecided("421 bye"), DAY, 0.5)[0])


def test_the_first_interruption_costs_nothing() -> None:
    """FM-37: it may be an outage; from the second of the same delivery on each uses an attempt."""
    first = decide(Undecided("421 bye"), 0, DAY, 0.5, None)
    second = decide(Undecided("421 bye"), 0, DAY, 0.5, 4.0)
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert (first.uses, first.refused, second.uses) == (0, True, 1)
    assert first.delay <= 5 < second.delay


@given(st.sampled_from([Throttled("454 slow"), NotSent("away"), Lapsed("late")]), st.floats(0, 10**8))
def test_what_is_not_the_recipients_never_fails(hand_over: SendResult, refused_for: float) -> None:
    """FM-37: throttling, outages and lapsed claims end nobody, however long ago the first refusal was."""
    outcome = decide(hand_over, 10**6, RetryPolicy(max_attempts=1), 0.5, refused_for)
    assert isinstance(outcome, Retry)
    assert (outcome.uses, outcome.refused) == (0, False)
