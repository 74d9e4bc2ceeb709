"""The time left of a batch, as its page shows it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from web.estimate import Estimate, smoothed


def shown(measured: list[float | None], start: float = 240.0) -> list[float]:
    """The estimates, one measurement a second."""
    estimate: Estimate | None = Estimate(start, 0.0)
    found = []
    for second, value in enumerate(measured, start=1):
        estimate = smoothed(estimate, value, float(second))
        assert estimate is not None
        found.append(estimate.seconds)
    return found


def test_bursts_do_not_move_it_much() -> None:
    """Four minutes, 53 s, eight minutes by turns were shown of one batch: now no second changes it by a fifth."""
    found = shown([53.0, 480.0, 240.0, None, 53.0, 480.0] * 10)
    for before, after in pairwise(found):
        assert abs(after - before) < before / 5


def test_a_steady_pace_counts_down() -> None:
    """Time that passes counts in full."""
    found = shown([240.0 - second for second in range(1, 200)])
    assert found == pytest.approx([240.0 - second for second in range(1, 200)], rel=0.01)


def test_a_new_rate_is_followed() -> None:
    """A limit that was set meanwhile, an hour for what took four minutes, shows within two minutes."""
    assert shown([3600.0] * 120)[-1] == pytest.approx(3600, rel=0.2)


def test_beginning_and_pauses() -> None:
    """The first measurement is the estimate; without one it stands still; after two minutes unseen it begins anew."""
    assert smoothed(None, None, 5.0) is None
    first = smoothed(None, 100.0, 5.0)
    assert first == Estimate(100.0, 5.0)
    assert smoothed(first, None, 6.0) == first
    assert smoothed(first, 9000.0, 200.0) == Estimate(9000.0, 200.0)
    last = smoothed(Estimate(3.0, 0.0), 0.0, 60.0)
    assert last is not None
    assert last.seconds == pytest.approx(1.0)


def test_a_batch_that_has_just_begun() -> None:
    """Its first second has few mails: what that says of the time left is forgotten within seconds."""
    estimate = smoothed(None, 1300.0, 0.0)
    for second in range(1, 11):
        estimate = smoothed(estimate, 50.0 - second, float(second))
    assert estimate is not None
    assert 40 <= estimate.seconds <= 60
