"""The pure steps of the pipeline: decoding with repeats dropped, and what contradicts the database."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from db.ledger import LookedUp
from schemas.message import InvitationDue, encode_fast, key_of
from schemas.vocabulary import Action, Role
from streams.pipeline import contradiction, decode_records
from streams.records import Record


def record(n: int, key: bytes | None, value: bytes | None) -> Record:
    return Record("topic", 0, 100 + n, key, value)


def message(n: int, batch: int, member: int, event: int = 3) -> Record:
    return record(n, key_of(member), encode_fast(batch, event, member, "invite", ["Student"]))


def test_records_are_decoded() -> None:
    """Messages keep their records and their order; repeats of an item are kept with the first."""
    records = [message(0, 1, 10), message(1, 1, 11), message(2, 1, 10), message(3, 2, 10)]
    decoded, invalid = decode_records(records)
    assert [(r, m.batch_id, m.event_id, m.member_id) for r, m in decoded] == [
        ([records[0], records[2]], 1, 3, 10),
        ([records[1]], 1, 3, 11),
        ([records[3]], 2, 3, 10),
    ]
    assert invalid == []


def test_neighbours_come_together() -> None:
    """Members of one neighbourhood are claimed together, at the place of the first; all else keeps its order."""
    records = [message(0, 1, 70), message(1, 1, 10), message(2, 2, 71), message(3, 1, 130), message(4, 1, 127)]
    decoded, _ = decode_records([*records, message(5, 1, 9)])
    assert [(m.batch_id, m.member_id) for _, m in decoded] == [(1, 70), (1, 127), (1, 10), (1, 9), (2, 71), (1, 130)]


def test_poison_in_a_poll() -> None:
    """FM-20: poison is set aside with its reason and its very record, and the rest of the poll goes on."""
    poison = [record(1, b"10", b"{"), record(3, b"10", None), record(4, None, message(0, 1, 10).value)]
    records = [message(0, 1, 10), poison[0], message(2, 1, 11), *poison[1:]]
    decoded, invalid = decode_records(records)
    assert [r for r, _ in decoded] == [[records[0]], [records[2]]]
    assert [i.record for i in invalid] == poison
    assert [i.reason for i in invalid][1:] == ["empty value", "key does not name member_id 10"]


def test_the_same_member_for_another_event_is_no_repeat() -> None:
    """FM-20: a forged repeat that names another event is looked up by itself, and cannot hide the right one."""
    decoded, _ = decode_records([message(0, 1, 10, event=9), message(1, 1, 10)])
    assert [(r.offset, m.event_id) for (r,), m in decoded] == [(100, 9), (101, 3)]


ITEMS = st.tuples(st.integers(1, 3), st.integers(1, 4))


@given(st.lists(st.one_of(ITEMS, st.binary(max_size=5))))
def test_every_record_has_one_fate(values: list[tuple[int, int] | bytes]) -> None:
    """FM-01, FM-20: each record is decoded, a repeat of one that is, or invalid; each item is decoded once."""
    records = [record(n, b"x", item) if isinstance(item, bytes) else message(n, *item) for n, item in enumerate(values)]
    decoded, invalid = decode_records(records)
    items = [item for item in values if not isinstance(item, bytes)]
    assert sorted((m.batch_id, m.member_id) for _, m in decoded) == sorted(set(items))
    assert len(invalid) == len(values) - len(items)
    assert all(values[r.offset - 100] == (m.batch_id, m.member_id) for held, m in decoded for r in held)
    assert sum(len(held) for held, _ in decoded) == len(items)


MESSAGE = InvitationDue(version=1, batch_id=1, event_id=3, member_id=10, action=Action.INVITE, roles=(Role.STUDENT,))
LOOKED_UP = LookedUp(
    n=0,
    batch_event_id=3,
    event_known=True,
    member_known=True,
    paused=False,
    roles=["Student"],
    email="ada@example.org",
    role_policy="each",
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
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
    assert contradiction(MESSAGE, replace(LOOKED_UP, **change)) == reason  # type: ignore[arg-type]
