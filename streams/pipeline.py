"""The records of one poll, step by step: decode, look up, deliver, write the dead letters.

    Record ─ decode ─▶ InvitationDue ─ look up ─▶ Delivery ─ claim, compose, send, record ─▶ the ledger
                 └──────────┴─▶ InvalidRecord ─▶ the dead-letter topic

When `process` returns, every record of the poll is settled, due again, on the dead-letter topic, or of a paused batch
(`resume` makes its items due), and the runner may acknowledge it. Nothing may be acknowledged when it raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from config import crash_points, metrics
from config.crash_points import CrashPoint
from db.ledger import Ledger, LookedUp
from schemas.delivery import Delivery
from schemas.keys import NEIGHBOURHOOD, DeliveryKey
from schemas.message import InvitationDue, UndecodableError, decode
from schemas.send_rates import domain_of
from schemas.vocabulary import MEMBER_SLOT, Role, RolePolicy
from streams.composer import Composer, compose
from streams.records import DeadLetterSink, Heartbeat, InvalidRecord, Record
from streams.window import Window

_ROLES: Final = frozenset(Role)
_LOOK_UP: Final = metrics.STEP.labels(metrics.LOOK_UP)
_DELIVER: Final = metrics.STEP.labels(metrics.DELIVER)
_DEAD_LETTERS: Final = metrics.STEP.labels(metrics.DEAD_LETTERS)

#: A message, and the records of the poll that hold it: the first is processed, the others repeat it.
Decoded = tuple[list[Record], InvitationDue]


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
            with _LOOK_UP.time():
                deliveries, contradictory = await self._look_up(decoded)
            invalid += contradictory
            self._heartbeat.beat()
            if deliveries:
                crash_points.reach(CrashPoint.POLL_LOOKED_UP)
                with _DELIVER.time():
                    await self._window.deliver(deliveries)
        if invalid:
            crash_points.reach(CrashPoint.DEAD_LETTER_FOUND)
            with _DEAD_LETTERS.time():
                await self._dead_letters.put(invalid)
            crash_points.reach(CrashPoint.DEAD_LETTER_DELIVERED)
        self._heartbeat.beat()

    async def probe(self, record: Record) -> None:
        """Decode, look up and compose one record, and claim nothing: whether that much ends the worker."""
        decoded, _ = decode_records([record])
        if decoded:
            deliveries, _ = await self._look_up(decoded)
            await self._ledger.read_mails(deliveries)
            for delivery in deliveries:
                compose(self._composer, delivery)

    async def _look_up(self, decoded: Sequence[Decoded]) -> tuple[list[Delivery], list[InvalidRecord]]:
        """The deliveries of items that are not settled; and the records whose message contradicts the database.

        A slot that was sent already is requested, too: the claim decides.
        """
        invalid: list[InvalidRecord] = []
        rows: list[LookedUp] = []
        for row in await self._ledger.look_up([message for _, message in decoded]):
            records, message = decoded[row.n]
            reason = contradiction(message, row)
            if reason is not None:
                invalid += [InvalidRecord(record, reason) for record in records]
            elif not row.paused:
                rows.append(row)
        deliveries: list[Delivery] = []
        for row in rows:
            records, message = decoded[row.n]
            deliveries += _deliveries(records[0], message, row)
        return deliveries, invalid


def _deliveries(record: Record, message: InvitationDue, row: LookedUp) -> list[Delivery]:
    """One for each role that the batch plans for the member, under the slots that the event's policy names."""
    each = row.role_policy == RolePolicy.EACH
    return [
        Delivery(
            message.batch_id,
            DeliveryKey(message.event_id, message.action, message.member_id, role if each else MEMBER_SLOT),
            role,
            record.partition,
            record.offset,
            domain=domain_of(row.email or ""),
        )
        for role in row.roles or ()
    ]


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
    return _by_neighbourhood(decoded), invalid


def _by_neighbourhood(decoded: Iterable[Decoded]) -> list[Decoded]:
    """Each neighbourhood of a batch at the place of its first message. The rest of their order stays."""
    neighbourhoods: dict[tuple[int, int], list[Decoded]] = {}
    for entry in decoded:
        message = entry[1]
        neighbourhoods.setdefault((message.batch_id, message.member_id // NEIGHBOURHOOD), []).append(entry)
    return [entry for neighbours in neighbourhoods.values() for entry in neighbours]


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
