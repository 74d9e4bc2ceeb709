"""The pure steps of a take: decoding with repeats dropped, and what contradicts the directory."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from db.ledger import Found, Named
from schemas.message import encode_fast, key_of
from streams.pipeline import contradiction, read
from streams.records import Record


def record(n: int, key: bytes | None, value: bytes | None) -> Record:
    return Record("topic", 0, 100 + n, key, value)


def message(n: int, batch: int, member: int, event: int = 3) -> Record:
    return record(n, key_of(member), encode_fast(batch, event, member, "invite", ["Student"]))


def test_a_take_is_read() -> None:
    """Messages keep their place in the take; repeats of an item are dropped, the first stays."""
    take = [message(0, 1, 10), message(1, 1, 11), message(2, 1, 10), message(3, 2, 10)]
    named, letters = read(take)
    assert named == [Named(0, 1, 3, 10), Named(1, 1, 3, 11), Named(3, 2, 3, 10)]
    assert letters == []


def test_poison_in_a_take() -> None:
    """FM-20: poison is set aside with its reason and its very record, and the rest of the take goes on."""
    poison = [record(1, b"10", b"{"), record(3, b"10", None), record(4, None, message(0, 1, 10).value)]
    take = [message(0, 1, 10), poison[0], message(2, 1, 11), *poison[1:]]
    named, letters = read(take)
    assert [n.n for n in named] == [0, 2]
    assert [letter.record for letter in letters] == poison
    assert [letter.reason for letter in letters][1:] == ["empty value", "key does not name member_id 10"]


def test_the_same_member_for_another_event_is_no_repeat() -> None:
    """FM-20: a forged repeat that names another event is looked at by itself, and cannot hide the right one."""
    named, _ = read([message(0, 1, 10, event=9), message(1, 1, 10)])
    assert [(n.n, n.event_id) for n in named] == [(0, 9), (1, 3)]


ITEMS = st.tuples(st.integers(1, 3), st.integers(1, 4))


@given(st.lists(st.one_of(ITEMS, st.binary(max_size=5))))
def test_every_message_has_one_fate(take: list[tuple[int, int] | bytes]) -> None:
    """FM-01, FM-20: each message is read, a repeat of one that is, or a dead letter; each item is read once."""
    records = [record(n, b"x", item) if isinstance(item, bytes) else message(n, *item) for n, item in enumerate(take)]
    named, letters = read(records)
    items = [item for item in take if not isinstance(item, bytes)]
    assert [(n.batch_id, n.member_id) for n in named] == list(dict.fromkeys(items))
    assert len(letters) == len(take) - len(items)
    assert all(take[n.n] == (n.batch_id, n.member_id) for n in named)


NAMED = Named(0, batch_id=1, event_id=3, member_id=10)
FOUND = Found(
    n=0,
    batch_event_id=3,
    event_known=True,
    member_known=True,
    paused=False,
    settled=False,
    roles=["Student"],
    name="Ada",
    surname=None,
    email="ada@example.org",
    tokens={"Student": "t"},
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"settled": True}, None),
        ({"paused": True}, None),
        ({"batch_event_id": None, "roles": None}, "unknown batch 1"),
        ({"event_known": False}, "unknown event 3"),
        ({"batch_event_id": 4}, "batch 1 is not of event 3"),
        ({"member_known": False, "roles": None}, "unknown member 10"),
        ({"roles": None}, "member 10 is not planned in batch 1"),
        ({"roles": []}, "member 10 is not planned in batch 1"),
    ],
)
def test_what_can_never_be_processed(change: dict[str, object], reason: str | None) -> None:
    """FM-20: a message about what does not exist, or was not planned, is poison, with a reason that says which."""
    assert contradiction(NAMED, replace(FOUND, **change)) == reason  # type: ignore[arg-type]
