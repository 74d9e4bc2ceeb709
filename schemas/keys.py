"""The delivery key: what is mailed at most once, and the names derived from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_PATTERN = re.compile(r"([1-9][0-9]{0,18})/([a-z_]+)/([1-9][0-9]{0,18})/([A-Za-z]+)")

#: A large batch mails its members by neighbourhoods of so many ids. Their rows lie together, in tables and indexes, and
#: are cheaper to write together: the plan puts them together, and a worker claims them so.
NEIGHBOURHOOD: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class DeliveryKey:
    """One mail that is due: (event, action, member, slot).

    `slot` is the role under the role policy `each` and the word `member` under `one`. Its text form travels in
    the header `X-Bidden-Delivery`.
    """

    event_id: int
    action: str
    member_id: int
    slot: str

    def __str__(self) -> str:
        return f"{self.event_id}/{self.action}/{self.member_id}/{self.slot}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key written as `EVENT/ACTION/MEMBER/SLOT`; ValueError if it is not one."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"not a delivery key: {text!r}")
        event, action, member, slot = match.groups()
        return cls(int(event), action, int(member), slot)

    def message_id(self, domain: str) -> str:
        """The Message-ID, angle brackets included: the same for every resend, so that a resend can be recognised."""
        return f"<bidden.{self.event_id}.{self.action}.{self.member_id}.{self.slot}@{domain}>"
