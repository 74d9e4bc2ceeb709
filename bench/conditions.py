"""The same campaign under conditions that a real installation has: what each costs, against the campaign without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final, LiteralString

from bench import end_to_end
from bench.environment import EVENT, Environment, prepare, wait_for
from config import ledger_topics
from db.connect import Connection, connect
from embedded.stack import Stack

COLUMNS: Final = ("condition", "mails/s", "x", "CPU-s/1000", "x", "worker", "postgres", "idle of 2 cores")
_CORES: Final = 2


@dataclass(frozen=True)
class Condition:
    """`holds` is entered before the campaign; `settings` are those of so many `workers`."""

    name: str
    holds: Callable[[Environment], AbstractContextManager[None]] = lambda _: nullcontext()
    settings: dict[str, str] = field(default_factory=dict)
    workers: int = 1


_OLD_ROWS: Final[LiteralString] = """
INSERT INTO events (id, kind, name, starts_at, ends_at, invitable)
SELECT 900000 + n, 'event', 'Old evening', now() - n * interval '7 days', now() - n * interval '7 days', true
FROM generate_series(1, %(events)s) n;
INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)
SELECT id, 'everyone', 'invite', 'the bench', 1, starts_at - interval '20 days' FROM events WHERE id > 900000;
INSERT INTO batch_items (batch_id, member_id, roles, position, settled_at)
SELECT b.id, m.id, '{Student}', row_number() OVER (PARTITION BY b.id), b.started_at
FROM batches b CROSS JOIN members m WHERE b.event_id > 900000;
INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, batch_id, reply, updated_at)
SELECT b.event_id, 'invite', i.member_id, 'Student', 'Student', 'sent', 1, 1, b.id, '250 2.0.0 queued', b.started_at
FROM batches b JOIN batch_items i ON i.batch_id = b.id WHERE b.event_id > 900000;
INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)
SELECT b.id, i.member_id, 'Student', 'Student', 'sent', 1, b.started_at
FROM batches b JOIN batch_items i ON i.batch_id = b.id WHERE b.event_id > 900000;
"""


@contextmanager
def _old_rows(environment: Environment, rows: int) -> Iterator[None]:
    """So many deliveries of old events, with their items and log entries."""
    with connect(environment.database_url, autocommit=True) as conn:
        counted = conn.execute("SELECT count(*) AS n FROM members").fetchone()
        assert counted is not None
        for statement in _OLD_ROWS.split(";\n"):
            if statement.strip():
                conn.execute(statement, {"events": rows // counted["n"]})
        # Their outcomes are on the topic: a dispatcher that finds it empty publishes all that the ledger has.
        conn.execute("TRUNCATE outcome_outbox")
        with environment.dispatcher():
            wait_for(lambda: _are_published(environment, conn), every=1)
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")
    yield


def _are_published(environment: Environment, conn: Connection) -> bool:
    waiting = conn.execute("SELECT FROM outcome_outbox LIMIT 1").fetchone()
    return waiting is None and ledger_topics.has_outcomes(environment.settings)


@contextmanager
def held_snapshot(environment: Environment) -> Iterator[None]:
    """Another session looks at the database as it was, all the while: nothing that is updated can be removed."""
    with connect(environment.database_url) as conn:
        # As a backup's session: ours would be ended after a minute.
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM members")
        yield


@contextmanager
def _long_description(environment: Environment, size: int) -> Iterator[None]:
    """A description of so many characters, which is in both parts of each mail."""
    with connect(environment.database_url, autocommit=True) as conn:
        text = ("We meet, eat, and learn something new together. " * (size // 48 + 1))[:size]
        conn.execute("UPDATE events SET description = %s WHERE id = %s", (text, EVENT))
    yield


@contextmanager
def _slow_provider(environment: Environment, seconds: float) -> Iterator[None]:
    """Each mail is accepted so many seconds after its end."""
    environment.stack.mail.set_rules([{"do": "delay", "seconds": seconds}])
    try:
        yield
    finally:
        environment.stack.mail.clear_rules()


def conditions(old_rows: int) -> list[Condition]:
    """All of them; the first is the anchor."""
    slow = "a provider that takes 50 ms a mail"
    return [
        Condition("none"),
        Condition("a second worker", workers=2),
        Condition("a snapshot held by another session", held_snapshot),
        Condition(f"{old_rows:,} old deliveries", lambda environment: _old_rows(environment, old_rows)),
        Condition("a mail of 30 kB", lambda environment: _long_description(environment, 12_000)),
        *(Condition(f"a window of {n}", settings={"BIDDEN_HANDOVER_WINDOW": str(n)}) for n in (250, 500, 1000)),
        *(
            Condition(
                f"{slow}, {connections} connections, a window of {window}",
                lambda environment: _slow_provider(environment, 0.05),
                {"BIDDEN_SMTP_CONNECTIONS": str(connections), "BIDDEN_HANDOVER_WINDOW": str(window)},
            )
            for connections, window in ((10, 100), (50, 100), (50, 250))
        ),
    ]


def measure(stack: Stack, members: int, old_rows: int, only: str = "") -> Iterator[tuple[str, ...]]:
    """A row of the table for each condition whose name contains `only`, and for the anchor."""
    anchor: end_to_end.Result | None = None
    for condition in conditions(old_rows):
        if anchor is not None and only not in condition.name:
            continue
        environment = prepare(stack, members)
        with condition.holds(environment):
            found = end_to_end.campaign(environment, "confluent", members, condition.workers, **condition.settings)
        anchor = anchor or found
        cpu, base = (sum(result.cpu.values()) for result in (found, anchor))
        idle = _CORES - cpu * found.mails_per_second / 1000
        yield (
            condition.name,
            f"{found.mails_per_second:,.0f}",
            f"{found.mails_per_second / anchor.mails_per_second:.2f}",
            f"{cpu:.3f}",
            f"{cpu / base:.2f}",
            f"{found.cpu['worker']:.3f}",
            f"{found.cpu['postgres']:.3f}",
            f"{idle:.1f}",
        )
