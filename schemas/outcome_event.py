"""The events on the outcomes topic: what became of a delivery. Other systems may read them.

The topic is compacted by the delivery's key, so that it keeps the newest outcome of each for ever. Headers follow
CloudEvents' binary mode for Kafka. The state, not the order in which it is read, says what is so: a repeated event is
the same event.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.keys import DeliveryKey
from schemas.message import Id
from schemas.vocabulary import Role

CE_TYPE: Final = "org.bidden.delivery.outcome.v1"
CE_SOURCE: Final = "/bidden/ledger"
_FIXED_HEADERS: Final[tuple[tuple[str, str | bytes | None], ...]] = (
    ("ce_specversion", b"1.0"),
    ("ce_type", CE_TYPE.encode()),
    ("ce_source", CE_SOURCE.encode()),
    ("content-type", b"application/json"),
)


class OutcomeEvent(BaseModel):
    """What the ledger says of a delivery since `time`. The message's key is the delivery's: EVENT/ACTION/MEMBER/SLOT.

    `fence` counts its claims: of two events of one delivery, that with the lower fence is the older. `planned` follows
    another state when an operator has the mail sent again.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1]
    state: Literal["sent", "failed", "retry", "unknown", "skipped", "planned"]
    fence: int = Field(ge=0)
    role: Role
    #: The batch that claimed it last; null where another system mailed it.
    batch_id: Id | None
    #: The Message-ID header of the mail.
    message_id: str
    time: datetime


class NotedOutcome(NamedTuple):
    """A row of the ledger as its trigger noted it, in the order of the columns there. `at` is ISO 8601."""

    event_id: int
    action: str
    member_id: int
    slot: str
    role: str
    state: str
    fence: int
    batch_id: int | None
    at: str

    @property
    def key(self) -> DeliveryKey:
        """The delivery."""
        return DeliveryKey(self.event_id, self.action, self.member_id, self.slot)


class Message(NamedTuple):
    """An event as it is written to the topic."""

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def encode(noted: NotedOutcome, domain: str) -> Message:
    """Its event, not validated: it comes from the ledger. `domain` is that of the sender.

    `ce_id` is the same when the event is written again.
    """
    delivery = noted.key
    key, at = str(delivery).encode(), noted.at.encode()
    value: dict[str, Any] = {
        "version": 1,
        "state": noted.state,
        "fence": noted.fence,
        "role": noted.role,
        "batch_id": noted.batch_id,
        "message_id": delivery.message_id(domain),
        "time": noted.at,
    }
    event_id = b"%s/%d/%s/%s" % (key, noted.fence, noted.state.encode(), at)
    headers = [*_FIXED_HEADERS, ("ce_id", event_id), ("ce_time", at), ("ce_subject", key)]
    return Message(key, orjson.dumps(value), headers)


def decode(key: bytes | None, value: bytes | None) -> tuple[DeliveryKey, OutcomeEvent]:
    """The delivery and its event; ValueError for what is neither."""
    return DeliveryKey.parse((key or b"").decode()), OutcomeEvent.model_validate_json(value or b"")
