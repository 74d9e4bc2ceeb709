"""Brings the directory in line with a complete snapshot of a source, in one transaction.

What the snapshot does not name is removed (subscriptions, bans, groups, members); events and invitations never are. A
line that cannot be used stops nothing: it is set aside, and so are the lines that refer to its record. Called by
`bidden sync` and `bidden import --complete`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import errors
from psycopg.types.json import Jsonb

from db.connect import Connection
from db.directory import JOIN_SETS, STEPS, analyse, changed_elsewhere, run_check, run_step
from db.snapshot_staging import SnapshotLines
from db.statements import sql
from db.unplaced import follow_snapshot
from schemas.directory import LINE_TYPES
from schemas.errors import InputError, RefusedError
from schemas.vocabulary import RolePolicy

#: What a standby that has replayed nothing since says of its age differs by the time that it takes to ask.
_SAME_MOMENT: Final = timedelta(seconds=1)
#: Types of which a snapshot removes what it does not name.
_REMOVED: Final = ("group", "member", "subscription", "ban")
#: What an import checks once it has written; a snapshot looks before, at who keeps the value without being in it.
_AFTER_WRITING: Final = frozenset({"check_emails", "check_event_refs"})
_TAKEN: Final = {"member": "emails_of_others", "event": "refs_of_others"}
#: What may appear or vanish at once: this share of the records there were, or so many.
_JUMP_SHARE: Final = 0.05
_JUMP_ROWS: Final = 20
#: Events come and go, and another system may invite hundreds at once; nothing of them is removed (ADR 51).
_UNGUARDED: Final = frozenset({"event", "invitation"})

Load = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a snapshot is taken. `zone` is the source's, for errors.

    `max_age` in seconds: no claim is taken later than this after it began. `accept`: also where it differs much.
    """

    zone: str | None
    max_age: float | None
    accept: bool
    role_policy: RolePolicy
    #: The source gets the invitations of a batch before their mails go out.
    places: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """Of one type: records that appeared, differ, vanished; and how many there were before."""

    added: int
    changed: int
    removed: int
    before: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read and what it changed, by type; and how many lines were set aside."""

    began_at: datetime
    read: Mapping[str, int]
    changes: Mapping[str, Changes]
    set_aside: int

    @property
    def has_changed(self) -> bool:
        """Whether it changed anything in the directory."""
        return any(found.added or found.changed or found.removed for found in self.changes.values())

    def summary(self) -> str:
        """For the audit log."""
        parts = [
            f"{kind}: {found.added} added, {found.changed} changed, {found.removed} removed"
            for kind, found in self.changes.items()
            if found.added or found.changed or found.removed
        ]
        return "; ".join([*parts, f"{self.set_aside} set aside"])

    def as_dict(self) -> dict[str, Any]:
        """As `bidden sync` prints it."""
        return {
            "snapshot_at": self.began_at.isoformat(),
            "read": dict(self.read),
            "changed": {
                name: {"added": found.added, "changed": found.changed, "removed": found.removed}
                for name, found in self.changes.items()
            },
            "set_aside": self.set_aside,
        }


def clock(conn: Connection) -> datetime:
    """The time of the ledger's database: a snapshot that begins now is of this time or later."""
    row = conn.execute(sql("clock")).fetchone()
    assert row is not None
    now: datetime = row["now"]
    return now


def apply_snapshot(conn: Connection, load: Load, began_at: datetime, terms: Terms) -> Snapshot:
    """Apply one snapshot in the connection's transaction, which the caller commits or, for a check, rolls back.

    `load` copies its lines into the temporary table `snapshot_lines` (line, raw); `began_at` says of when they are, by
    the clock of this database. Raises RefusedError for a jump that was not accepted, and where other transactions
    changed the same records meanwhile; InputError for times in the future; what `load` raises.
    """
    if conn.autocommit:
        raise ValueError("a snapshot needs a transaction")
    lines = SnapshotLines(conn)
    load(conn)
    # From here on what the last snapshot left stays so; not while a file is read that may come slowly.
    conn.execute(sql("lock_imports"))
    lines.stage()
    try:
        return _apply(conn, lines, began_at, terms)
    except (errors.IntegrityError, errors.DeadlockDetected, errors.SerializationFailure) as error:
        raise changed_elsewhere(error) from error


def _apply(conn: Connection, lines: SnapshotLines, began_at: datetime, terms: Terms) -> Snapshot:
    conn.execute(sql("lock_events"), {"ids": _events(conn)})
    known = conn.execute(sql("lock_source")).fetchone()
    if known is not None and known["began_at"] - began_at > _SAME_MOMENT:
        raise RefusedError("a snapshot that began later was taken meanwhile")
    _refuse_future(conn, terms.zone)
    conn.execute(JOIN_SETS)
    subscriptions = _subscriptions(conn)
    changes = {kind: _apply_type(conn, lines, kind, terms.role_policy) for kind in LINE_TYPES}
    # Those of a group or a member went with it.
    added = changes["subscription"].added
    removed = subscriptions + added - _subscriptions(conn)
    changes["subscription"] = Changes(added, 0, removed, subscriptions)
    if not terms.accept:
        _refuse_jumps(lines.read, changes, is_first=known is None)
    conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
    conn.execute(sql("keep_set_aside"))
    conn.execute(sql("keep_source_lines"))
    row = conn.execute("SELECT count(*) AS n FROM set_aside_lines").fetchone()
    assert row is not None
    snapshot = Snapshot(began_at, lines.read, changes, row["n"])
    result = snapshot.as_dict()
    conn.execute(
        sql("keep_snapshot"),
        {"began_at": began_at, "max_age": terms.max_age, "places": terms.places, "result": Jsonb(result)},
    )
    follow_snapshot(conn, gets_invitations=terms.places)
    analyse(conn, lines)
    return snapshot


def _apply_type(conn: Connection, lines: SnapshotLines, kind: str, role_policy: RolePolicy) -> Changes:
    lines.set_aside_referring(kind)
    steps = [step for step in STEPS if step.type == kind]
    for step in steps:
        for check in step.checks:
            if check not in _AFTER_WRITING:
                lines.set_aside_lines(list(run_check(conn, check, lines, step)))
    # Before anything is written: each takes one line out, whose value then is another's that stays.
    while (unique := _TAKEN.get(kind)) and (found := _errors(conn.execute(sql(unique), {}).fetchall())):
        lines.set_aside_lines(found)
    if kind in _REMOVED:
        conn.execute(sql(f"remove_missing_{kind}"))
    lines.note_gone(kind)
    lines.recount(kind)
    counts = conn.execute(sql(f"count_{kind}"), {"type": kind}).fetchone()
    assert counts is not None
    written = sum(run_step(conn, step, lines, role_policy) for step in steps)
    return Changes(counts["added"], max(written - counts["added"], 0), counts["removed"], counts["before"])


def _subscriptions(conn: Connection) -> int:
    row = conn.execute("SELECT count(*) AS n FROM subscriptions").fetchone()
    assert row is not None
    count: int = row["n"]
    return count


def _errors(rows: list[dict[str, Any]]) -> list[InputError]:
    return [InputError(row["problem"], line=row["line"], field=row["field"]) for row in rows]


def _events(conn: Connection) -> list[int]:
    rows = conn.execute(
        "SELECT DISTINCT first_id AS id FROM import_rows WHERE type IN ('event', 'invitation') AND changed ORDER BY 1"
    )
    return [row["id"] for row in rows]


def _refuse_future(conn: Connection, zone: str | None) -> None:
    row = conn.execute(sql("sent_in_the_future")).fetchone()
    assert row is not None
    if row["n"]:
        cause = (
            f"is BIDDEN_SOURCE_TIME_ZONE={zone} the zone of its times?" if zone else "are its times in another zone?"
        )
        raise InputError(
            f"sent_at of {row['n']:,} invitations is in the future (up to {row['latest'].isoformat()}): {cause} "
            "Nothing was written",
            field="sent_at",
        )


def _refuse_jumps(read: Mapping[str, int], changes: Mapping[str, Changes], *, is_first: bool) -> None:
    """More appeared or vanished than a day brings: the source may be another one, or half of it."""
    found = []
    for kind, change in changes.items():
        limit = max(_JUMP_ROWS, _JUMP_SHARE * change.before)
        if change.before and not read[kind]:
            found.append(f"{kind}: none, where there were {change.before:,}")
        elif not is_first and kind not in _UNGUARDED and max(change.added, change.removed) > limit:
            found.append(f"{kind}: {change.added:,} appear and {change.removed:,} vanish, of {change.before:,}")
    if found:
        raise RefusedError(
            f"the snapshot differs too much from the directory ({'; '.join(found)}); nothing was written. If it is "
            "right, take it once with --accept"
        )


def note_problem(conn: Connection, problem: str) -> None:
    """A snapshot was not taken: pages and `doctor` say why."""
    conn.execute(sql("note_source_problem"), {"problem": problem[:1000]})


def end(conn: Connection) -> bool:
    """There is no source any more; whether there was one. The directory stays as it is."""
    follow_snapshot(conn, gets_invitations=False)
    conn.execute(sql("forget_reports"))
    return conn.execute(sql("end_source")).rowcount > 0
