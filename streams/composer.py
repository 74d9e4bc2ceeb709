"""Composes the mail of a claimed delivery, from what the directory said when it was claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mail.compose import CompiledTemplate
from schemas.delivery import Delivery
from schemas.envelope import Envelope, Unmailable
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.vocabulary import Role


class Composer(Protocol):
    """Composes the mail of one delivery. A member who cannot be mailed is a value, not an exception."""

    def __call__(
        self, event: EventDetails, role: Role, recipient: Recipient, key: DeliveryKey
    ) -> Envelope | Unmailable: ...


@dataclass(slots=True)
class TemplateComposer:
    """Composes from templates, each compiled once for as long as its event reads the same."""

    mail_from: str
    base_url: str
    clock: Callable[[], datetime]
    _templates: dict[tuple[int, Role], tuple[EventDetails, CompiledTemplate]] = field(default_factory=dict, init=False)

    def __call__(
        self, event: EventDetails, role: Role, recipient: Recipient, key: DeliveryKey
    ) -> Envelope | Unmailable:
        """The mail, or why this member cannot be mailed."""
        compiled = self._templates.get((event.event_id, role))
        if compiled is None or (compiled[0] is not event and compiled[0] != event):
            compiled = (event, CompiledTemplate(event, role, self.mail_from, self.base_url))
            self._templates[event.event_id, role] = compiled
        return compiled[1].compose(recipient, key, self.clock())


def compose(composer: Composer, delivery: Delivery) -> Envelope | Unmailable:
    """The mail of a claimed delivery. Whatever keeps it from being composed is this member's failure and no other's."""
    if delivery.recipient is None or delivery.event is None:
        return Unmailable("the invitation has no token: plan the member again")
    try:
        return composer(delivery.event, Role(delivery.role), delivery.recipient, delivery.key)
    except Exception as error:
        return Unmailable(f"the mail could not be composed: {error}")
