"""Reports: `status`, `batches`, `log`, `why`, `audit`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cli.options import DATABASE_SETTINGS, environment, event_argument, id_argument, json_option
from cli.output import out, table, write_json, write_lines
from cli.progress import watch as watch_batch
from config.startup import load
from db import events
from db import reports as db_reports
from db.connect import Connection, connect
from schemas.errors import EXIT_DONE, EXIT_NEEDS_A_PERSON
from schemas.event_fields import EventName
from schemas.vocabulary import Audience
from web.spreadsheet_cells import safe_cell

_STATUS_FIELDS = (
    "batch_id", "event_id", "audience", "state", "planned", "deliveries", "sent", "failed", "unknown", "skipped",
    "pending", "started_at", "completed_at", "error", "initiator", "planning",
)  # fmt: skip

_CSV_COLUMNS = ("as_of", "event_id", "audience", "member_id", "role", "status", "reason", "batch_id", "at")

#: The table shows some members; --json has all of them.
_MISSING_SHOWN = 20


@contextmanager
def _database(*, autocommit: bool = True) -> Iterator[Connection]:
    url = load().require_database()
    with connect(url, application="bidden-report", autocommit=autocommit) as conn:
        yield conn


def state_for_people(row: dict[str, Any], with_errors: set[int]) -> str:
    """The batch's state, in the words of the site."""
    has_errors = row["state"] == "completed" and row["batch_id"] in with_errors
    return f"{row['state']} with errors" if has_errors else str(row["state"])


def show_status(conn: Connection, status: dict[str, Any]) -> None:
    """Prints a batch for a person."""
    table(
        f"Batch {status['batch_id']} · event {status['event_id']} · {status['audience']} · by {status['initiator']}",
        ["state", "#members", "#mails", "#sent", "#failed", "#unknown", "#skipped", "#pending", "started", "completed"],
        [
            [
                state_for_people(status, db_reports.with_errors(conn, status["batch_id"])),
                *(
                    status[name]
                    for name in (
                        "planned", "deliveries", "sent", "failed", "unknown", "skipped", "pending", "started_at",
                        "completed_at",
                    )
                ),
            ]
        ],
    )  # fmt: skip
    if status["planning"]:
        out.print("its members are being selected: the counts follow when all are")
    excluded = db_reports.exclusions(conn, status["batch_id"])
    if excluded:
        table("Excluded at planning", ["reason", "#members"], excluded.items())
    if status["error"]:
        out.print(f"first error: {status['error']}", markup=False)


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@click.option("--watch", is_flag=True, help="Wait until the batch ends.")
@json_option
def status(batch: int, watch: bool, as_json: bool) -> None:
    """Show the counts of a batch.

    Example: bidden status 7 --watch
    """
    with _database() as conn:
        found = watch_batch(conn, batch, quiet=as_json) if watch else db_reports.status(conn, batch)
        _print(conn, found, as_json=as_json)


def print_status(conn: Connection, batch: int, *, as_json: bool) -> None:
    """Prints the current status of a batch, as every command that changes one does."""
    _print(conn, db_reports.status(conn, batch), as_json=as_json)


def _print(conn: Connection, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json({name: found[name] for name in _STATUS_FIELDS})
    else:
        show_status(conn, found)


@click.command(epilog=environment(DATABASE_SETTINGS))
@json_option
def batches(as_json: bool) -> None:
    """List all batches.

    Example: bidden batches
    """
    with _database() as conn:
        rows = db_reports.batches(conn)
        if as_json:
            write_lines({name: row[name] for name in _STATUS_FIELDS} for row in rows)
        else:
            with_errors = db_reports.with_errors(conn)
            table(
                "Batches",
                ["@batch", "@event", "audience", "state", "#mails", "#sent", "#failed", "#unknown", "#skipped",
                 "#pending", "started", "by"],
                (
                    [
                        *(row[name] for name in ("batch_id", "event_id", "audience")),
                        state_for_people(row, with_errors),
                        *(row[name] for name in ("deliveries", "sent", "failed", "unknown", "skipped", "pending",
                                                 "started_at", "initiator")),
                    ]
                    for row in rows
                ),
            )  # fmt: skip


@click.command(epilog=environment(DATABASE_SETTINGS))
@id_argument("batch")
@click.option(
    "--status",
    "status_filter",
    type=click.Choice(["sent", "failed", "unknown", "skipped", "pending"]),
    help="Only deliveries with this status.",
)
@click.option("--excluded", is_flag=True, help="The members excluded at planning, instead of deliveries.")
@json_option
def log(batch: int, status_filter: str | None, excluded: bool, as_json: bool) -> None:
    """List the deliveries of a batch, with status and reason.

    Example: bidden log 7 --status failed
    """
    with _database() as conn:
        rows = db_reports.excluded(conn, batch) if excluded else db_reports.log(conn, batch, status_filter)
        if as_json:
            write_lines(rows)
        else:
            names = ("member_id", "role", "status", "reason", "attempts", "at", "partition", "offset")
            table(
                f"Batch {batch}",
                ["@member", "role", "status", "reason", "#attempts", "at", "@partition", "@offset"],
                ([row[name] for name in names] for row in rows),
            )


@click.command(epilog=environment(DATABASE_SETTINGS))
@event_argument
@id_argument("member")
@json_option
def why(event: EventName, member: int, as_json: bool) -> None:
    """Explain why a member got a mail for an event, or did not.

    EVENT is an id, or a ref such as workshop/3668.

    Example: bidden why 42 1017
    """
    with _database() as conn:
        event_id = events.resolve(conn, event)
        found, name = db_reports.why(conn, event_id, member), events.name(conn, event_id)
    if as_json:
        write_json(found)
        return
    verdict = "eligible" if found["eligible"] else f"not eligible: {', '.join(found['reasons'])}"
    out.print(f"member {member}, event {name}: {verdict}", markup=False)
    if found["deliveries"]:
        table(
            "Deliveries",
            ["role", "status", "reason", "@batch", "at"],
            ([d[name] for name in ("role", "status", "reason", "batch_id", "at")] for d in found["deliveries"]),
        )
    else:
        out.print("no batch has a delivery for this member")
    show_set_aside(found)


def show_set_aside(found: dict[str, Any]) -> None:
    """Prints the lines of the source that are about this and could not be used, if there are any."""
    if "set_aside" in found:
        columns = ["type", "key", "field", "problem"]
        table(
            "Set aside by the newest snapshot", columns, ([row[name] for name in columns] for row in found["set_aside"])
        )


@click.command(epilog=environment(DATABASE_SETTINGS))
@event_argument
@click.option(
    "--audience",
    type=click.Choice([audience.value for audience in Audience]),
    default="everyone",
    show_default=True,
    help="The members to audit.",
)
@click.option(
    "--csv", "as_csv", is_flag=True, help="Every delivery with its status, dated, as a table: a proof to keep."
)
@json_option
def audit(event: EventName, audience: str, as_csv: bool, as_json: bool) -> int:
    """Audit an event: was every eligible member invited?

    EVENT is an id, or a ref such as workshop/3668. Exit 1 if a delivery is failed, unknown, pending or missing, or if
    the audit does not balance.

    Example: bidden audit 42
    """
    with _database(autocommit=False) as conn:
        event_id = events.resolve(conn, event)
        # The audit begins a snapshot of its own.
        conn.commit()
        found = db_reports.audit(conn, event_id, Audience(audience))
        if as_csv:
            _write_csv(conn, event_id, Audience(audience))
            return audit_exit_code(found)
        name = events.name(conn, event_id)
    if as_json:
        write_json(found)
    else:
        show_audit(found, name)
    return audit_exit_code(found)


def _write_csv(conn: Connection, event: int, audience: Audience) -> None:
    """The rows of the audit, from its snapshot."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in db_reports.audited(conn, event, audience):
        about = {**row, "event_id": event, "audience": audience.value}
        writer.writerow([safe_cell(about[name]) for name in _CSV_COLUMNS])


def audit_exit_code(found: dict[str, Any]) -> int:
    """1 if a delivery is failed, unknown, pending or missing, or if the audit does not balance."""
    unsettled = found["failed"] or found["unknown"] or found["pending"] or found["missing"]
    return EXIT_NEEDS_A_PERSON if unsettled or not found["balanced"] else EXIT_DONE


def show_audit(found: dict[str, Any], event: str) -> None:
    """Prints an audit for a person. `event` is how the event is named."""
    names = ("eligible", "sent", "failed", "unknown", "skipped", "pending")
    table(
        f"Audit of event {event}, {found['audience']} (deliveries)",
        [*(f"#{name}" for name in names), "#missing", "balanced"],
        [[*(found[name] for name in names), len(found["missing"]), found["balanced"]]],
    )
    for kind, count in found["contradictions"].items():
        out.print(f"[red]{count:,}[/] {kind}")
    if found["missing"]:
        shown = found["missing"][:_MISSING_SHOWN]
        table("Missing", ["@member", "role"], ([row["member_id"], row["role"]] for row in shown))
        if len(found["missing"]) > len(shown):
            out.print(f"and {len(found['missing']) - len(shown):,} more: `bidden audit {found['event_id']} --json`")
    show_set_aside(found)
    if "members_set_aside" in found:
        out.print(
            f"{found['members_set_aside']:,} members are not counted, the source's newest snapshot set them aside"
        )


COMMANDS: list[click.Command] = [status, batches, log, why, audit]
