"""The loop of a run: fault after fault while batches run, then quiet until all have settled, then the verification."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from tests.chaos.environment import Environment, Options, open_environment
from tests.chaos.faults import can_inject, inject
from tests.chaos.plan import Fault, schedule
from tests.chaos.report import Report
from tests.chaos.sampling import take_snapshot
from tests.chaos.verification import Verification

_TICK_SECONDS: Final = 0.03
#: Mails that must be accepted between two faults, unless the timeout is over.
_FLOW: Final = 15
#: The share of faults that do not wait: they hit the recovery from the one before.
_AT_ONCE: Final = 0.15
_START_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 180.0

Write = Callable[[str], object]


def run(options: Options, home: Path, write: Write = lambda _: None) -> Report:
    """A whole run in an empty folder. What is wrong is in the report's findings."""
    report = Report(options.seed, options.runner, options.members)
    began = time.monotonic()
    with open_environment(options, home, report) as environment:
        _warm_up(environment)
        _inject_faults(environment, write)
        _settle(environment, write)
        Verification(environment, write).check()
        environment.stop()
        report.exits, report.commands = environment.exits.codes, environment.commands.done
        for process in environment.bidden.processes:
            if process.running:
                report.findings.append(f"still runs: {process}")
        for note in environment.exits.notes:
            write(note)
        report.findings += environment.exits.findings + environment.servers.findings
    report.seconds = time.monotonic() - began
    return report


def _warm_up(environment: Environment) -> None:
    """Until every worker has partitions, and mails flow."""
    end = time.monotonic() + _START_SECONDS
    while environment.tail.count < _FLOW or not environment.replicas.all_assigned():
        assert time.monotonic() < end, "no mails within a minute, before the first fault"
        environment.tick()
        time.sleep(_TICK_SECONDS)


def _inject_faults(environment: Environment, write: Write) -> None:
    """The faults of the plan. One whose target is down waits until the target is back; others go before it."""
    options, report = environment.options, environment.report
    plan, waiting = schedule(options.seed), deque[Fault]()
    began = time.monotonic()
    before = environment.tail.count
    while not _enough(options, report.count, time.monotonic() - began):
        fault = _next(environment, waiting, plan.__next__)
        _pause(environment, fault, before)
        if not can_inject(environment, fault):
            waiting.append(fault)
            continue
        now = environment.sampler.latest
        in_flight, accepted = environment.in_flight(), environment.tail.read()
        report.faults[fault.kind.value] += 1
        report.hit_in_flight += in_flight > 0
        report.mails_between.append(accepted - before)
        target = inject(environment, fault)
        write(
            f"{report.count:5d} {time.monotonic() - began:8.2f} s  {fault.kind.value}: {target}"
            f"  [pending {now.pending}, in flight {in_flight}, unknown {now.unknown},"
            f" mails {accepted}, {accepted - before} since]"
        )
        before = accepted
    report.seconds_of_faults = time.monotonic() - began


def _enough(options: Options, count: int, seconds: float) -> bool:
    if options.minutes is not None and seconds >= options.minutes * 60:
        return True
    return options.faults is not None and count >= options.faults


def _next(environment: Environment, waiting: deque[Fault], draw: Callable[[], Fault]) -> Fault:
    for _ in range(len(waiting)):
        fault = waiting.popleft()
        if can_inject(environment, fault):
            return fault
        waiting.append(fault)
    return draw()


def _pause(environment: Environment, fault: Fault, before: int) -> None:
    """Wait for the fault's gap, and until mails are in flight again and some were accepted since the last fault."""
    began = time.monotonic()
    while True:
        environment.tick()
        passed = time.monotonic() - began
        flows = environment.in_flight() > 0 and environment.tail.count - before >= _FLOW
        if passed >= fault.gap and (flows or fault.pick < _AT_ONCE or passed > environment.options.flow_seconds):
            return
        time.sleep(_TICK_SECONDS)


def _settle(environment: Environment, write: Write) -> None:
    """End all faults, and wait until every batch has ended."""
    began = time.monotonic()
    environment.organisers.quiet = True
    environment.run_scheduled()
    environment.servers.thaw_all()
    environment.stack.mail.clear_rules()
    write(f"the last fault is over; {environment.sampler.latest.pending} pending")
    while time.monotonic() - began < _SETTLE_SECONDS:
        environment.tick()
        if (
            environment.nothing_scheduled
            and environment.organisers.all_triggered
            and environment.commands.all_done
            and _is_settled(environment)
        ):
            break
        time.sleep(_TICK_SECONDS)
    else:
        environment.report.findings.append(
            f"not settled {_SETTLE_SECONDS:.0f} s after the last fault: {_stuck(environment)}"
        )
    environment.report.seconds_to_settle = time.monotonic() - began
    write(f"settled after {environment.report.seconds_to_settle:.1f} s")


def _is_settled(environment: Environment) -> bool:
    """Whether nothing is pending; resumes paused batches, and expires publish claims if the options say so."""
    with suppress(psycopg.OperationalError, psycopg.InterfaceError):
        conn = environment.connection()
        if conn is None:
            return False
        if environment.sampler.latest.paused:
            environment.organisers.resume_all(conn)
        if environment.options.expire_claims:
            conn.execute("UPDATE batch_items SET publish_at = now() WHERE publish_at > now() + interval '5 seconds'")
        return take_snapshot(conn).pending == 0
    return False


def _stuck(environment: Environment) -> str:
    conn = environment.connection()
    if conn is None:
        return "PostgreSQL is down"
    rows = conn.execute(
        "SELECT i.batch_id, b.state AS batch, i.member_id, i.roles, i.publish_at - now() AS due_in, i.topic_id,"
        " i.partition, i.kafka_offset, d.slot, d.state, d.fence, d.owner, d.lease_until - now() AS lease, d.reason,"
        " d.batch_id AS by_batch"
        " FROM batch_items i JOIN batches b ON b.id = i.batch_id LEFT JOIN deliveries d ON d.event_id = b.event_id"
        " AND d.member_id = i.member_id WHERE i.settled_at IS NULL ORDER BY 1, 3 LIMIT 10"
    ).fetchall()
    return "\n".join(str(row) for row in rows) or "commands or restarts are not done"
