"""Commands that decide about batches under way: `pause`, `resume`, `cancel`, `retry`, `resolve`, `cleanup`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import click

from cli.commands.reports import print_status
from cli.options import DATABASE, Id, environment, identity, json_option
from cli.output import out, write_json
from config.settings import Settings
from config.startup import load
from db.connect import Connection, connect
from schemas.errors import UsageError

_AGE: Final = re.compile(r"([0-9]{1,6})([dhm])")
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    with connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn:
        yield conn


def _decide(decision: Callable[[Connection, int], None], batch: int, *, as_json: bool) -> None:
    with _database(load()) as conn:
        decision(conn, batch)
        print_status(conn, batch, as_json=as_json)


@click.command(epilog=environment(DATABASE))
@identity("batch")
@json_option
def pause(batch: int, as_json: bool) -> None:
    """Hand over nothing more of a batch until it is resumed; mails in flight are logged as what became of them.

    Example: bidden pause 7
    """
    from producers import batch_control

    _decide(batch_control.pause, batch, as_json=as_json)


@click.command(epilog=environment(DATABASE))
@identity("batch")
@json_option
def resume(batch: int, as_json: bool) -> None:
    """Go on with a paused batch.

    Example: bidden resume 7
    """
    from producers import batch_control

    _decide(batch_control.resume, batch, as_json=as_json)


@click.command(epilog=environment(DATABASE))
@identity("batch")
@json_option
def cancel(batch: int, as_json: bool) -> None:
    """End a batch at once and for good; mails in flight are logged as what became of them.

    Who has not been mailed can be invited by a new batch.

    Example: bidden cancel 7
    """
    from producers import batch_control

    _decide(batch_control.cancel, batch, as_json=as_json)


@click.command(epilog=environment(DATABASE))
@identity("batch")
@json_option
def retry(batch: int, as_json: bool) -> None:
    """Make the failed deliveries of a batch due again, with all their attempts.

    Example: bidden retry 7
    """
    from producers import batch_control

    with _database(load()) as conn:
        count = batch_control.retry(conn, batch)
    if as_json:
        write_json({"retried": count})
    else:
        out.print(f"{count:,} deliveries of batch {batch} are due again" + (": `bidden status`" if count else ""))


@click.command(epilog=environment(DATABASE, ("BIDDEN_UNKNOWN_POLICY", "BIDDEN_MAX_ATTEMPTS")))
@identity("event")
@click.option(
    "--unknown",
    "verdict",
    required=True,
    type=click.Choice(["resend", "sent", "failed"]),
    help="What to take them for; `resend` may mail somebody a second time.",
)
@click.option("--member", type=Id(), help="Only this member's deliveries.")
@click.option("--by", default="an admin", show_default=True, help="Who says so; stands in the log as the reason.")
@json_option
def resolve(event: int, verdict: str, member: int | None, by: str, as_json: bool) -> None:
    """Say what became of deliveries that are unknown, in the ledger and in every log that calls them so.

    Example: bidden resolve 42 --unknown sent --member 1017
    """
    from producers import batch_control

    settings = load()
    with _database(settings) as conn:
        done = batch_control.resolve(
            conn, event, batch_control.Verdict(verdict), member_id=member, by=by, resend_below=settings.resend_below
        )
    if as_json:
        write_json({"resolved": done.resolved, "without_batch": done.without_batch})
        return
    what = "are due again" if verdict == "resend" else f"count as {verdict}"
    out.print(f"{done.resolved - done.without_batch:,} deliveries of event {event} {what}")
    if done.without_batch:
        out.print(
            f"{done.without_batch:,} have no batch that could send them any more: `bidden invite {event}` takes them"
        )


def _age(_: click.Context, __: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = _AGE.fullmatch(value)
    if match is None:
        raise UsageError(f"{value!r} is no age: write 180d, 12h or 30m", field="older-than")
    return int(match[1]) * _UNITS[match[2]]


@click.command(epilog=environment(DATABASE, ("BIDDEN_LOG_RETENTION_DAYS",)))
@click.option(
    "--older-than",
    metavar="AGE",
    callback=_age,
    help="Of batches that ended longer ago, like 180d or 12h.  [default: BIDDEN_LOG_RETENTION_DAYS]",
)
@json_option
def cleanup(older_than: timedelta | None, as_json: bool) -> None:
    """Remove logs and items of batches that ended long ago. Their numbers stay, and who was mailed is never forgotten.

    Example: bidden cleanup --older-than 180d
    """
    from producers import batch_control

    settings = load()
    age = timedelta(days=settings.log_retention_days) if older_than is None else older_than
    with _database(settings) as conn:
        done = batch_control.clean_up(conn, age)
    if as_json:
        write_json({"removed": done.removed, "batches": done.batches})
    else:
        out.print(f"removed {done.removed:,} rows of logs and items of {done.batches:,} batches")


COMMANDS: list[click.Command] = [pause, resume, cancel, retry, resolve, cleanup]
