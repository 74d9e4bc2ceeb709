"""What grows in ten years of campaigns, and what a snapshot does that another session holds while one is sent.

`python -m bench growth --members 100000 1000000 --send 200000` builds a database of each size (`bench.scale_data`: ten
ledger rows for each member, of the other tables what retention leaves), plans an event for every member, and sends so
many of its mails, with a dispatcher, a worker and the sink. Prints for each size the tables, and the main queries: with
the history alone, once planned, after the mails with the snapshot still held, and after VACUUM without it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from bench import scale_data
from bench.conditions import held_snapshot
from bench.environment import Environment, prepare_filled
from bench.measure import calibrate
from db import audit_log, checks, outbox, outcomes, progress, reports, retention, samples, site_queries
from db.connect import Connection, connect
from db.statements import sql
from embedded.stack import Stack
from producers.outcome_publisher import OutcomePublisher
from producers.plan import plan
from producers.topics import Topics
from schemas.vocabulary import Audience

PHASES: Final = ("history", "planned", "sent", "vacuumed")
_LOG_SECONDS: Final = 180 * 86_400.0
_ROUNDS: Final = 6
#: So long a query is repeated at most, in seconds.
_SECONDS: Final = 3.0
_QUARTERS: Final = 4

_TABLES: Final = """
SELECT relname AS name, n_live_tup AS rows, n_dead_tup AS dead, pg_table_size(relid) AS heap,
    pg_indexes_size(relid) AS indexes
FROM pg_stat_user_tables WHERE n_live_tup + n_dead_tup > 0 ORDER BY pg_total_relation_size(relid) DESC
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What the queries are about: a batch under way, and the topics."""

    environment: Environment
    conn: Connection
    topics: Topics
    batch: int
    member: int

    def lost(self) -> object:
        """A check for lost items, as every dispatcher makes it."""
        offsets = self.topics.read_offsets(outbox.read_clock(self.conn))
        return outbox.make_lost_items_due(self.conn, offsets, 5000)


def _erase(statement: str, site: Site) -> object:
    return site.conn.execute(sql(statement), {"members": Jsonb([{"id": site.member, "own": "nobody has this name"}])})


def _retention(table: str, site: Site) -> object:
    rule = next(rule for rule in retention.rules(_LOG_SECONDS) if rule.table == table)
    site.conn.execute(sql("limit_retention"))
    return rule.run(site.conn, rule.seconds, None)


def _doctor(site: Site) -> object:
    return list(checks.violations(site.conn))


#: Each in a transaction that is rolled back. The last one reads whole tables, and is asked for once.
QUERIES: Final[Mapping[str, Callable[[Site], object]]] = {
    "claim of 1,000 due items": lambda s: outbox.claim_due_items(s.conn, 1000),
    "check for lost items": Site.lost,
    "outcomes to publish": lambda s: outcomes.to_publish(s.conn, 100),
    "metrics: what is due": lambda s: samples.due(s.conn),
    "metrics: open batches": lambda s: samples.open_batches(s.conn),
    "numbers of a batch": lambda s: reports.status(s.conn, s.batch),
    "since when a batch is idle": lambda s: progress.idle(s.conn, s.batch),
    "audit log of an event": lambda s: audit_log.entries(s.conn, before=None, event_id=s.batch, limit=50),
    "page of a member": lambda s: site_queries.member(s.conn, s.member, None),
    "deletion of a member: ledger": partial(_erase, "erase_in_deliveries"),
    "deletion of a member: log": partial(_erase, "erase_in_log"),
    **{f"retention: {rule.table}": partial(_retention, rule.table) for rule in retention.rules(_LOG_SECONDS)},
    "doctor": _doctor,
}
_ONCE: Final = "doctor"


@dataclass(slots=True)
class Found:
    """The figures of one size: milliseconds by query and phase, tables by phase, notes."""

    members: int
    queries: dict[str, dict[str, float]] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(stack: Stack, members: int, send: int, only: str, report: Callable[[str], None]) -> Found:
    """One size, from the empty database on."""
    found = Found(members)
    started = time.perf_counter()
    environment = prepare_filled(stack, partial(scale_data.fill, members=members, retained=True))
    found.notes.append(f"loaded in {time.perf_counter() - started:.0f} s")
    with connect(environment.database_url, autocommit=True) as conn:
        _begin_outcomes(environment, conn)
        _look(found, "history", Site(environment, conn, Topics(environment.settings), scale_data.OVER, members), only)
        report(f"{members:,}: {found.notes[-1]}, queries of the history measured")
        started = time.perf_counter()
        planned = plan(conn, event_id=scale_data.UNTOUCHED, audience=Audience.EVERYONE)
        assert planned.batch_id is not None
        found.notes.append(f"{planned.planned:,} planned in {time.perf_counter() - started:.1f} s")
        site = Site(environment, conn, Topics(environment.settings), planned.batch_id, members)
        _look(found, "planned", site, only)
        report(f"{members:,}: {found.notes[-1]}")
        with held_snapshot(environment):
            found.notes += _send(site, send, report)
            _look(found, "sent", site, only)
        started = time.perf_counter()
        conn.execute("VACUUM ANALYZE")
        found.notes.append(f"VACUUM of everything: {time.perf_counter() - started:.0f} s")
        _look(found, "vacuumed", site, only)
        found.notes += _topics(environment, send)
        conn.execute("CHECKPOINT")
    return found


def _begin_outcomes(environment: Environment, conn: Connection) -> None:
    """One outcome is on its topic: on an empty one a dispatcher would first publish the whole ledger's."""
    publisher = OutcomePublisher(environment.settings, threading.Event())
    conn.execute(
        "INSERT INTO outcome_outbox (outcomes) SELECT jsonb_build_array(jsonb_build_array(event_id, action, member_id,"
        " slot, role, state, fence, batch_id, updated_at)) FROM deliveries WHERE state = 'sent' LIMIT 1"
    )
    publisher.publish_some(conn, publisher.make_producer())


def _look(found: Found, phase: str, site: Site, only: str) -> None:
    """The tables first: what is rolled back leaves dead rows, too."""
    site.conn.execute("SELECT pg_stat_force_next_flush()")
    found.tables[phase] = {row["name"]: row for row in site.conn.execute(_TABLES.encode())}
    for name, query in QUERIES.items():
        if only not in name:
            continue
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < _ROUNDS and (not times or time.perf_counter() - began < _SECONDS) and name != _ONCE:
            with site.conn.transaction(force_rollback=True):
                times.append(_timed(partial(query, site)))
        if name == _ONCE and phase in ("history", "vacuumed"):
            times = [_timed(partial(query, site))]
        if times:
            # The first one reads from disk and sets up plans.
            found.queries.setdefault(name, {})[phase] = statistics.median(times[1:] or times)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _send(site: Site, send: int, report: Callable[[str], None]) -> Iterator[str]:
    """Until so many mails are in the log; notes of how fast each quarter was."""
    with site.environment.dispatcher(), site.environment.worker("confluent"):
        started, before = time.perf_counter(), 0
        for quarter in range(1, _QUARTERS + 1):
            while (sent := _sent(site)) < send * quarter / _QUARTERS:
                if time.perf_counter() - started > 3600:
                    raise RuntimeError("the measurement has timed out")
                time.sleep(0.5)
            now = time.perf_counter()
            yield f"mails {before:,} to {sent:,}: {(sent - before) / (now - started):,.0f}/s"
            report(f"{sent:,} mails sent")
            started, before = now, sent


def _sent(site: Site) -> int:
    row = site.conn.execute("SELECT count(*) AS n FROM log_entries WHERE batch_id = %s", (site.batch,)).fetchone()
    assert row is not None
    return int(row["n"])


def _topics(environment: Environment, mails: int) -> Iterator[str]:
    """Bytes of each topic's log for a mail."""
    for topic in environment.settings.topics:
        size = sum(path.stat().st_size for path in environment.stack.home.rglob(f"{topic}-*/*.log"))
        yield f"topic {Path(topic).name.partition('.')[2]}: {size / mails:.0f} bytes for each mail sent"


def run(stack: Stack, sizes: list[int], send: int, only: str, console: Console) -> None:
    """Measure and print."""
    all_found = []
    for members in sizes:
        console.print(f"{members:,} members, calibration {calibrate():.3f} s")
        found = measure(stack, members, min(send, members // 2), only, lambda text: console.print(f"[dim]{text}[/dim]"))
        all_found.append(found)
        console.print(_tables(found))
        console.print("\n".join(found.notes))
        console.print(_queries(all_found))
    console.print(f"calibration afterwards {calibrate():.3f} s")


def _tables(found: Found) -> Table:
    table = Table(title=f"Tables, {found.members:,} members")
    table.add_column("table")
    for column in ("rows", "heap B/row", "index B/row"):
        table.add_column(column, justify="right")
    for phase in PHASES:
        table.add_column(f"MB, {phase}", justify="right")
        table.add_column("dead", justify="right")
    for name, last in found.tables["vacuumed"].items():
        rows = max(last["rows"], 1)
        cells = [f"{last['rows']:,}", f"{last['heap'] / rows:,.0f}", f"{last['indexes'] / rows:,.0f}"]
        for phase in PHASES:
            at = found.tables[phase].get(name)
            cells += ["", ""] if at is None else [f"{(at['heap'] + at['indexes']) / 1e6:,.1f}", f"{at['dead']:,}"]
        table.add_row(name, *cells)
    return table


def _queries(all_found: list[Found]) -> Table:
    table = Table(title="Milliseconds by query")
    table.add_column("query")
    for found in all_found:
        for phase in PHASES:
            table.add_column(f"{found.members:,} {phase}", justify="right")
    for name in all_found[0].queries:
        cells = [found.queries.get(name, {}).get(phase) for found in all_found for phase in PHASES]
        table.add_row(name, *("" if cell is None else f"{cell:,.1f}" for cell in cells))
    return table
