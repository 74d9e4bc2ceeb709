"""The retry policy: what a hand-over comes to, and how long is waited."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.send_results import Accepted, Ambiguous, NotSent, Refused, SendResult
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
        (Refused("451 later", permanent=False), 4, Failed("refused 5 times, the last time: 451 later", "451 later")),
        (Refused("451 later", permanent=False), 40, Failed("refused 41 times, the last time: 451 later", "451 later")),
        (NotSent("connection refused"), 0, Retry("connection refused", 2.5, 0)),
        (NotSent("connection refused"), 99, Retry("connection refused", 2.5, 0)),
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
