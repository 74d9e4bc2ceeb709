"""One take of messages, step by step: decode, look up, compose, hand over, bury the poison.

When `process` returns, every message of the take is settled, due again, or in the dead-letter topic, and the
runner may acknowledge it. When it raises, nothing may be acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from config import crash_points
from config.crash_points import CrashPoint
from db.ledger import Found, Ledger, Named, Wanted
from mail.compose import CompiledTemplate
from mail.envelope import Envelope, Unmailable
from schemas.invitation import EventDetails, Recipient
from schemas.keys import DeliveryKey
from schemas.message import UndecodableError, decode
from schemas.vocabulary import MEMBER_SLOT, Action, Role, RolePolicy
from streams.records import DeadLetterSink, Heartbeat, InvalidRecord, Record
from streams.window import Mail, Window

_ROLES: Final = frozenset(Role)


class Composer(Protocol):
    """Makes the mail of one delivery. A member for whom that cannot be done is a value, not an exception."""

    def __call__(
        self, event: EventDetails, role: Role, recipient: Recipient, key: DeliveryKey
    ) -> Envelope | Unmailable: ...


@dataclass(slots=True)
class TemplateComposer:
    """Composes from skeletons, each made once for as long as its event reads the same."""

    mail_from: str
    base_url: str
    clock: Callable[[], datetime]
    _templates: dict[tuple[int, Role], tuple[EventDetails, CompiledTemplate]] = field(default_factory=dict, init=False)

    def __call__(
        self, event: EventDetails, role: Role, recipient: Recipient, key: DeliveryKey
    ) -> Envelope | Unmailable:
        """The mail, or why there can be none for this member."""
        known = self._templates.get((event.event_id, role))
        if known is None or known[0] != event:
            known = (event, CompiledTemplate(event, role, self.mail_from, self.base_url))
            self._templates[event.event_id, role] = known
        return known[1].compose(recipient, key, self.clock())


class Pipeline:
    """The steps of a take. Several takes may be processed at once; they share the window."""

    def __init__(
        self, ledger: Ledger, composer: Composer, window: Window, dead_letters: DeadLetterSink, heartbeat: Heartbeat
    ) -> None:
        self._ledger = ledger
        self._composer = composer
        self._window = window
        self._dead_letters = dead_letters
        self._heartbeat = heartbeat

    async def process(self, take: Sequence[Record]) -> None:
        """Bring every message of the take to its end. StoppingError when the worker stops before."""
        crash_points.reach(CrashPoint.TAKE_FETCHED)
        named, letters = read(take)
        if named:
            settled = await self._ledger.find_settled(named)
            rest = [message for message in named if message.n not in settled]
            if rest:
                mails, unknown = await self._open_deliveries(take, rest)
                letters += unknown
                self._heartbeat.beat()
                crash_points.reach(CrashPoint.TAKE_LOOKED_UP)
                await self._window.hand_over(mails)
        if letters:
            crash_points.reach(CrashPoint.DEAD_LETTER_FOUND)
            await self._dead_letters.put(letters)
            crash_points.reach(CrashPoint.DEAD_LETTER_DELIVERED)
        self._heartbeat.beat()

    async def _open_deliveries(
        self, take: Sequence[Record], named: Sequence[Named]
    ) -> tuple[list[Mail], list[InvalidRecord]]:
        letters: list[InvalidRecord] = []
        mails: list[Mail] = []
        by_place = {message.n: message for message in named}
        found: list[Found] = []
        for row in await self._ledger.look_up(named):
            message = by_place[row.n]
            reason = contradiction(message, row)
            if reason is not None:
                letters.append(InvalidRecord(take[row.n], reason))
            elif not row.paused and not row.settled:
                found.append(row)
        if found:
            events = await self._ledger.event_details(sorted({by_place[row.n].event_id for row in found}))
            for row in found:
                details, policy = events[by_place[row.n].event_id]
                mails += self._mails(take[row.n], by_place[row.n], row, details, policy)
        return mails, letters

    def _mails(self, record: Record, message: Named, row: Found, event: EventDetails, policy: RolePolicy) -> list[Mail]:
        mails = []
        for role in row.roles or ():
            slot = role if policy is RolePolicy.EACH else MEMBER_SLOT
            key = DeliveryKey(message.event_id, Action.INVITE, message.member_id, slot)
            wanted = Wanted(message.batch_id, key, role, record.partition, record.offset)
            mails.append(Mail(wanted, self._compose(event, Role(role), row, key)))
        return mails

    def _compose(self, event: EventDetails, role: Role, row: Found, key: DeliveryKey) -> Envelope | Unmailable:
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


def read(take: Sequence[Record]) -> tuple[list[Named], list[InvalidRecord]]:
    """Decode a take. Repeats of an item are dropped: one look decides for all. Pure."""
    named: list[Named] = []
    letters: list[InvalidRecord] = []
    seen: set[tuple[int, int, int]] = set()
    for n, record in enumerate(take):
        try:
            message = decode(record.key, record.value)
        except UndecodableError as error:
            letters.append(InvalidRecord(record, str(error)))
            continue
        item = (message.batch_id, message.event_id, message.member_id)
        if item not in seen:
            seen.add(item)
            named.append(Named(n, message.batch_id, message.event_id, message.member_id))
    return named, letters


def contradiction(message: Named, row: Found) -> str | None:
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
        return f"batch {message.batch_id} plans member {message.member_id} in a role that there is not"
    return None
