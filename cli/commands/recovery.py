"""Commands for the day on which the database is lost: `backup`, `restore`, `reconcile`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import ACTOR, DATABASE_SETTINGS, KAFKA_SETTINGS, environment, json_option
from cli.output import out, write_json
from config.startup import load

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.command(epilog=environment(DATABASE_SETTINGS))
@_FILE
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Write the database to FILE, by pg_dump. Processes may run meanwhile.

    The file holds names, addresses and personal links: protect it.

    Example: bidden backup ledger.dump
    """
    from producers.backup import backup as write

    size = write(load().require_database(), file)
    if as_json:
        write_json({"file": str(file), "bytes": size})
    else:
        out.print(f"{file}: {size:,} bytes")


@click.command(epilog=environment(DATABASE_SETTINGS))
@_FILE
@json_option
def restore(file: Path, as_json: bool) -> None:
    """Fill an empty database with what `bidden backup` wrote to FILE.

    Workers refuse to start before `bidden reconcile` has learned what was sent since.

    Example: bidden restore ledger.dump
    """
    from producers.backup import restore as fill

    fill(load().require_database(), file)
    if as_json:
        write_json({"restored": str(file)})
    else:
        out.print("restored; now run `bidden migrate` and `bidden reconcile`, before any worker")


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, ("BIDDEN_UNKNOWN_POLICY",)))
@json_option
def reconcile(as_json: bool) -> None:
    """Learn from Kafka what a restored database does not know.

    What an outcome proves is `sent` again. What was claimed since, without an outcome, is `unknown`, and
    `bidden audit EVENT` names it. Safe to repeat; workers must not run.

    Example: bidden reconcile
    """
    from db.audit_log import AuditEntry, audited
    from db.connect import connect
    from producers.reconcile import reconcile as learn

    settings = load()
    with (
        connect(settings.require_database(), application="bidden-operator", autocommit=True) as conn,
        audited(conn, AuditEntry(ACTOR, "reconcile")) as entry,
    ):
        found = learn(conn, settings)
        entry.note(f"{found.sent} sent, {found.unknown} unknown")
    if as_json:
        write_json({"sent": found.sent, "unknown": found.unknown, "unchanged": found.unchanged})
    else:
        out.print(f"{found.sent:,} are sent, {found.unknown:,} unknown, {found.unchanged:,} unchanged")


COMMANDS: list[click.Command] = [backup, restore, reconcile]
