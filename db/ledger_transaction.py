"""One transaction of a worker's window: record outcomes, claim what comes next, renew leases, settle items.

Called by `db.ledger`, which repeats it after an outage. Nothing in here waits or retries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

from psycopg.types.json import Jsonb

from config import crash_points
from config.crash_points import CrashPoint
from db import outcome_counts
from db.connect import AsyncConnection
from db.event_cache import EventCache
from db.outcome_counts import OutcomeCounts
from db.statements import sql
from schemas.delivery import Cycle, Delivery
from schemas.invitation import Recipient
from schemas.keys import DeliveryKey
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from schemas.redaction import without_addresses


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """How a worker uses the ledger. Lease and retry base are in seconds.

    `resend_below`: below so many attempts an `unknown` delivery is claimed again; 0 under the policy `hold`.
    """

    lease_seconds: float
    resend_below: int
    retry_base_seconds: float

    def parameters(self, owner: str) -> dict[str, Any]:
        """What the statements call these."""
        return {
            "owner": owner,
            "lease": self.lease_seconds,
            "resend_below": self.resend_below,
            "retry_base": self.retry_base_seconds,
        }


@dataclass(slots=True)
class Committed:
    """What a transaction did. `at` is the database's clock at its beginning, in seconds: leases count from there."""

    claimed: list[Delivery] = field(default_factory=list)
    renewed: set[DeliveryKey] = field(default_factory=set)
    at: float = -inf
    #: For the metrics.
    outcomes: OutcomeCounts = field(default_factory=Counter)
    #: Seconds after `at` for which the claims may be begun: the source is asked again before any later mail.
    fresh_for: float = inf

    def add(self, other: Committed) -> None:
        """The same of another transaction. Of two beginnings the earlier counts: no lease ends before what it says."""
        self.claimed += other.claimed
        self.renewed |= other.renewed
        self.outcomes += other.outcomes
        self.at = other.at if self.at == -inf else min(self.at, other.at)
        self.fresh_for = min(self.fresh_for, other.fresh_for)


def row_of(delivery: Delivery) -> dict[str, Any]:
    """For jsonb_to_recordset: which delivery, for which batch, by which message."""
    key = delivery.key
    return {
        "batch_id": delivery.batch_id,
        "event_id": key.event_id,
        "action": key.action,
        "member_id": key.member_id,
        "slot": key.slot,
        "role": delivery.role,
        "partition": delivery.partition,
        "kafka_offset": delivery.offset,
    }


def recordable(text: str | None, recipient: str | None = None) -> str | None:
    """Text that the ledger may keep, whatever a server replied: without addresses, and such as PostgreSQL can hold.

    The one place where what senders report enters the ledger. `recipient` is the address that it is about.
    """
    if text is None:
        return None
    kept = without_addresses(text, recipient).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return kept.encode("utf-8", "replace").decode()[:2000]


def outcome_row(outcome: Outcome | None, recipient: str | None = None) -> dict[str, Any]:
    """The outcome's columns; `recipient` is the address that the mail went to."""
    match outcome:
        case Sent(reply):
            return {"state": "sent", "reply": recordable(reply, recipient), "uses": 1}
        case Failed(reason, reply):
            return {
                "state": "failed",
                "reason": recordable(reason, recipient),
                "reply": recordable(reply, recipient),
                "uses": 1,
            }
        case Retry(reason, delay, uses, reply, refused):
            return {
                "state": "retry",
                "reason": recordable(reason, recipient),
                "reply": recordable(reply, recipient),
                "uses": uses,
                "delay": delay,
                "refused": refused or uses > 0,
            }
        case Unknown(reason):
            return {"state": "unknown", "reason": recordable(reason, recipient), "uses": 1}
        case None:
            raise ValueError("a delivery without an outcome cannot be recorded")


def outcome_of(row: dict[str, Any]) -> Outcome:
    """The outcome that `outcome_row` made this of. ValueError or KeyError for what it never makes."""
    match row["state"]:
        case "sent":
            return Sent(row["reply"])
        case "failed":
            return Failed(row["reason"], row["reply"])
        case "retry":
            return Retry(row["reason"], row["delay"], row["uses"], row["reply"], row["refused"])
        case "unknown":
            return Unknown(row["reason"])
        case other:
            raise ValueError(f"not an outcome: {other!r}")


#: Called before a transaction that claims, with the cycle's owner and what it asks for.
Note: TypeAlias = Callable[[str, Sequence[Delivery]], None]


def nothing_noted(owner: str, claims: Sequence[Delivery]) -> None:
    """Where nobody keeps a journal."""
    del owner, claims


def columns_of(delivery: Delivery) -> dict[str, Any]:
    """The columns of its outcome. Made once for each: journal and ledger ask for them."""
    outcome, known = delivery.outcome, delivery.columns
    if known is not None and known[0] is outcome:
        return known[1]
    columns = outcome_row(outcome, None if delivery.recipient is None else delivery.recipient.email)
    if outcome is not None:
        delivery.columns = outcome, columns
    return columns


async def run_cycle(
    conn: AsyncConnection, policy: LedgerPolicy, events: EventCache, cycle: Cycle, note: Note = nothing_noted
) -> Committed:
    """Commits a cycle; what was claimed has its fence and attempts set. Raises any psycopg error."""
    completed = [row_of(delivery) | {"fence": delivery.fence, **columns_of(delivery)} for delivery in cycle.record]
    accepted = [row for row in completed if row["state"] == "sent"]
    others = [row for row in completed if row["state"] != "sent"]
    requested = [row_of(delivery) for delivery in cycle.claim]
    parameters = policy.parameters(cycle.owner) | {
        "batches": sorted({row["batch_id"] for row in (*completed, *requested)}),
        "accepted": _rows(accepted),
        "accepted_members": len({(row["batch_id"], row["member_id"]) for row in accepted}),
        "others": _rows(row | {"n": n} for n, row in enumerate(others)),
        "renewed": _rows(row_of(delivery) | {"fence": delivery.fence} for delivery in cycle.renew),
        "requested": _rows(requested),
        "events": sorted({row["event_id"] for row in requested}),
    }
    if requested:
        note(cycle.owner, cycle.claim)
        crash_points.reach(CrashPoint.CLAIM_READY)
    # A transaction of its own: a worker that is stopped or killed here leaves no lock behind.
    cursor = await conn.execute(sql("run_cycle"), parameters)
    ((at, claims, renewed, versions, fresh_until),) = await cursor.fetchall()
    if claims:
        await events.update(conn, versions)
    claimed = _claimed(cycle.claim, claims or (), events)
    fresh_for = inf if fresh_until is None else fresh_until - at
    outcomes = outcome_counts.count(len(accepted), others)
    if len(claimed) < len(requested):
        outcomes += await outcome_counts.concluded(conn, _unclaimed(cycle.claim, claimed), at)
    return Committed(claimed, {DeliveryKey(**key) for key in renewed or ()}, at, outcomes, fresh_for)


async def warm_up(conn: AsyncConnection, policy: LedgerPolicy) -> None:
    """Runs a cycle about nothing: PostgreSQL plans its statements, which takes longer than a cycle."""
    nothing = dict.fromkeys(("accepted", "others", "requested"), Jsonb([]))
    parameters = {"batches": [], "accepted_members": 0, "renewed": None, "events": []}
    await conn.execute(sql("run_cycle"), policy.parameters("") | nothing | parameters)


def _unclaimed(requested: Sequence[Delivery], claimed: Sequence[Delivery]) -> list[dict[str, Any]]:
    taken = set(claimed)
    return [row_of(delivery) for delivery in requested if delivery not in taken]


def _rows(rows: Iterable[dict[str, Any]]) -> Jsonb | None:
    """None where there are none."""
    found = list(rows)
    return Jsonb(found) if found else None


def _claimed(deliveries: Sequence[Delivery], claims: Sequence[Sequence[Any]], events: EventCache) -> list[Delivery]:
    """The claimed deliveries, with what their claims returned."""
    by_key = {tuple(claim[:4]): claim[4:] for claim in claims}
    claimed: list[Delivery] = []
    for delivery in deliveries:
        key = delivery.key
        claim = by_key.get((key.event_id, key.action, key.member_id, key.slot))
        if claim is not None:
            delivery.fence, delivery.attempts, delivery.refused_for, *about = claim
            _describe(delivery, events, *about)
            claimed.append(delivery)
    return claimed


def _describe(
    delivery: Delivery, events: EventCache, name: str, surname: str | None, email: str, token: str | None
) -> None:
    """Sets what its mail says."""
    if token is not None:
        delivery.recipient = Recipient(delivery.key.member_id, name, surname, email, token)
    delivery.event = events.get(delivery.key.event_id)


async def read_mails(conn: AsyncConnection, events: EventCache, deliveries: Sequence[Delivery]) -> None:
    """Sets what the mails of these deliveries say now, without a claim."""
    rows = [row_of(delivery) | {"n": n} for n, delivery in enumerate(deliveries)]
    async with conn.pipeline() as pipeline, conn.transaction():
        found = await conn.execute(sql("read_mails"), {"requested": Jsonb(rows)})
        about = {"events": sorted({row["event_id"] for row in rows})}
        versions = await conn.execute(sql("event_versions"), about)
        await pipeline.sync()
        described = await found.fetchall()
        changed = [{"event_id": event, "version": version} for event, version in await versions.fetchall()]
    await events.update(conn, changed)
    for n, *about_member in described:
        _describe(deliveries[n], events, *about_member)
