"""The rate that learns, against a simulated server that takes so many mails a second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.send_limits import Learned
from streams import adaptive_rate
from streams.adaptive_rate import passed, rate_of, throttled, used
from tests.fuzzing import fuzz
from tests.unit.throttled_server import Server, Simulation


@pytest.mark.parametrize(
    ("rate", "mails", "workers", "latency"),
    [
        (14, 8000, 3, 0.02),
        (14, 8000, 8, 0.05),
        (14, 8000, 1, 0.3),
        (14, 1000, 3, 0.02),
        (2, 1000, 3, 0.02),
        (500, 60_000, 3, 0.02),
    ],
)
def test_a_server_that_throttles(rate: float, mails: int, workers: int, latency: float) -> None:
    """FM-37: all is accepted; fewer than 5 % of the dialogues are wasted; more than 85 % of the rate is used."""
    for seed in range(2):
        done = Simulation(Server(lambda _: rate), mails=mails, workers=workers, latency=latency, seed=seed).run(9999)
        assert done.accepted == mails
        assert len(done.server.refused) < 0.05 * (mails + len(done.server.refused))
        assert mails / done.seconds > 0.85 * rate


def test_it_recovers() -> None:
    """FM-37: once the server takes any rate, it is used within minutes, and nothing is limited any more."""
    server = Server(lambda now: 14 if now < 1_000_300 else None)
    done = Simulation(server, mails=60_000, workers=3).run(9999)
    assert done.accepted == 60_000
    assert done.seconds < 300 + 160
    assert rate_of(done.state.learned) is None


def test_a_server_that_takes_nothing_for_eight_minutes() -> None:
    """FM-37: a full disk at the server: one mail tries after each pause, and then sending goes on at the old rate."""
    server = Server(lambda now: 0 if 1_000_010 < now < 1_000_490 else None)
    done = Simulation(server, mails=60_000, workers=3).run(9999)
    assert done.accepted == 60_000
    # Those in mid-dialogue when it began, then 1, 2, 4 … 60 s.
    assert len(server.refused) < 3 * 10 + 3 * 10 + 15
    assert done.seconds < 490 + 60 + 30


def test_replies_to_mails_of_before_change_nothing() -> None:
    """A window of mails that are all throttled lowers the rate once."""
    first = throttled(Learned(), 100.0, begun=99.0, accepted_rate=20, jitter=0.5, reply="454")
    assert throttled(first, 100.2, begun=99.9, accepted_rate=20, jitter=0.5, reply="454") == first
    # Begun during the pause by a worker that had not heard of it.
    assert throttled(first, 100.4, begun=100.1, accepted_rate=20, jitter=0.5, reply="454") == first
    assert passed(first, 100.4, begun=99.9) == first


def test_the_pause_grows_until_mails_pass() -> None:
    """1, 2, 4 … 60 s, with jitter in its upper half; the rate stays. After a mail that passed it begins with 1 s."""
    state, now, pauses = Learned(), 1000.0, []
    for _ in range(9):
        state = throttled(state, now, begun=now - 0.1, accepted_rate=30, jitter=1.0, reply="452")
        pauses.append(state.pause_seconds)
        assert state.paused_until == now + state.pause_seconds
        now = state.paused_until + 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert rate_of(state) == pytest.approx(33)
    assert adaptive_rate.is_paused(state, state.paused_until - 0.1)
    state = passed(state, now, begun=now - 0.1)
    assert not adaptive_rate.is_paused(state, now)
    again = throttled(state, now + 1, begun=now + 0.5, accepted_rate=20, jitter=0.0, reply="452")
    assert (again.pause_seconds, again.paused_until) == (1, now + 1.5)
    assert rate_of(again) == pytest.approx(18)


@fuzz(200)
@given(st.lists(st.tuples(st.sampled_from("tpu"), st.floats(0, 100), st.floats(0, 1000)), max_size=60))
def test_any_history(events: list[tuple[str, float, float]]) -> None:
    """The rate is positive, a throttling reply never raises a rate that is known, a pause is never above 60 s."""
    state, now = Learned(), 1_000_000.0
    for kind, seconds, value in events:
        now += seconds
        before = rate_of(state)
        if kind == "t":
            state = throttled(state, now, begun=now, accepted_rate=value, jitter=0.5, reply="454")
            after = rate_of(state)
            assert before is None or (after is not None and after <= before * 1.0001)
        elif kind == "p":
            state = passed(state, now, begun=now)
        else:
            state = used(state, now, limiting=value > 500)
        rate = rate_of(state)
        assert rate is None or rate > 0.01
        assert 0 <= state.pause_seconds <= 60
        assert state.paused_until <= now + 60
