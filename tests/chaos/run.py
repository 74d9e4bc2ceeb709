"""The loop of a run: blow after blow while campaigns go on, then quiet, then the books."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.blows import can_fall, fall
from tests.chaos.census import take_snapshot
from tests.chaos.plan import Blow, schedule
from tests.chaos.reckoning import Reckoning
from tests.chaos.report import Report
from tests.chaos.world import Options, World, world

_TICK_SECONDS: Final = 0.03
#: How long a blow waits for mails to flow again after the one before: long enough for a group to find together.
_PATIENCE_SECONDS: Final = 5.0
#: Mails that are accepted from one blow to the next before it falls, unless patience ends.
_FLOW: Final = 15
#: So many of the blows waits for nothing: it falls into the recovery from the one before.
_AT_ONCE_BELOW: Final = 0.15
_START_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 180.0

Say = Callable[[str], object]


def run(options: Options, home: Path, say: Say = lambda _: None) -> Report:
    """A whole run in an empty folder. What is wrong stands in the report's findings."""
    report = Report(options.seed, options.runner, options.members)
    began = time.monotonic()
    with world(options, home, report) as made:
        _warm_up(made)
        _deal(made, say)
        _settle(made, say)
        Reckoning(made, say).check()
        made.stop()
        report.ends, report.commands = made.ends.codes, made.errands.done
        for process in made.bidden.processes:
            if process.running:
                report.findings.append(f"still runs: {process}")
        for note in made.ends.notes:
            say(note)
        report.findings += made.ends.findings + made.servers.findings
    report.seconds = time.monotonic() - began
    return report


def _warm_up(made: World) -> None:
    """Until every worker has partitions, and mails flow."""
    end = time.monotonic() + _START_SECONDS
    while made.tail.count < _FLOW or not made.crew.all_assigned():
        assert time.monotonic() < end, "not under way in a minute, and nothing was done yet"
        made.look()
        time.sleep(_TICK_SECONDS)


def _deal(made: World, say: Say) -> None:
    """The blows. One whose target is away is dealt as soon as it is back, and others meanwhile."""
    options, report = made.options, made.report
    plan, put_off = schedule(options.seed), deque[Blow]()
    began = time.monotonic()
    before = made.tail.count
    while not _enough(options, report.count, time.monotonic() - began):
        blow = _next(made, put_off, plan.__next__)
        _pause(made, blow, before)
        if not can_fall(made, blow):
            put_off.append(blow)
            continue
        now = made.census.latest
        flying, accepted = made.in_flight(), made.tail.read()
        report.blows[blow.kind.value] += 1
        report.hit_in_flight += flying > 0
        report.mails_between.append(accepted - before)
        whom = fall(made, blow)
        say(
            f"{report.count:5d} {time.monotonic() - began:8.2f} s  {blow.kind.value}: {whom}  [pending {now.pending},"
            f" in flight {flying}, unknown {now.unknown}, mails {accepted}, {accepted - before} since]"
        )
        before = accepted
    report.seconds_of_blows = time.monotonic() - began


def _enough(options: Options, blows: int, seconds: float) -> bool:
    if options.minutes is not None and seconds >= options.minutes * 60:
        return True
    return options.blows is not None and blows >= options.blows


def _next(made: World, put_off: deque[Blow], draw: Callable[[], Blow]) -> Blow:
    for _ in range(len(put_off)):
        blow = put_off.popleft()
        if can_fall(made, blow):
            return blow
        put_off.append(blow)
    return draw()


def _pause(made: World, blow: Blow, before: int) -> None:
    """The blow's gap, and until mails are in flight again and some were accepted since the last blow."""
    began = time.monotonic()
    while True:
        made.look()
        passed = time.monotonic() - began
        flows = made.in_flight() > 0 and made.tail.count - before >= _FLOW
        if passed >= blow.gap and (flows or blow.pick < _AT_ONCE_BELOW or passed > _PATIENCE_SECONDS):
            return
        time.sleep(_TICK_SECONDS)


def _settle(made: World, say: Say) -> None:
    """Everything is up, nobody is stopped, nobody misbehaves: until every batch has come to its end."""
    began = time.monotonic()
    made.organisers.quiet = True
    made.do_now()
    made.servers.thaw_all()
    made.stack.mail.clear_rules()
    say(f"the blows are over; {made.census.latest.pending} pending")
    while time.monotonic() - began < _SETTLE_SECONDS:
        made.look()
        if made.nothing_put_off and made.organisers.all_triggered and made.errands.all_done and _tidy(made):
            break
        time.sleep(_TICK_SECONDS)
    else:
        made.report.findings.append(f"not settled {_SETTLE_SECONDS:.0f} s after the last blow: {_stuck(made)}")
    made.report.seconds_to_settle = time.monotonic() - began
    say(f"settled after {made.report.seconds_to_settle:.1f} s")


def _tidy(made: World) -> bool:
    """Whether nothing is pending; resumes what is paused, and ends claims by hand in a run that is in a hurry."""
    with suppress(psycopg.OperationalError, psycopg.InterfaceError):
        conn = made.connection()
        if conn is None:
            return False
        if made.census.latest.paused:
            made.organisers.resume_all(conn)
        if made.options.hurry:
            conn.execute("UPDATE batch_items SET publish_at = now() WHERE publish_at > now() + interval '5 seconds'")
        return take_snapshot(conn).pending == 0
    return False


def _stuck(made: World) -> str:
    conn = made.connection()
    if conn is None:
        return "PostgreSQL is away"
    rows = conn.execute(
        "SELECT i.batch_id, b.state AS batch, i.member_id, i.roles, i.publish_at - now() AS due_in, i.topic_id,"
        " i.partition, i.kafka_offset, d.slot, d.state, d.fence, d.owner, d.lease_until - now() AS lease, d.reason,"
        " d.batch_id AS by_batch"
        " FROM batch_items i JOIN batches b ON b.id = i.batch_id LEFT JOIN deliveries d ON d.event_id = b.event_id"
        " AND d.member_id = i.member_id WHERE i.settled_at IS NULL ORDER BY 1, 3 LIMIT 10"
    ).fetchall()
    return "\n".join(str(row) for row in rows) or "commands or servers are not done"
