"""What organisers and admins do, from a page or by the API: done by the same functions as the commands, and recorded.

Every deed is in the trail before it begins, with who does it. Whether they may is asked before, by `viewer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from config.settings import Settings
from db import planning, webhooks
from db.accounts import Client
from db.audit_log import AuditEntry, audited
from db.batch_actions import Resolved
from db.connect import Connection
from db.site_queries import EventSummary
from monitoring.kafka import PATIENCE, worded
from producers import batch_control
from producers.batch_control import Verdict
from producers.dead_letters import DeadLetter, DeadLetterReader, Redriver
from producers.plan import PlanResult, plan
from schemas.vocabulary import Audience
from web.auth.current_user import OwnedBatch


class Decision(StrEnum):
    """About a batch under way."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_DECISIONS: Final = {
    Decision.PAUSE: batch_control.pause,
    Decision.RESUME: batch_control.resume,
    Decision.CANCEL: batch_control.cancel,
}
_SHOWN_PLACES: Final = 20
#: For the brokers to take the letters that are handed to them at a time.
_REDRIVE_SECONDS: Final = 8.0


def invite(
    conn: Connection,
    settings: Settings,
    actor: str,
    event: EventSummary,
    audience: Audience,
    *,
    key: str,
    client: Client | None = None,
) -> PlanResult:
    """Plan a batch and leave it to the dispatchers. The same key again returns the first batch (FM-31).

    A `client` with a webhook is to be told of the batch's end: that is written in the transaction that plans it.
    """
    tells = client is not None and client.has_webhook
    with audited(conn, AuditEntry(actor, "invite", event_id=event.id, detail=audience.value)) as deed:
        with conn.transaction() if tells else nullcontext():
            planned = plan(
                conn,
                event_id=event.id,
                audience=audience,
                initiator=actor[:200],
                key=key,
                policy=settings.unknown_policy,
                claim_seconds=0,
            )
            if client is not None and tells and not planned.already_triggered:
                assert planned.batch_id is not None
                webhooks.want(conn, planned.batch_id, client.id)
        deed.batch_id = planned.batch_id
        deed.note("triggered before" if planned.already_triggered else f"{planned.planned} members")
    if not planned.already_triggered:
        planning.analyse(conn)
    return planned


def decide(conn: Connection, actor: str, batch: OwnedBatch, decision: Decision) -> None:
    """Pause, resume or cancel. RefusedError as the commands of these names."""
    with audited(conn, AuditEntry(actor, decision, event_id=batch.event.id, batch_id=batch.id)):
        _DECISIONS[decision](conn, batch.id)


def retry(conn: Connection, actor: str, batch: OwnedBatch) -> int:
    """The batch's failed deliveries are due again; returns how many."""
    with audited(conn, AuditEntry(actor, "retry", event_id=batch.event.id, batch_id=batch.id)) as deed:
        count = batch_control.retry(conn, batch.id)
        deed.note(f"{count} deliveries")
    return count


def resolve(
    conn: Connection,
    settings: Settings,
    actor: str,
    event: EventSummary,
    verdict: Verdict,
    *,
    member_id: int | None = None,
) -> Resolved:
    """Say what became of deliveries that are unknown, of the event or of one member."""
    deed = AuditEntry(actor, f"resolve as {verdict}", event_id=event.id, member_id=member_id)
    with audited(conn, deed):
        done = batch_control.resolve(
            conn, event.id, verdict, member_id=member_id, by=actor[:200], resend_below=settings.resend_below
        )
        deed.note(f"{done.resolved} deliveries")
    return done


@dataclass(frozen=True, slots=True)
class PutBack:
    """Letters on their source topic again; those left where they are, for a reason; and why others failed."""

    redriven: int
    before: int
    elsewhere: int
    failed: tuple[str, ...]


def put_back(
    conn: Connection, settings: Settings, deed: AuditEntry, places: Sequence[tuple[int, int]] | None, *, again: bool
) -> PutBack:
    """Put dead letters on their source topic again: those at these places, or with None all that came from it.

    NotFoundError, RefusedError for a place before any letter is put back. What breaks half-way leaves in the deed how
    many were back by then.
    """
    box = DeadLetterReader(settings, PATIENCE)
    redriver = Redriver(settings, box, _REDRIVE_SECONDS)
    read = elsewhere = 0

    def ours(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        nonlocal read, elsewhere
        for letter in letters:
            if redriver.is_ours(letter):
                read += 1
                yield letter
            else:
                elsewhere += 1

    named = None if places is None else box.at(places)
    for letter in named or ():
        redriver.require_ours(letter)
    try:
        done = redriver.redrive(conn, ours(box.letters() if named is None else named), again=again)
    except Exception:
        deed.note(f"{redriver.put_back} letters put back before this")
        raise
    return PutBack(done.redriven, read - done.redriven - len(done.failed), elsewhere, done.failed)


def redrive(
    conn: Connection, settings: Settings, actor: str, places: Sequence[tuple[int, int]], *, again: bool
) -> PutBack:
    """Put the letters at these places on their source topic again, and record it."""
    shown = ", ".join(f"{partition}:{offset}" for partition, offset in places[:_SHOWN_PLACES])
    more = len(places) - _SHOWN_PLACES
    detail = shown + (f" and {more} more" if more > 0 else "") + (", again" if again else "")
    with audited(conn, AuditEntry(actor, "redrive", detail=detail)) as deed, worded():
        done = put_back(conn, settings, deed, places, again=again)
        deed.note(f"{done.redriven} letters" + (f", {len(done.failed)} failed" if done.failed else ""))
    return done
