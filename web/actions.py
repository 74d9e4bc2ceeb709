"""The actions of organisers and admins, for pages and the API: the functions behind the commands, audited.

Each action is in the audit log before it begins, with its actor. Whether they may see the event or batch is decided
before, in the dependencies of the routes; how far their action reaches, here (ADR 35).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from config import tracing
from config.settings import Settings
from config.tracing import Kind
from db import links, planning, send_limits, webhooks
from db.accounts import ApiClient
from db.audit_log import AuditEntry, audited
from db.batch_actions import Resolved
from db.connect import Connection
from db.site_queries import EventSummary
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers import batch_control
from producers import redrive as redriving
from producers.batch_control import Verdict
from producers.dead_letters import DeadLetter, DeadLetterReader
from producers.plan import LARGE, PlanResult, plan
from producers.redrive import Redriver
from schemas.errors import RefusedError
from schemas.send_rates import parse_domains, parse_rates, parse_warmup
from schemas.trace_context import TraceContext
from schemas.vocabulary import Audience, Role
from web.scope import Actor, BatchWithEvent, require_whole, visible_members


class Decision(StrEnum):
    """A decision about a running batch."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


_DECISIONS: Final = {
    Decision.PAUSE: batch_control.pause,
    Decision.RESUME: batch_control.resume,
    Decision.CANCEL: batch_control.cancel,
}
_MAX_ACTOR_LENGTH: Final = 200
_MAX_RATE_DETAIL: Final = 500
#: An entry of the audit log names no more places than this.
_NAMED_PLACES: Final = 20
#: The brokers' time for the dead letters that are produced at once.
_REDRIVE_TIMEOUT_SECONDS: Final = 8.0


def invite(
    conn: Connection,
    settings: Settings,
    who: Actor,
    event: EventSummary,
    audience: Audience,
    *,
    key: str,
    client: ApiClient | None = None,
    trace: TraceContext | None = None,
) -> PlanResult:
    """Start a batch and leave it to the dispatchers: to publish and, for a large audience, also to plan (FM-40).

    The same key again returns the first batch (FM-31). There is none if nobody is left to invite. If `client` has a
    webhook, the transaction that starts the batch also requests the notification of its end. The batch continues the
    `trace` of the request. HTTPException (403) unless all chapters of the event are the actor's: a batch is for all of
    them.
    """
    require_whole(event, who, "invite to it")
    notifies = client is not None and client.has_webhook
    about = {"bidden.event.id": event.id, "bidden.audience": audience.value}
    with (
        tracing.current().span("invite", Kind.SERVER, trace, about) as span,
        audited(conn, AuditEntry(who.actor, "invite", event_id=event.id, detail=audience.value)) as entry,
    ):
        with conn.transaction() if notifies else nullcontext():
            planned = plan(
                conn,
                event_id=event.id,
                audience=audience,
                initiator=who.actor[:_MAX_ACTOR_LENGTH],
                key=key,
                policy=settings.unknown_policy,
                claim_seconds=0,
                later_from=LARGE,
                trace=span.context,
            )
            if client is not None and notifies and planned.batch_id is not None and not planned.already_triggered:
                webhooks.request(conn, planned.batch_id, client.id)
        entry.batch_id, entry.did_nothing = planned.batch_id, planned.is_empty
        entry.note(_what_started(planned))
        if planned.batch_id is not None:
            span.set("bidden.batch.id", planned.batch_id)
    if not planned.already_triggered and not planned.planning:
        planning.analyse_grown(conn, planned.deliveries)
    return planned


def _what_started(planned: PlanResult) -> str:
    if planned.already_triggered:
        return "triggered before"
    return "planned in the background" if planned.planning else f"{planned.planned} members"


def decide(conn: Connection, who: Actor, batch: BatchWithEvent, decision: Decision) -> None:
    """Pause, resume or cancel. RefusedError as the commands of these names; HTTPException (403) as for `invite`."""
    require_whole(batch.event, who, f"{decision} this batch")
    with audited(conn, AuditEntry(who.actor, decision, event_id=batch.event.id, batch_id=batch.id)):
        _DECISIONS[decision](conn, batch.id)


def retry(conn: Connection, who: Actor, batch: BatchWithEvent) -> int:
    """Make the batch's failed deliveries to members whom they may see due again; returns how many."""
    with audited(conn, AuditEntry(who.actor, "retry", event_id=batch.event.id, batch_id=batch.id)) as entry:
        count = batch_control.retry(conn, batch.id, visible=visible_members(batch.event, who))
        entry.did_nothing = not count
        entry.note(f"{count} deliveries")
    return count


def resolve(
    conn: Connection,
    settings: Settings,
    who: Actor,
    event: EventSummary,
    verdict: Verdict,
    *,
    member_id: int | None = None,
) -> Resolved:
    """Record what became of unknown deliveries: those of one member, or of all members whom they may see."""
    with audited(conn, AuditEntry(who.actor, f"resolve as {verdict}", event_id=event.id, member_id=member_id)) as entry:
        done = batch_control.resolve(
            conn,
            event.id,
            verdict,
            member_id=member_id,
            by=who.actor[:_MAX_ACTOR_LENGTH],
            resend_below=settings.resend_below,
            visible=visible_members(event, who),
        )
        entry.did_nothing = not done.resolved
        entry.note(f"{done.resolved} deliveries")
    return done


def take_back_opt_out(conn: Connection, actor: str, member_id: int, chapter_id: int | None, role: Role | None) -> int:
    """A person who left lists by a link gets their invitations again; returns how many opt-outs were removed."""
    detail = "every list" if chapter_id is None else f"chapter {chapter_id}, {role}"
    with audited(conn, AuditEntry(actor, "take back opt-out", member_id=member_id, detail=detail)) as entry:
        count = links.take_back_opt_out(conn, member_id, chapter_id, role)
        entry.note(f"{count} opt-outs")
    return count


def set_send_rates(conn: Connection, actor: str, *, rate: str, rate_domain: str, warmup: str) -> None:
    """Set the sending rates for all workers, instead of their settings. RefusedError for what makes no sense."""
    texts = {"rate": rate.strip(), "rate_domain": rate_domain.strip(), "warmup": warmup.strip()}
    detail = "; ".join(f"{name} {text or 'none'}" for name, text in texts.items())
    with audited(conn, AuditEntry(actor, "set sending rate", detail=detail[:_MAX_RATE_DETAIL])):
        for name, check in (("rate", parse_rates), ("rate_domain", parse_domains), ("warmup", parse_warmup)):
            try:
                if texts[name]:
                    check(texts[name])
            except ValueError as error:
                raise RefusedError(f"{name.replace('_', ' ')}: {error}", field=name) from error
        send_limits.set_rates(
            conn,
            rate=texts["rate"] or None,
            rate_domain=texts["rate_domain"] or None,
            warmup=texts["warmup"] or None,
            by=actor[:_MAX_ACTOR_LENGTH],
        )


def unset_send_rates(conn: Connection, actor: str) -> None:
    """Let the workers' settings hold again."""
    with audited(conn, AuditEntry(actor, "unset sending rate")):
        send_limits.unset_rates(conn)


@dataclass(frozen=True, slots=True)
class RedriveSummary:
    """How many dead letters were redriven, how many were skipped and why, and the errors of those that failed."""

    redriven: int
    redriven_before: int
    discarded: int
    from_elsewhere: int
    failed: tuple[str, ...]

    def __str__(self) -> str:
        """For the page and the audit log; without the failed ones."""
        parts = [f"{self.redriven:,} dead {'letter' if self.redriven == 1 else 'letters'} redriven"]
        if self.redriven_before:
            parts.append(f"{self.redriven_before:,} skipped: redriven before")
        if self.discarded:
            parts.append(f"{self.discarded:,} skipped: discarded")
        if self.from_elsewhere:
            parts.append(f"{self.from_elsewhere:,} skipped: from another topic")
        return "; ".join(parts)


def redrive(
    conn: Connection, settings: Settings, actor: str, places: Sequence[tuple[int, int]] | None, *, again: bool
) -> RedriveSummary:
    """Put dead letters on their source topic again: those at these places, or with None all that came from it.

    NotFoundError or RefusedError for a place, before any dead letter is redriven. If Kafka goes away half-way, the
    audit log says how many were redriven by then.
    """
    detail = ("all" if places is None else _named(places)) + (", again" if again else "")
    with audited(conn, AuditEntry(actor, "redrive", detail=detail)) as entry, kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        redriver = Redriver(settings, reader, _REDRIVE_TIMEOUT_SECONDS)
        try:
            done = _redrive(conn, reader, redriver, places, again=again)
        except Exception:
            if redriver.redriven:
                entry.note(f"{redriver.redriven} dead letters redriven before the error")
            raise
        entry.did_nothing = not (done.redriven or done.failed)
        entry.note(f"{done}; {len(done.failed)} failed" if done.failed else str(done))
    return done


def _redrive(
    conn: Connection,
    reader: DeadLetterReader,
    redriver: Redriver,
    places: Sequence[tuple[int, int]] | None,
    *,
    again: bool,
) -> RedriveSummary:
    ours = elsewhere = 0

    def only_ours(letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        nonlocal ours, elsewhere
        for letter in letters:
            if redriver.is_from_source(letter):
                ours += 1
                yield letter
            else:
                elsewhere += 1

    named = None if places is None else reader.read_at(places)
    for letter in named or ():
        redriver.require_from_source(letter)
    if named is not None and not again:
        redriver.refuse_discarded(conn, named)
    done = redriver.redrive(
        conn,
        only_ours(reader.read_all() if named is None else named),
        again=again,
        discarded=again and named is not None,
    )
    redriven = len(done.redriven)
    redriven_before = ours - redriven - done.discarded - len(done.failed)
    return RedriveSummary(redriven, redriven_before, done.discarded, elsewhere, done.failed)


def discard(conn: Connection, settings: Settings, actor: str, places: Sequence[tuple[int, int]]) -> int:
    """Set the dead letters at these places aside for good; returns how many. NotFoundError for a place, before any."""
    with audited(conn, AuditEntry(actor, "discard", detail=_named(places))) as entry, kafka_errors_translated():
        reader = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
        count = len(redriving.discard(conn, reader, reader.read_at(places)))
        entry.did_nothing = not count
        return count


def _named(places: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(f"{partition}:{offset}" for partition, offset in places[:_NAMED_PLACES])
    more = len(places) - _NAMED_PLACES
    return f"{named} and {more} more" if more > 0 else named


def record_export(conn: Connection, actor: str, event_id: int, what: str, *, batch_id: int | None = None) -> None:
    """Names and addresses leave the site as a file: who took them, and what."""
    with audited(conn, AuditEntry(actor, "export", event_id=event_id, batch_id=batch_id, detail=what)):
        pass
