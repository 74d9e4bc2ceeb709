"""Imports a directory file into the database: sets of rows, in one transaction, all or nothing.

`schemas.directory` validates single lines; here they are checked against the database and the rest of the file, by
statements of `db/sql/directory.sql`. Every error names the line and the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import errors, sql

from db.connect import Connection
from db.erasure import erase
from db.import_checks import ImportChecks
from db.import_staging import StagedLines
from db.retention import LINK_SECONDS
from db.statements import sql as statement
from db.unplaced import close_unplaced
from schemas.directory import Line
from schemas.errors import InputError, RefusedError
from schemas.vocabulary import RolePolicy
from schemas.wrong_lines import WrongLines

#: From this many rows on an import is large: see `_large`.
_LARGE: Final = 1000
# Statistics are what somebody saw before or during the import, of tables that may have been empty then. A plan that
# probes a whole table for each row, because it should have one, takes many minutes: rows and table are joined as sets.
JOIN_SETS: Final = "SET LOCAL enable_nestloop = off"
_JOIN_AS_BEFORE: Final = "SET LOCAL enable_nestloop TO DEFAULT"
#: The field of a constraint that fails nevertheless, because another transaction wrote at the same time.
_FIELD_OF_CONSTRAINT: Final[Mapping[str | None, str]] = {
    "uq_members_email": "email",
    "uq_events_ref": "ref",
    "uq_invitations_token": "token",
    "fk_groups_chapter_id": "chapter_id",
    "fk_event_chapters_chapter_id": "chapter_ids",
    "fk_subscriptions_group_id": "group_id",
}


@dataclass(frozen=True, slots=True)
class Step:
    """First the checks on all rows, then the writes. `deleted` selects rows; None: all."""

    type: str
    deleted: bool | None
    checks: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """The statement that writes the records themselves."""
        return f"import_{self.type}s"


#: In the order of references between records, whatever their order in the file.
STEPS: Final = (
    Step("chapter", deleted=False, writes=("import_chapters",)),
    Step("group", deleted=True, writes=("import_group_deletions",)),
    Step("group", deleted=False, checks=("check_groups",), writes=("import_groups",)),
    Step("member", deleted=True, writes=("keep_mailboxes_of_deleted", "import_member_deletions")),
    Step("member", deleted=False, writes=("keep_mailboxes_of_changed", "import_members")),
    Step("member", deleted=None, checks=("check_emails",), writes=("mark_shared_mailboxes",)),
    Step("subscription", deleted=True, writes=("import_subscription_deletions",)),
    Step("subscription", deleted=False, checks=("check_subscriptions",), writes=("import_subscriptions",)),
    Step("ban", deleted=True, writes=("import_ban_deletions",)),
    Step("ban", deleted=False, checks=("check_bans",), writes=("import_bans",)),
    Step("event", deleted=False, checks=("check_events",), writes=("import_events", "import_event_chapters")),
    Step("event", deleted=False, checks=("check_event_refs",)),
    Step("invitation", deleted=False, checks=("check_invitations",), writes=("move_invitations",)),
    Step("invitation", deleted=False, writes=("import_invitations", "import_sent", "import_tokens_to_mail")),
)
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "chapter": ("chapters",),
    "group": ("groups",),
    "member": ("members", "former_mailboxes"),
    "subscription": ("subscriptions",),
    "ban": ("bans",),
    "event": ("events", "event_chapters"),
    "invitation": ("invitations", "deliveries"),
}


def import_lines(
    conn: Connection, lines: Iterable[tuple[int, Line]], *, role_policy: RolePolicy = RolePolicy.EACH
) -> dict[str, int]:
    """Write the numbered lines of `schemas.directory_file.parse_lines`; returns how many were read, by type.

    Upserts by key; of several lines for one key the last counts. A new event whose
    line has no role policy takes `role_policy`. Works in the connection's transaction, which the
    caller commits; after an error nothing of the import is in it. Imports take turns, and planning for the events
    they name waits for them. Raises InputError (line, field and the others) for wrong lines, RefusedError where another
    transaction changed the same records meanwhile. `conn` must not be in autocommit mode.
    """
    if conn.autocommit:
        raise ValueError("an import needs a transaction")
    # The first statement opens the caller's transaction; the block below is a savepoint in it.
    conn.execute("SELECT")
    wrong = WrongLines()
    try:
        with conn.transaction():
            # Everything is read before anything is written: a bad last line takes no lock.
            staged = StagedLines(conn, lines)
            checks = ImportChecks(conn, staged, wrong)
            checks.refuse_repeats("member")
            checks.refuse_repeats("event")
            checks.refuse_repeats("invitation")
            conn.execute(statement("lock_imports"))
            conn.execute(statement("lock_events"), {"ids": staged.events()})
            if _large(staged):
                conn.execute(JOIN_SETS)
            for step in STEPS:
                _run(conn, step, staged, checks, role_policy)
            if wrong:
                raise wrong.error()
            # Deferred constraints are checked here, where their errors can be translated.
            conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            conn.execute(_JOIN_AS_BEFORE)
            if any(staged.read.values()):
                conn.execute(statement("forget_source_lines"))
            close_unplaced(conn)
            analyse(conn, staged)
            staged.drop()
    except (errors.IntegrityError, errors.DeadlockDetected, errors.SerializationFailure) as error:
        if wrong and isinstance(error, errors.IntegrityError):
            raise wrong.error() from error
        raise changed_elsewhere(error) from error
    return staged.read


def changed_elsewhere(error: psycopg.Error) -> RefusedError:
    """The error for what other transactions did to the same records meanwhile."""
    if isinstance(error, errors.IntegrityError):
        return RefusedError(
            f"the database refused the import ({error.diag.constraint_name}): the same records were changed by "
            "another transaction at the same time; nothing was written, try again",
            field=_FIELD_OF_CONSTRAINT.get(error.diag.constraint_name),
        )
    return RefusedError(
        "the same records were in use by other transactions and the database stopped the import; "
        "nothing was written, try again"
    )


def _run(conn: Connection, step: Step, staged: StagedLines, checks: ImportChecks, role_policy: RolePolicy) -> None:
    for check in step.checks:
        checks.run(check, step.type, deleted=step.deleted)
    run_step(conn, step, staged, role_policy)


def run_check(conn: Connection, check: str, staged: StagedLines, step: Step) -> Iterator[InputError]:
    """What a check of a step finds wrong in the staged records."""
    for chunk in staged.chunks(step.type, deleted=step.deleted):
        for row in conn.execute(statement(check), {"rows": chunk}):
            yield InputError(row["problem"], line=row["line"], field=row["field"])


def run_step(conn: Connection, step: Step, staged: StagedLines, role_policy: RolePolicy) -> int:
    """Write the records of a step; how many rows its main statement wrote."""
    if not step.writes:
        return 0
    written = 0
    for chunk in staged.chunks(step.type, deleted=step.deleted):
        if step.type == "member" and step.deleted:
            erase(conn, chunk)
        for write in step.writes:
            cursor = conn.execute(
                statement(write), {"rows": chunk, "seconds": LINK_SECONDS, "role_policy": role_policy}
            )
            written += cursor.rowcount if write == step.main else 0
    return written


def _large(staged: StagedLines) -> list[str]:
    """The types of which there are many records."""
    return [name for name, n in staged.records.items() if n >= _LARGE]


def analyse(conn: Connection, staged: StagedLines) -> None:
    """Analyse the tables of which many records were written, so that planning right after it is fast."""
    tables = [table for name in _large(staged) for table in _TABLES[name]]
    if tables:
        conn.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(map(sql.Identifier, tables))))
