"""The records of one poll, step by step: decode, look up, compose, deliver, write the dead letters.

    Record ─ decode ─▶ InvitationDue ─ look up, compose ─▶ Delivery ─ claim, send, record ─▶ the ledger
                 └──────────┴─▶ InvalidRecord ─▶ the dead-letter topic

When `process` returns, every record of the poll is settled, due again, on the dead-letter topic, or of a paused batch
(`resume` makes its items due), and the runner may acknowledge it. Nothing may be acknowledged when it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from config import crash_points
from config.crash_points import CrashPoint
from db.ledger import Ledger, LookedUp
from mail.compose import CompiledTemplate
from schemas.delivery import Delivery
from schemas.envelope import Envelope, Unmailable
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.message import InvitationDue, UndecodableError, decode
from schemas.send_rates import domain_of
from schemas.vocabulary import MEMBER_SLOT, Role, RolePolicy
from streams.records import DeadLetterSink, Heartbeat, InvalidRecord, Record
from streams.window import Window

_ROLES: Final = frozenset(Role)

#: A message, and the records of the poll that hold it: the first is processed, the others repeat it.
Decoded = tuple[list[Record], InvitationDue]


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
        if compiled is None or compiled[0] != event:
            compiled = (event, CompiledTemplate(event, role, self.mail_from, self.base_url))
            self._templates[event.event_id, role] = compiled
        return compiled[1].compose(recipient, key, self.clock())


class Pipeline:
    """The steps from a poll to the ledger. Several polls may be processed at once; they share the window."""

    def __init__(
        self, ledger: Ledger, composer: Composer, window: Window, dead_letters: DeadLetterSink, heartbeat: Heartbeat
    ) -> None:
        self._ledger = ledger
        self._composer = composer
        self._window = window
        self._dead_letters = dead_letters
        self._heartbeat = heartbeat

    async def process(self, records: Sequence[Record]) -> None:
        """Process the records of one poll. StoppingError when the worker stops first."""
        crash_points.reach(CrashPoint.POLL_FETCHED)
        decoded, invalid = decode_records(records)
        if decoded:
            settled = await self._ledger.find_settled([message for _, message in decoded])
            unsettled = [pair for n, pair in enumerate(decoded) if n not in settled]
            if unsettled:
                deliveries, contradictory = await self._look_up(unsettled)
                invalid += contradictory
                self._heartbeat.beat()
                crash_points.reach(CrashPoint.POLL_LOOKED_UP)
                await self._window.deliver(deliveries)
        if invalid:
            crash_points.reach(CrashPoint.DEAD_LETTER_FOUND)
            await self._dead_letters.put(invalid)
            crash_points.reach(CrashPoint.DEAD_LETTER_DELIVERED)
        self._heartbeat.beat()

    async def _look_up(self, decoded: Sequence[Decoded]) -> tuple[list[Delivery], list[InvalidRecord]]:
        """The deliveries of unsettled items, composed; and the records whose message contradicts the database.

        A slot that was sent already is requested, too: the claim decides.
        """
        invalid: list[InvalidRecord] = []
        rows: list[LookedUp] = []
        for row in await self._ledger.look_up([message for _, message in decoded]):
            records, message = decoded[row.n]
            reason = contradiction(message, row)
            if reason is not None:
                invalid += [InvalidRecord(record, reason) for record in records]
            elif not row.paused and not row.settled:
                rows.append(row)
        deliveries: list[Delivery] = []
        if rows:
            events = await self._ledger.event_details(sorted({decoded[row.n][1].event_id for row in rows}))
            for row in rows:
                records, message = decoded[row.n]
                deliveries += self._deliveries(records[0], message, row, *events[message.event_id])
        return deliveries, invalid

    def _deliveries(
        self, record: Record, message: InvitationDue, row: LookedUp, event: EventDetails, policy: RolePolicy
    ) -> list[Delivery]:
        deliveries = []
        for role in row.roles or ():
            slot = role if policy is RolePolicy.EACH else MEMBER_SLOT
            key = DeliveryKey(message.event_id, message.action, message.member_id, slot)
            envelope = self._compose(event, Role(role), row, key)
            place = (record.partition, record.offset)
            deliveries.append(
                Delivery(message.batch_id, key, role, *place, envelope, domain=domain_of(row.email or ""))
            )
        return deliveries

    def _compose(self, event: EventDetails, role: Role, row: LookedUp, key: DeliveryKey) -> Envelope | Unmailable:
        assert row.name is not None
        assert row.email is not None
        token = (row.tokens or {}).get(role)
        if token is None:
            return Unmailable("the invitation has no token: plan the member again")
        recipient = Recipient(key.member_id, row.name, row.surname, row.email, token)
        try:
            return self._composer(event, role, recipient, key)
        except Exception as error:
            return Unmailable(f"the mail could not be composed: {error}")


def decode_records(records: Sequence[Record]) -> tuple[list[Decoded], list[InvalidRecord]]:
    """Decode the records of one poll; repeats of a batch's message share one look-up. Pure."""
    decoded: list[Decoded] = []
    invalid: list[InvalidRecord] = []
    records_of: dict[tuple[int, int, int], list[Record]] = {}
    for record in records:
        try:
            message = decode(record.key, record.value)
        except UndecodableError as error:
            invalid.append(InvalidRecord(record, str(error)))
            continue
        item = (message.batch_id, message.event_id, message.member_id)
        if item in records_of:
            records_of[item].append(record)
        else:
            records_of[item] = [record]
            decoded.append((records_of[item], message))
    return decoded, invalid


def contradiction(message: InvitationDue, row: LookedUp) -> str | None:
    """Why a well-formed message can never be processed; None when it can. Pure."""
    if row.batch_event_id is None:
        return f"unknown batch {message.batch_id}"
    if not row.event_known:
        return f"unknown event {message.event_id}"
    if row.batch_event_id != message.event_id:
        return f"batch {message.batch_id} is not of event {message.event_id}"
    if not row.member_known:
        return f"unknown member {message.member_id}"
    if not row.roles:
        return f"member {message.member_id} is not planned in batch {message.batch_id}"
    if not _ROLES.issuperset(row.roles):
        return f"batch {message.batch_id} plans member {message.member_id} in an unknown role"
    return None
