"""Commands that set up the database and the topics, and fill them: `migrate`, `import`."""

from __future__ import annotations

from typing import BinaryIO

import click

from cli.options import ACTOR, DATABASE_SETTINGS, KAFKA_SETTINGS, environment, json_option
from cli.output import out, table, write_json
from config import crash_points
from config.crash_points import CrashPoint
from config.startup import load
from schemas.errors import InputError, printable


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, ("BIDDEN_PARTITIONS",)))
@json_option
def migrate(as_json: bool) -> None:
    """Migrate the database to the newest schema and create the topics.

    Safe to repeat.

    Example: bidden migrate
    """
    from db.migrate import upgrade
    from producers.topics import Topics

    settings = load()
    database_url = settings.require_database()
    topics = Topics(settings)
    topics.check_reachable()
    result = {"revision": upgrade(database_url), "topics": topics.create()}
    if as_json:
        write_json(result)
    else:
        out.print(f"database at revision {result['revision']}; topics: {', '.join(result['topics'])}")


@click.command("import", epilog=environment(DATABASE_SETTINGS, ("BIDDEN_ROLE_POLICY",)))
@click.argument("file", type=click.File("rb", lazy=True))
@json_option
def import_directory(file: BinaryIO, as_json: bool) -> None:
    """Import a directory from FILE, in JSON Lines; `-` is stdin.

    A directory holds chapters, groups, members, subscriptions, bans, events and invitations. The import is one
    transaction: if lines are invalid, the error names them (up to 20) and nothing is written.

    Example: bidden import directory.jsonl
    """
    from db.audit_log import AuditEntry, audited
    from db.connect import connect
    from db.directory import import_lines
    from schemas.directory_file import parse_lines, read_lines

    settings = load()
    with connect(settings.require_database(), application="bidden-import") as conn:
        try:
            # In the import's transaction: one that wrote nothing leaves no entry.
            with audited(conn, AuditEntry(ACTOR, "import", detail=printable(file.name)[-200:])) as entry:
                counts = import_lines(conn, parse_lines(read_lines(file)), role_policy=settings.role_policy)
                entry.did_nothing = not any(counts.values())
                entry.note(f"{sum(counts.values())} lines")
        except OSError as error:
            raise InputError(f"{file.name!r} cannot be read: {error.strerror}", field="file") from error
        crash_points.reach(CrashPoint.IMPORT_READY)
    if as_json:
        write_json(counts)
    else:
        table("Imported", ["type", "#lines"], sorted(counts.items()))


COMMANDS: list[click.Command] = [migrate, import_directory]
