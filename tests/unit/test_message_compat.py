"""Messages that the version before wrote, byte for byte: they are still on the topic, and still read.

The bytes are literals and not made by the encoder, which may change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from schemas.dead_letter import DeadLetterInfo, decode_headers
from schemas.message import InvitationDue, decode
from schemas.vocabulary import Action, Role

KEY: Final = b"4711"
VALUE: Final = (
    b'{"version":1,"batch_id":12,"event_id":345,"member_id":4711,"action":"invite","roles":["Student","Coach"]}'
)
MESSAGE: Final = InvitationDue(
    version=1, batch_id=12, event_id=345, member_id=4711, action=Action.INVITE, roles=(Role.STUDENT, Role.COACH)
)
DEAD_LETTER_HEADERS: Final[list[tuple[str, bytes | None]]] = [
    ("bidden-reason", b"unknown event 345"),
    ("bidden-topic", b"bidden.invitations.v1"),
    ("bidden-partition", b"3"),
    ("bidden-offset", b"17"),
    ("bidden-time", b"2026-11-01T18:30:00.123456+00:00"),
]


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        (VALUE, MESSAGE.roles),
        (VALUE.replace(b'"Student","Coach"', b'"Coach"'), (Role.COACH,)),
        (VALUE.replace(b'"Student","Coach"', b'"Coach","Student"'), (Role.COACH, Role.STUDENT)),
    ],
)
def test_a_message_of_the_version_before(value: bytes, roles: tuple[Role, ...]) -> None:
    """FM-20: what was fine when it was published does not become a dead letter by an upgrade."""
    assert decode(KEY, value) == replace(MESSAGE, roles=roles)


def test_a_dead_letter_of_the_version_before() -> None:
    """Its reason and its source are still shown, and it can be redriven to the topic that it names."""
    assert decode_headers(DEAD_LETTER_HEADERS) == DeadLetterInfo(
        "unknown event 345", "bidden.invitations.v1", 3, 17, "2026-11-01T18:30:00.123456+00:00"
    )
