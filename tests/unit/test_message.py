"""The message on the topic: written, read, and refused when it is not one."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from schemas.message import InvitationDue, UndecodableError, decode, encode, encode_fast, headers, key_of
from schemas.vocabulary import Action, Role

IDS = st.integers(1, 2**63 - 1)
MESSAGES = st.builds(
    InvitationDue,
    version=st.just(1),
    batch_id=IDS,
    event_id=IDS,
    member_id=IDS,
    action=st.just(Action.INVITE),
    roles=st.lists(st.sampled_from(Role), min_size=1, max_size=2, unique=True).map(tuple),
)
FINE: dict[str, Any] = {
    "version": 1,
    "batch_id": 2,
    "event_id": 3,
    "member_id": 4,
    "action": "invite",
    "roles": ["Student", "Coach"],
}


@given(MESSAGES)
def test_what_is_written_is_read_back(message: InvitationDue) -> None:
    """Encoding and decoding are each other's opposite, for every id."""
    assert decode(key_of(message.member_id), encode(message)) == message


@given(MESSAGES)
def test_the_fast_way_writes_the_same_bytes(message: InvitationDue) -> None:
    """The dispatcher's shortcut gives the very bytes of the model."""
    roles = [role.value for role in message.roles]
    fast = encode_fast(message.batch_id, message.event_id, message.member_id, message.action.value, roles)
    assert fast == encode(message)


def test_a_known_message_is_read() -> None:
    """The wire format, by example."""
    message = decode(b"4", json.dumps(FINE).encode())
    assert (message.batch_id, message.event_id, message.member_id) == (2, 3, 4)
    assert message.roles == (Role.STUDENT, Role.COACH)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version"),
        ({"version": "1"}, "version"),
        ({"batch_id": 0}, "batch_id"),
        ({"batch_id": "2"}, "batch_id"),
        ({"batch_id": 2.5}, "batch_id"),
        ({"batch_id": True}, "batch_id"),
        ({"event_id": 2**63}, "event_id"),
        ({"event_id": None}, "event_id"),
        ({"member_id": -4}, "member_id"),
        ({"action": "reminder"}, "action"),
        ({"roles": []}, "roles"),
        ({"roles": ["Participant"]}, "roles"),
        ({"roles": ["Student"] * 3}, "roles"),
        ({"roles": "Student"}, "roles"),
        ({"note": "hello"}, "note: unknown field"),
    ],
)
def test_a_message_that_is_wrong_says_where(change: dict[str, Any], reason: str) -> None:
    """FM-20: the reason on the dead letter names the field."""
    with pytest.raises(UndecodableError, match=rf"^{reason}"):
        decode(b"4", json.dumps(FINE | change).encode())


@pytest.mark.parametrize("field", list(FINE))
def test_a_field_that_is_missing_is_named(field: str) -> None:
    """FM-20: every field is needed."""
    without = {name: value for name, value in FINE.items() if name != field}
    with pytest.raises(UndecodableError, match=rf"^{field}"):
        decode(b"4", json.dumps(without).encode())


@pytest.mark.parametrize("key", [None, b"", b"5", b"04", b"4 ", "\N{ARABIC-INDIC DIGIT FOUR}".encode(), b"\xff"])
def test_a_key_that_names_somebody_else(key: bytes | None) -> None:
    """FM-20: a key unlike the member's id is poison: it may have gone to a partition where order means nothing."""
    with pytest.raises(UndecodableError, match="key does not name member_id 4"):
        decode(key, json.dumps(FINE).encode())


@pytest.mark.parametrize("value", [None, b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"1", b"{}" * 2, b"\0" * 10])
def test_what_is_no_json_object(value: bytes | None) -> None:
    """FM-20: whatever the bytes are, they are undecodable with a reason, and nothing else is raised."""
    with pytest.raises(UndecodableError) as caught:
        decode(b"4", value)
    assert str(caught.value)


@given(st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.binary()))
def test_no_bytes_raise_anything_else(key: bytes | None, value: bytes | None) -> None:
    """FM-20: random bytes are refused, never a crash."""
    with pytest.raises(UndecodableError):
        decode(key, value)


def test_headers_follow_cloudevents() -> None:
    """CloudEvents in Kafka's binary mode, and the trace context."""
    found = dict(headers("id-1", 4, "2026-01-01T00:00:00+00:00", "00-a-b-01"))
    assert found["ce_specversion"] == b"1.0"
    assert found["ce_type"] == b"org.bidden.invitation.due.v1"
    assert found["ce_source"] == b"/bidden/producers"
    assert (found["ce_id"], found["ce_subject"]) == (b"id-1", b"4")
    assert found["ce_time"] == b"2026-01-01T00:00:00+00:00"
    assert found["traceparent"] == b"00-a-b-01"
    assert found["content-type"] == b"application/json"
