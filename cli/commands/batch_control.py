"""Commands that change batches: `pause`, `resume`, `cancel`, `retry`, `resolve`, `cleanup`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import click

from cli.commands.reports import print_status
from cli.options import ACTOR, DATABASE_SETTINGS, Id, environment, event_argument, id_argument, json_option
from cli.output import err, out, write_json
from config.settings import Settings
from config.startup import load
from db import batch_actions, events
from db.audit_log import AuditEntry, audited
from db.connect import Connection, connect
from schemas.errors import UsageError
from schemas.event_fields import EventName

_AGE: Final = re.compile(r"([0-9]{1,6})([dhm])")
_MAX_BY: Final = 200
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        yield conn


def _apply(action: Callable[[Connection, int], None], name: str, batch: int, *, as_json: bool) -> None:
    with _database(load()) as conn:
        with audited(conn, AuditEntry(ACTOR, name, batch_id=batch)):
            action(conn, batch)
        print_status(conn, batch, as_json=as_json)
        if batch_actions.unapplied_decision(conn, batch) is not None:
            err.print("dispatchers apply it to the rest of the items: is `bidden dispatch` running?")


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@json_option
def pause(batch: int, as_json: bool) -> None:
    """Stop sending the mails of a batch until it is resumed.

    The outcomes of mails in flight are still recorded.

    Example: bidden pause 7
    """
    from producers import batch_control

    _apply(batch_control.pause, "pause", batch, as_json=as_json)


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@json_option
def resume(batch: int, as_json: bool) -> None:
    """Resume a paused batch.

    Example: bidden resume 7
    """
    from producers import batch_control

    _apply(batch_control.resume, "resume", batch, as_json=as_json)


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@json_option
def cancel(batch: int, as_json: bool) -> None:
    """Cancel a batch permanently.

    The outcomes of mails in flight are still recorded. A new batch can invite the members who were not mailed.

    Example: bidden cancel 7
    """
    from producers import batch_control

    _apply(batch_control.cancel, "cancel", batch, as_json=as_json)


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@json_option
def retry(batch: int, as_json: bool) -> None:
    """Retry the failed deliveries of a batch.

    They are due again, with all their attempts.

    Example: bidden retry 7
    """
    from producers import batch_control

    with _database(load()) as conn, audited(conn, AuditEntry(ACTOR, "retry", batch_id=batch)) as entry:
        count = batch_control.retry(conn, batch)
        entry.did_nothing = not count
        entry.note(f"{count} deliveries")
    if as_json:
        write_json({"retried": count})
    else:
        out.print(
            f"{count:,} deliveries of batch {batch} are due again" + (f": `bidden status {batch}`" if count else "")
        )


@click.command(epilog=environment(DATABASE_SETTINGS, ("BIDDEN_UNKNOWN_POLICY", "BIDDEN_MAX_ATTEMPTS")))
@event_argument
@click.option(
    "--unknown",
    "verdict",
    required=True,
    type=click.Choice(["resend", "sent", "failed"]),
    help="Their outcome; `resend` may mail a member twice.",
)
@click.option("--member", type=Id(), help="Only this member's deliveries.")
@click.option("--by", default="an admin", show_default=True, help="Who decided; the log shows it as the reason.")
@json_option
def resolve(event: EventName, verdict: str, member: int | None, by: str, as_json: bool) -> None:
    """Resolve the unknown deliveries of an event.

    EVENT is an id, or a ref such as workshop/3668. Changes them in the ledger, and in each log that has them as
    unknown.

    Example: bidden resolve 42 --unknown sent --member 1017
    """
    from producers import batch_control

    settings = load()
    with _database(settings) as conn:
        event_id = events.resolve(conn, event)
        asked = AuditEntry(
            ACTOR, f"resolve as {verdict}", event_id=event_id, member_id=member, detail=f"by {by[:_MAX_BY]}"
        )
        with audited(conn, asked) as entry:
            done = batch_control.resolve(
                conn,
                event_id,
                batch_control.Verdict(verdict),
                member_id=member,
                by=by,
                resend_below=settings.resend_below,
            )
            entry.did_nothing = not done.resolved
            entry.note(f"{done.resolved} deliveries")
        name = events.name(conn, event_id)
    if as_json:
        write_json({"resolved": done.resolved, "without_batch": done.without_batch})
        return
    result = "are due again" if verdict == "resend" else f"are {verdict} now"
    out.print(f"{done.resolved - done.without_batch:,} deliveries of event {name} {result}", markup=False)
    if done.without_batch:
        out.print(f"{done.without_batch:,} have no batch left that could send them: run `bidden invite {event_id}`")


def _age(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = _AGE.fullmatch(value)
    if match is None:
        raise UsageError(f"{value!r} is not an age, such as 180d, 12h or 30m", field="older-than")
    return int(match[1]) * _UNITS[match[2]]


@click.command(epilog=environment(DATABASE_SETTINGS, ("BIDDEN_LOG_RETENTION_DAYS",)))
@click.option(
    "--older-than",
    metavar="AGE",
    callback=_age,
    help="How long ago a batch must have ended, such as 180d or 12h.  [default: BIDDEN_LOG_RETENTION_DAYS]",
)
@json_option
def cleanup(older_than: timedelta | None, as_json: bool) -> None:
    """Delete the logs and items of old batches, and other old rows.

    Dispatchers do the same in time. Counts stay, and the ledger is never deleted: it knows who was mailed.

    Example: bidden cleanup --older-than 180d
    """
    from producers import batch_control

    settings = load()
    age = timedelta(days=settings.log_retention_days) if older_than is None else older_than
    with _database(settings) as conn, audited(conn, AuditEntry(ACTOR, "clean up", detail=f"older than {age}")) as entry:
        done = batch_control.clean_up(conn, age)
        entry.did_nothing = not done.removed
        entry.note(f"{done.removed} rows of {done.batches} batches")
    if as_json:
        write_json({"removed": done.removed, "batches": done.batches})
    else:
        out.print(f"deleted {done.removed:,} rows of logs and items of {done.batches:,} batches")


COMMANDS: list[click.Command] = [pause, resume, cancel, retry, resolve, cleanup]
