"""How much may be published: the bound of the backlog, its room, and the measured rate."""

from __future__ import annotations

import pytest

from producers.admission import LEAST, LEAST_UNMEASURED, MOST, Throughput, bound, room, seconds_to_next_look
from producers.topic_shapes import Durability
from streams.group_offsets import GroupOffsets
from streams.runners.positions import next_position


@pytest.mark.parametrize(
    ("measured", "permitted", "most"),
    [
        (None, None, LEAST_UNMEASURED),
        (3.0, None, LEAST_UNMEASURED),
        (190.0, None, 380),
        (4000.0, None, 8000),
        (50_000.0, None, MOST),
        # A rate that is set acts at once, whatever was measured before.
        (4000.0, 14.0, 28),
        (4000.0, 0.5, LEAST),
        (None, 1000.0, LEAST_UNMEASURED),
    ],
)
def test_the_bound_follows_the_rate(measured: float | None, permitted: float | None, most: int) -> None:
    """FM-38: two seconds of work, within limits."""
    assert bound(measured, permitted) == most


@pytest.mark.parametrize(
    ("most", "backlog", "dispatchers", "free"),
    [
        (100, 0, 1, 100),
        (100, 0, 3, 34),
        (100, 51, 1, 0),
        (100, 50, 1, 50),
        (100, 500, 1, 0),
        (10, 5, 1, 5),
        (10, 6, 2, 0),
    ],
)
def test_dispatchers_share_the_room(most: int, backlog: int, dispatchers: int, free: int) -> None:
    """FM-38: together they stay within the bound, by one item each; a half must be free."""
    assert room(most, backlog, dispatchers) == free


def observed(*observations: tuple[float, int, int] | tuple[float, int, int, int]) -> float | None:
    """The rate after these: time, completed, backlog, and what others publish at that moment."""
    throughput = Throughput()
    for at, completed, backlog, *claimed in observations:
        throughput.observe(at, completed, backlog=backlog, claimed=sum(claimed))
    return throughput.per_second


@pytest.mark.parametrize(
    ("backlog", "measured", "seconds"),
    [
        (0, None, 0.01),
        (0, 4000.0, 0.01),
        (90, None, 0.05),
        (50, 100.0, 0.05),
        (90, 100.0, 0.2),
        (90, 1.0, 0.25),
    ],
)
def test_when_to_look_again(backlog: int, measured: float | None, seconds: float) -> None:
    """FM-38: of a bound of 100 halfway to room for 50; soon where the workers have nothing left."""
    assert seconds_to_next_look(100, backlog, measured) == pytest.approx(seconds)


def test_a_rate_is_known_once_something_was_completed() -> None:
    """FM-38: as soon as a second observation confirms it, without waiting for a window to fill."""
    assert observed((0, 0, 50)) is None
    assert observed((0, 0, 50), (0.2, 50, 0)) is None
    assert observed((0, 0, 50), (0.5, 50, 0), (0.55, 50, 0)) == pytest.approx(100)
    # In next to no time: no extravagant rate.
    assert observed((0, 0, 50), (0.01, 50, 0), (0.05, 50, 0)) == pytest.approx(200)


def test_a_worker_that_begins_is_no_slow_worker() -> None:
    """FM-38: in a new group the first mail takes seconds; then the topic held 100 items for seconds more."""
    waiting = [(tick / 20, 0, 100) for tick in range(40)]
    assert observed(*waiting) is None
    assert observed(*waiting, (2.0, 100, 50), (2.5, 600, 50), (2.55, 650, 50)) == pytest.approx(600 / 0.55)


def test_what_others_have_just_published_is_not_completed() -> None:
    """FM-38: a trigger's 100 messages are on the topic, and their receipts not yet stored: no rate of thousands."""
    assert observed((0, 0, 50), (0.1, 105, 45), (0.2, 10, 140), (0.3, 15, 135)) == pytest.approx(40)


def test_what_is_published_is_not_completed_however_long_its_receipts_take() -> None:
    """FM-38: on a busy machine they took half a second; 273 items were on a topic that may hold 250."""
    slow = [(0.1 + tick / 20, 100, 50, 100) for tick in range(10)]
    assert observed((0, 0, 50, 100), *slow) is None
    assert observed((0, 0, 50, 100), *slow, (0.65, 10, 140), (0.7, 10, 140)) == pytest.approx(10 / 0.65)


def test_a_claim_that_ends_without_a_receipt_is_no_progress() -> None:
    """FM-38: a trigger gives up most of its claim; 2,900 items were published at once."""
    assert observed((0, 0, 50, 1000), (0.1, 100, 50, 1000), (0.2, 100, 50, 100), (0.3, 0, 150), (0.4, 0, 150)) is None
    assert observed((0, 0, 50, 1000), (0.1, 0, 50, 1000), (0.2, 5, 50), (0.3, 10, 40)) == pytest.approx(20)


def test_idle_time_is_not_measured() -> None:
    """FM-38: workers without work are not slow workers."""
    idle = [(tick / 10, 100, 0) for tick in range(1, 12)]
    assert observed((0, 0, 100), *idle) == pytest.approx(400)
    # Nobody knows how long the work of such a pause took.
    assert observed((0, 0, 100), *idle, (60.0, 400, 0)) is None


def test_a_slower_server_lowers_the_rate_within_seconds() -> None:
    """FM-38: the rate is that of the last seconds."""
    completed, at, seen = 0, 0.0, []
    for rate in [1000] * 50 + [20] * 50:
        at += 0.1
        completed += rate // 10
        seen.append((at, completed, 2000))
    rate_now = observed(*seen)
    assert rate_now is not None
    assert rate_now < 25


def test_a_topic_that_was_made_again_is_measured_afresh() -> None:
    """FM-36: what was completed seems to have become less by far."""
    assert observed((0, 100_000, 10), (0.1, 100_100, 10), (0.2, 0, 10)) is None


@pytest.mark.parametrize(
    ("brokers", "replication", "in_sync", "lacks"),
    [
        (1, 1, 1, None),
        (2, 2, 1, None),
        (3, 3, 2, None),
        (5, 3, 2, None),
        (3, 1, 1, "replication 1, and there are 3 brokers: use 3"),
        (3, 3, 1, "min.insync.replicas 1: set it to 2"),
    ],
)
def test_durability(brokers: int, replication: int, in_sync: int, lacks: str | None) -> None:
    """FM-36: three brokers keep what one of them acknowledged; a topic with less is named."""
    assert Durability(replication, in_sync).lacks(brokers) == lacks
    if lacks is None:
        assert Durability.for_brokers(brokers) == Durability(replication, in_sync)


@pytest.mark.parametrize(
    ("committed", "earliest", "end", "position"),
    [(-1001, 0, 7, 0), (-1001, 3, 7, 3), (2, 3, 7, 3), (9, 3, 7, 7), (9, 0, 0, 0), (5, 3, 7, 7)],
)
def test_where_a_consumer_goes_on(committed: int, earliest: int, end: int, position: int) -> None:
    """FM-36: at the end of a log that has lost its tail, else at the earliest message."""
    assert next_position(GroupOffsets(committed, earliest, end)) == position
