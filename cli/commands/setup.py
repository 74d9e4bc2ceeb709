"""Commands that set up the database and the topics, and fill them: `migrate`, `import`."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

from cli.options import ACTOR, DATABASE_SETTINGS, KAFKA_SETTINGS, environment, json_option
from cli.output import out, table, write_json
from config import crash_points
from config.crash_points import CrashPoint
from config.startup import load
from schemas.errors import EXIT_DONE, InputError, UsageError, printable

if TYPE_CHECKING:
    from config.settings import Settings


@click.command(epilog=environment(DATABASE_SETTINGS, KAFKA_SETTINGS, ("BIDDEN_PARTITIONS",)))
@json_option
def migrate(as_json: bool) -> None:
    """Migrate the database to the newest schema, and create topics.

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


@click.command("import", epilog=environment(DATABASE_SETTINGS, ("BIDDEN_ROLE_POLICY", "BIDDEN_SOURCE_MAX_AGE")))
@click.argument("file", type=click.File("rb", lazy=True))
@click.option("--complete", is_flag=True, help="FILE names everything: what it does not name is removed.")
@click.option("--accept", is_flag=True, help="With --complete: also where it differs much from the directory.")
@json_option
def import_directory(file: BinaryIO, complete: bool, accept: bool, as_json: bool) -> int:
    """Import a directory from FILE, in JSON Lines; `-` is stdin.

    A directory holds chapters, groups, members, subscriptions, bans, events and invitations. The import is one
    transaction: if lines are invalid, the error names them (up to 20) and nothing is written.

    With --complete FILE is a whole directory, as `bidden sync` takes one from a database: subscriptions, bans, groups
    and members that it does not name are removed, and invalid lines are set aside; then the exit code is 1.

    Example: bidden import directory.jsonl
    """
    if accept and not complete:
        raise UsageError("--accept needs --complete", field="accept")
    settings = load()
    try:
        return _import_complete(settings, file, accept, as_json) if complete else _import(settings, file, as_json)
    except OSError as error:
        raise InputError(f"{file.name!r} cannot be read: {error.strerror}", field="file") from error


def _import(settings: Settings, file: BinaryIO, as_json: bool) -> int:
    from db.audit_log import AuditEntry, audited
    from db.connect import connect
    from db.directory import import_lines
    from schemas.directory_file import parse_lines, read_lines

    with connect(settings.require_database(), application="bidden-import") as conn:
        # In the import's transaction: one that wrote nothing leaves no entry.
        with audited(conn, AuditEntry(ACTOR, "import", detail=_name(file))) as entry:
            counts = import_lines(conn, parse_lines(read_lines(file)), role_policy=settings.role_policy)
            entry.did_nothing = not any(counts.values())
            entry.note(f"{sum(counts.values())} lines")
        crash_points.reach(CrashPoint.IMPORT_READY)
    if as_json:
        write_json(counts)
    else:
        table("Imported", ["type", "#lines"], sorted(counts.items()))
    return EXIT_DONE


def _import_complete(settings: Settings, file: BinaryIO, accept: bool, as_json: bool) -> int:
    from cli.commands.source import exit_code, show_snapshot
    from db.sync import import_complete

    snapshot = import_complete(settings, file, ACTOR, _name(file), accept=accept)
    if as_json:
        write_json(snapshot.as_dict())
    else:
        show_snapshot(snapshot)
    return exit_code(snapshot)


def _name(file: BinaryIO) -> str:
    return printable(file.name)[-200:]


COMMANDS: list[click.Command] = [migrate, import_directory]
