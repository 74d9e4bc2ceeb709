"""How long rows are kept in the tables that grow: one table of rules, each removed in bounded chunks.

The dispatcher runs a chunk every second while there is something to remove (`Retention.run_chunk`); `bidden cleanup`
runs all of them to their end (`run_all`). Any number of processes may do both: one chunk runs at a time. The ledger has
no rule: it is never removed (FM-26).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psycopg
import structlog

from db.accounts import IDLE_SECONDS
from db.connect import Connection
from db.statements import sql
from schemas.errors import first_line

log = structlog.get_logger()

#: Rows that a chunk looks at or removes: some ten milliseconds. Of batches: members, with up to three rows each.
CHUNK: Final = 5000
#: Small batches that one chunk takes.
_BATCHES: Final = 20
_DAY: Final = 86_400.0
#: Between two chunks of one process.
_PAUSE_SECONDS: Final = 1.0
#: Between the end of one pass of a rule and the begin of the next.
_REST_SECONDS: Final = 300.0
#: A pass over the invitations looks at each one, also at those that stay.
_LONG_REST_SECONDS: Final = _DAY
#: After a chunk failed, or another process was at it.
_WAIT_SECONDS: Final = 60.0

#: Links in mails work for so long after the end of their event, and in the newest mail of a member for ever.
LINK_SECONDS: Final = 365 * _DAY


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call of a rule did: rows removed, of how many batches, whether there is more, and where it goes on."""

    removed: int
    more: bool
    place: Any = None
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """What is removed from a table, and `seconds` after what. `also` names tables whose rows go with it."""

    table: str
    after: str
    seconds: float
    run: Callable[[Connection, float, Any], Chunk]
    also: tuple[str, ...] = ()
    rest: float = _REST_SECONDS


#: Rows that leave a batch's log: their number is the result of `bidden cleanup`.
OF_BATCHES: Final = "batch_items"

#: Tables without a rule, and why they may grow or do not.
KEPT: Final[Mapping[str, str]] = {
    "deliveries": "the ledger: who was mailed must never be forgotten (FM-26)",
    "outcome_outbox": "the dispatcher removes what it has published",
    "members": "a deleted member is anonymised; the ledger's keys, and their bans, refer to the row",
    "former_mailboxes": "digests only, of members who were invited or banned; as the ledger refers to them",
    "chapters": "the directory: as large as the community",
    "groups": "the directory",
    "subscriptions": "the directory",
    "opt_outs": "a promise to a person: they or an admin take it back",
    "bans": "the directory; the source removes them",
    "events": "the ledger's keys refer to them; a hundred a day are 365,000 in ten years",
    "event_chapters": "one or two for each event",
    "accounts": "a person adds each of them",
    "account_chapters": "a person adds each of them",
    "api_clients": "a person adds each of them",
    "directory_source": "one row",
    "source_lines": "one for each record of the source; each snapshot removes those that it does not have",
    "set_aside_lines": "those of the newest snapshot, which removes the others",
    "reported_batches": "one for each batch",
    "reported_entries": "of batches that have ended few are kept, and none once their log is removed",
    "redriven_dead_letters": "the topic keeps its letters: without the row a letter would wait again",
    "discarded_dead_letters": "the topic keeps its letters: without the row a letter would wait again",
    "polls_in_flight": "workers remove it, and what workers that ended have left",
    "suspects": "workers remove it, and what workers that ended have left",
    "send_rate_settings": "one row",
    "send_limits": "workers remove domains that no mail went to for a day",
    "send_usage": "workers remove what no window counts any more",
}


def _delete(statement: str, conn: Connection, seconds: float, _: Any) -> Chunk:
    values = {"seconds": seconds, "limit": CHUNK, "idle_seconds": IDLE_SECONDS}
    row = conn.execute(sql(statement), values).fetchone()
    assert row is not None
    return Chunk(row["removed"], row["more"])


def _invitations(conn: Connection, seconds: float, place: Any) -> Chunk:
    event, member, role = place or (-1, -1, "")
    values = {"seconds": seconds, "limit": CHUNK, "place_event": event, "place_member": member, "place_role": role}
    row = conn.execute(sql("remove_invitations"), values, prepare=False).fetchone()
    assert row is not None
    return Chunk(row["removed"], row["more"], row["place"])


def _batch_rows(conn: Connection, seconds: float, _: Any) -> Chunk:
    """The rows of the batch that is archived already, then of the next ones, until they are enough for a chunk."""
    removed = batches = 0
    while removed < CHUNK and batches < _BATCHES:
        batch = conn.execute(sql("find_archived_batch_with_rows")).fetchone()
        if batch is None:
            batch = conn.execute(sql("find_batch_to_archive"), {"seconds": seconds}).fetchone()
            if batch is None:
                return Chunk(removed, more=False, batches=batches)
            conn.execute(sql("archive_batch"), {"batch_id": batch["id"]})
        values = {"batch_id": batch["id"], "removed_up_to": batch["removed_up_to"], "limit": CHUNK}
        row = conn.execute(sql("remove_batch_rows"), values).fetchone()
        assert row is not None
        removed += row["removed"]
        if row["members"] < CHUNK:
            last = conn.execute(sql("remove_last_batch_rows"), values).fetchone()
            assert last is not None
            removed += last["removed"]
            batches += int(row["removed"] + last["removed"] > 0 or batch["removed_up_to"] >= 0)
    return Chunk(removed, more=True, batches=batches)


def _rule(table: str, after: str, days: float, **options: Any) -> Rule:
    return Rule(table, after, days * _DAY, partial(_delete, f"remove_{table}"), **options)


def rules(log_seconds: float) -> tuple[Rule, ...]:
    """All rules. `log_seconds`: how long the log of a batch that ended is kept, by BIDDEN_LOG_RETENTION_DAYS."""
    return (
        _rule("sign_in_attempts", "the first attempt that it counts", 1),
        _rule("sign_in_requests", "it expired", 0),
        _rule("password_resets", "it expired", 0),
        _rule("sessions", "it ended", 0),
        Rule(OF_BATCHES, "the batch ended, and was last written to", log_seconds, _batch_rows, ("log_entries",)),
        Rule("invitations", "the event ended", LINK_SECONDS, _invitations, rest=_LONG_REST_SECONDS),
        Rule("batches", "the event ended: the trigger's key", 90 * _DAY, partial(_delete, "remove_trigger_keys")),
        _rule("batch_webhooks", "it was delivered or given up", 180),
        _rule("audit_log", "the action", 730),
    )


class Retention:
    """The rules as a chore of a process that lives long. Not thread-safe."""

    def __init__(self, log_seconds: float, monotonic: Callable[[], float]) -> None:
        self._rules = rules(log_seconds)
        self._monotonic = monotonic
        self._next = dict.fromkeys((rule.table for rule in self._rules), -math.inf)
        self._places: dict[str, Any] = {}
        self._next_chunk = -math.inf

    def run_chunk(self, conn: Connection) -> bool:
        """Run one chunk of a rule that is due, if one is; whether a chunk ran. `conn` must be in autocommit mode.

        Returns within a few hundred milliseconds, and lets a second pass between two chunks. Raises errors of an outage
        only: after any other the rule waits.
        """
        now = self._monotonic()
        if now < self._next_chunk:
            return False
        due = next((rule for rule in self._rules if self._next[rule.table] <= now), None)
        if due is None:
            return False
        self._next_chunk = now + _PAUSE_SECONDS
        try:
            done = _run(conn, due, self._places.get(due.table))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            log.info("retention waits", table=due.table, cause=first_line(error))
            done = None
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            # What is removed late harms nobody; a dispatcher that ended would.
            log.warning("retention failed", table=due.table, cause=first_line(error))
            done = None
        if done is None:
            self._next[due.table] = now + _WAIT_SECONDS
            return False
        if done.removed:
            log.info("removed old rows", table=due.table, rows=done.removed)
        self._places[due.table] = done.place if done.more else None
        if not done.more:
            self._next[due.table] = now + due.rest
        return True


@dataclass(frozen=True, slots=True)
class Removed:
    """Rows removed by table, and from how many batches."""

    rows: Mapping[str, int]
    batches: int


def run_all(conn: Connection, log_seconds: float) -> Removed:
    """Run every rule to its end. `conn` must be in autocommit mode."""
    rows: dict[str, int] = {}
    batches = 0
    for rule in rules(log_seconds):
        done = Chunk(0, more=True)
        while done.more:
            done = _run(conn, rule, done.place, wait=True) or done
            rows[rule.table] = rows.get(rule.table, 0) + done.removed
            batches += done.batches
    return Removed(rows, batches)


def _run(conn: Connection, rule: Rule, place: Any, *, wait: bool = False) -> Chunk | None:
    """One chunk in a transaction of its own; None while another process runs one."""
    with conn.transaction():
        name = "wait_for_retention" if wait else "lock_retention"
        row = conn.execute(sql(name)).fetchone()
        assert row is not None
        if not row["locked"]:
            return None
        conn.execute(sql("limit_retention"))
        return rule.run(conn, rule.seconds, place)
