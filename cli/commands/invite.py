"""`bidden invite`: plans a batch and publishes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

import click
from rich.markup import escape

from cli.options import (
    ACTOR,
    DATABASE_SETTINGS,
    KAFKA_SETTINGS,
    RATE_SETTINGS,
    environment,
    event_argument,
    json_option,
)
from cli.output import err, out, reasons, write_json
from cli.progress import watch
from config.clock import now
from config.driver_errors import translate_error
from config.startup import load
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON
from schemas.event_fields import EventName
from schemas.trace_context import parse

if TYPE_CHECKING:
    from producers.plan import PlanResult


_REPORTED_FROM: Final = 5000


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, RATE_SETTINGS, ("BIDDEN_UNKNOWN_POLICY",)))
@event_argument
@click.option("--audience", required=True, metavar="students|coaches|everyone", help="The members to invite.")
@click.option("--dry-run", is_flag=True, help="Show who would be invited and why others are excluded; write nothing.")
@click.option("--by", "initiator", default="System", show_default=True, help="The initiator that the batch shows.")
@click.option("--key", help="Idempotency key: the same key returns the first batch.")
@click.option("--wait", is_flag=True, help="Wait until the batch ends; exit 1 if any delivery is failed or unknown.")
@json_option
def invite(
    event: EventName, audience: str, dry_run: bool, initiator: str, key: str | None, wait: bool, as_json: bool
) -> int:
    """Invite the members of an audience to EVENT.

    Plans a batch and publishes its first items; a dispatcher publishes the rest, and workers send the mails.

    EVENT is an id, or a ref such as workshop/3668.

    Example: bidden invite 42 --audience students --dry-run
    """
    from config import tracing
    from db import checks, events, planning
    from db.audit_log import AuditEntry, audited
    from db.connect import connect
    from monitoring.sending import permitted
    from producers.dispatch import BatchPublisher
    from producers.plan import parse_audience, plan
    from producers.topics import Topics

    settings = load()
    wanted = parse_audience(audience)
    if not dry_run:
        tracing.start("bidden-invite")
        # Before the plan: no batch may exist that nothing can publish.
        Topics(settings).check_reachable()
        publisher = BatchPublisher(settings, now, permitted=permitted(settings.send_rates, time.monotonic))
    with connect(settings.require_database(), application="bidden-invite", autocommit=True) as conn:
        event_id = events.resolve(conn, event)
        about: dict[str, str | int] = {"bidden.event.id": event_id, "bidden.audience": wanted.value}
        trace = tracing.current().span("invite", tracing.Kind.INTERNAL, parse(os.environ.get("TRACEPARENT")), about)
        audit = nullcontext() if dry_run else audited(conn, AuditEntry(ACTOR, "invite", event_id, detail=audience))
        with trace as span:
            with audit as entry:
                planned = plan(
                    conn,
                    event_id=event_id,
                    audience=wanted,
                    initiator=initiator,
                    key=key,
                    policy=settings.unknown_policy,
                    dry_run=dry_run,
                    report=_report,
                    trace=span.context,
                )
                if entry is not None:
                    entry.batch_id = planned.batch_id
                    entry.did_nothing = planned.already_triggered or planned.is_empty
                    entry.note("triggered before" if planned.already_triggered else f"{planned.planned} members")
            with _already_planned(planned.batch_id):
                if planned.batch_id is not None:
                    span.set("bidden.batch.id", planned.batch_id)
                    if not planned.already_triggered:
                        published = publisher.publish(conn, planned.batch_id)
                        planning.analyse_grown(conn, planned.deliveries)
                        if published < planned.planned and not checks.dispatchers(conn):
                            waiting = planned.planned - published
                            err.print(f"{waiting:,} items wait for a dispatcher: is `bidden dispatch` running?")
        with _already_planned(planned.batch_id):
            ended = None
            if wait and planned.batch_id is not None:
                ended = watch(conn, planned.batch_id, quiet=as_json)
        if as_json:
            result = planned.as_dict()
            if ended is not None:
                result["state"] = ended["state"]
            write_json(result)
        else:
            _show(planned, escape(f"event {events.name(conn, event_id)}, {wanted}"), dry_run=dry_run)
        if ended is not None:
            return EXIT_NEEDS_A_PERSON if ended["failed"] or ended["unknown"] else EXIT_DONE
    return EXIT_DONE


def _report(what: str, rows: int) -> None:
    """Planning a large audience takes a while: what is written so far. It is all committed at once."""
    if rows >= _REPORTED_FROM:
        err.print(f"{rows:,} {what}")


def _show(planned: PlanResult, title: str, *, dry_run: bool) -> None:
    if planned.is_empty:
        out.print(f"{title}: [bold]nobody is left to invite[/]; excluded: {reasons(planned.excluded)}")
        return
    verb = "would be invited" if dry_run else "planned"
    out.print(
        f"{title}: [bold]{planned.planned:,}[/] members {verb} ({planned.deliveries:,} mails); "
        f"excluded: {reasons(planned.excluded)}"
    )
    if planned.batch_id is not None:
        again = " (already triggered with this key)" if planned.already_triggered else ""
        out.print(f"batch {planned.batch_id}{again}: `bidden status {planned.batch_id}`")


@contextmanager
def _already_planned(batch_id: int | None) -> Iterator[None]:
    """An outage after the plan does not undo it, and the initiator must know."""
    try:
        yield
    except Exception as error:
        known = translate_error(error)
        if known is None or batch_id is None:
            raise
        raise type(known)(
            f"batch {batch_id} is planned, and dispatchers publish the rest: do not trigger it again. {known.detail}"
        ) from error


COMMANDS: list[click.Command] = [invite]
