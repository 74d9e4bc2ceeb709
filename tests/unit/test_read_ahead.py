"""What a consumer has read leaves oldest first, in order within a partition, and no partition waits for another."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from streams.records import Record
from streams.runners.read_ahead import ReadAhead


def records(partition: int, *times: int | None) -> list[Record]:
    return [Record("topic", partition, n, b"1", b"{}", timestamp=at) for n, at in enumerate(times)]


def test_the_oldest_of_all_partitions_leave_first() -> None:
    """A fetch brings one partition after another; a poll takes what was published first of each."""
    ahead = ReadAhead()
    for partition in range(4):
        ahead.add(records(partition, *range(100, 200)))
    for poll in range(10):
        taken = ahead.take(40)
        assert Counter(record.partition for record in taken) == dict.fromkeys(range(4), 10)
        assert {record.timestamp for record in taken} == set(range(100 + poll * 10, 110 + poll * 10))
    assert (len(ahead), ahead.take(40)) == (0, [])


def test_what_was_published_at_once_takes_turns() -> None:
    """A dispatcher publishes hundreds in a millisecond."""
    ahead = ReadAhead()
    for partition in range(3):
        ahead.add(records(partition, *[7] * 50))
    assert Counter(record.partition for record in ahead.take(60)) == {0: 20, 1: 20, 2: 20}


def test_no_partition_delays_another() -> None:
    """Half of a poll is shared out evenly, whether a partition is far behind or has messages from the future."""
    ahead = ReadAhead()
    ahead.add(records(0, *[1] * 1000))
    ahead.add(records(1, *[5000] * 100))
    ahead.add(records(2, *[None] * 1000))
    assert Counter(record.partition for record in ahead.take(60)) == {0: 10, 1: 10, 2: 40}


def test_what_was_dropped_is_forgotten() -> None:
    """A partition that was revoked, or begins again elsewhere, leaves nothing; the others stay."""
    ahead = ReadAhead()
    ahead.add([*records(0, 1, 2), *records(1, 3)])
    ahead.drop([0, 5])
    assert [record.partition for record in ahead.take(10)] == [1]
    assert len(ahead) == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 9)), max_size=60),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_every_record_leaves_once_and_in_order(read: list[tuple[int, int | None]], limits: list[int]) -> None:
    """Offsets of a partition leave in order, whatever their times are: a later one may be committed after them."""
    ahead = ReadAhead()
    ahead.add(Record("topic", partition, n, None, None, timestamp=at) for n, (partition, at) in enumerate(read))
    left: list[Record] = []
    while ahead:
        limit = limits[len(left) % len(limits)]
        taken = ahead.take(limit)
        assert 0 < len(taken) <= limit
        left += taken
    for partition in range(4):
        offsets = [record.offset for record in left if record.partition == partition]
        assert offsets == [n for n, (p, _) in enumerate(read) if p == partition]
