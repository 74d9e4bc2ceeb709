"""Delivery keys: their text, and the Message-ID derived from them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from schemas.keys import DeliveryKey
from schemas.vocabulary import MEMBER_SLOT, Action, Role

IDS = st.integers(1, 2**63 - 1)
KEYS = st.builds(
    DeliveryKey,
    event_id=IDS,
    action=st.sampled_from([action.value for action in Action]),
    member_id=IDS,
    slot=st.sampled_from([*(role.value for role in Role), MEMBER_SLOT]),
)


@given(KEYS)
def test_a_key_is_read_back(key: DeliveryKey) -> None:
    """The text of X-Bidden-Delivery names the key, whatever the ids."""
    assert DeliveryKey.parse(str(key)) == key


@given(KEYS, KEYS)
def test_message_ids_tell_keys_apart(one: DeliveryKey, other: DeliveryKey) -> None:
    """FM-12: the same key always has the same Message-ID, another key another: a resend can be recognised."""
    same = one.message_id("example.org") == other.message_id("example.org")
    assert same == (one == other)


def test_a_message_id_is_one() -> None:
    """In angle brackets, with the domain."""
    key = DeliveryKey(7, "invite", 42, "Student")
    assert str(key) == "7/invite/42/Student"
    assert key.message_id("example.org") == "<bidden.7.invite.42.Student@example.org>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7/invite/42",
        "7/invite/42/Student/x",
        "0/invite/42/Student",
        "07/invite/42/Student",
        "-7/invite/42/Student",
        "\N{ARABIC-INDIC DIGIT SEVEN}/invite/42/Student",
        "7/invite/42/Student\n",
        " 7/invite/42/Student",
        "7//42/Student",
        "99999999999999999999/invite/42/Student",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """Nothing that only resembles a key is taken for one."""
    with pytest.raises(ValueError, match="not a delivery key"):
        DeliveryKey.parse(text)
