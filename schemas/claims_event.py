"""The messages on the claims topic: which claims a worker holds. It writes them before any of their mails is begun.

Not for other systems: a ledger that was restored from a backup learns from them which mails may have been sent since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict

from schemas.delivery import Delivery

#: Event, action, member, slot, role, batch, fence.
Claim = tuple[int, str, int, str, str, int, int]


class Claims(BaseModel):
    """The claims of one transaction. `owner` names the transaction."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1]
    owner: str
    claims: list[Claim]


def encode(owner: str, claimed: Iterable[Delivery]) -> bytes:
    """The value of the message."""
    claims = [(*_key(delivery), delivery.role, delivery.batch_id, delivery.fence) for delivery in claimed]
    return orjson.dumps({"version": 1, "owner": owner, "claims": claims})


def _key(delivery: Delivery) -> tuple[int, str, int, str]:
    key = delivery.key
    return key.event_id, key.action, key.member_id, key.slot


def decode(value: bytes | None) -> Claims:
    """The claims of a message; ValueError for anything else."""
    return Claims.model_validate_json(value or b"")
