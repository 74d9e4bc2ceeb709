"""Task queues against this product, in turn, on the same PostgreSQL and the same sink. Needs the extra `bench`.

Redis comes from the system's packages (`redis-server`), and stores nothing on disk: a queue is not made slower than its
users would have it. What each keeps differs: Celery and dramatiq keep a row that they have sent, procrastinate its job,
listmonk a position in its list, this product claims, fences, outcomes and a log for each batch.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Final, LiteralString

from bench import end_to_end
from bench.environment import ROOT, Environment, prepare, wait_for
from bench.measure import calibrate, cpu_seconds
from bench.queues import on_listmonk
from db.connect import connect
from embedded.ports import HOST, is_free
from embedded.stack import Stack

COLUMNS: Final = ("queue", "mails/s", "spread", "CPU-s/1000", "workers", "postgres", "broker", "sink", "calibration s")
_PORT: Final = 23_900


@dataclass(frozen=True)
class Peer:
    """`module` has `enqueue` and is what `command` runs. `done` counts what it calls sent; None: the sink does.

    One that is counted at the sink is measured from its first mail, because it looks for campaigns only now and then;
    its mail to the operator about each campaign counts, too.
    """

    name: str
    module: str
    command: tuple[str, ...]
    done: LiteralString | None
    needs_redis: bool = True


_LOG: Final[LiteralString] = "SELECT count(*) AS n FROM queue_log"
PEERS: Final = (
    Peer(
        "Celery, Redis, 2 processes",
        "on_celery",
        ("-m", "celery", "-A", "bench.queues.on_celery", "worker", "-c", "2", "-l", "ERROR", "--without-gossip",
         "--without-mingle", "--without-heartbeat"),
        _LOG,
    ),
    Peer(
        "dramatiq, Redis, 2 processes of 8 threads",
        "on_dramatiq",
        ("-m", "dramatiq", "bench.queues.on_dramatiq", "--processes", "2", "--threads", "8"),
        _LOG,
    ),
    Peer(
        "procrastinate, PostgreSQL, 50 tasks",
        "on_procrastinate",
        ("-m", "bench.queues.on_procrastinate"),
        "SELECT count(*) AS n FROM procrastinate_jobs WHERE status = 'succeeded'",
        needs_redis=False,
    ),
    Peer("listmonk, 10 senders", "on_listmonk", ("-m", "bench.queues.on_listmonk"), None, needs_redis=False),
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """One campaign. CPU seconds are per 1,000 mails, by group of processes."""

    mails_per_second: float
    cpu: dict[str, float]
    calibration: float


def measure(stack: Stack, mails: int, rounds: int, only: str = "") -> Iterator[tuple[str, ...]]:
    """A row for this product and for each peer that is installed: medians of rounds that took turns.

    `only` those whose name contains this.
    """
    found: dict[str, list[Figures]] = defaultdict(list)
    with _redis() as redis:
        wanted = [peer for peer in PEERS if only in peer.name]
        missing = {peer.name: why for peer in wanted if (why := _missing(peer, redis))}
        peers = [peer for peer in wanted if peer.name not in missing]
        for _ in range(rounds):
            found["this product, one worker"].append(_ours(stack, mails))
            for peer in peers:
                found[peer.name].append(_campaign(stack, peer, mails, redis))
    for name, figures in found.items():
        speeds = [each.mails_per_second for each in figures]
        parts = ("worker", "postgres", "broker", "sink")
        cpu = [statistics.median(each.cpu[part] for each in figures) for part in parts]
        yield (
            name,
            f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}",
            f"{statistics.median(sum(each.cpu.values()) for each in figures):.3f}",
            *(f"{each:.3f}" for each in cpu),
            f"{statistics.median(each.calibration for each in figures):.3f}",
        )
    for name, why in missing.items():
        yield (name, why, *[""] * (len(COLUMNS) - 2))


def _missing(peer: Peer, redis: subprocess.Popen[bytes] | None) -> str | None:
    """What the peer needs and is not there."""
    if peer.done is None:
        return on_listmonk.missing()
    if find_spec(peer.module.removeprefix("on_")) is None:
        return "not installed (extra bench)"
    return f"no redis-server, or port {_PORT} is taken" if peer.needs_redis and redis is None else None


def _ours(stack: Stack, mails: int) -> Figures:
    result = end_to_end.campaign(prepare(stack, mails), "confluent", mails)
    cpu = {name: result.cpu[name] for name in ("postgres", "sink")}
    cpu |= {"worker": result.cpu["worker"] + result.cpu["trigger"], "broker": result.cpu["kafka"]}
    return Figures(result.mails_per_second, cpu, result.calibration)


def _campaign(stack: Stack, peer: Peer, mails: int, redis: subprocess.Popen[bytes] | None) -> Figures:
    """From the first task that is enqueued to the last mail that the queue calls sent."""
    calibration = calibrate()
    environment = prepare(stack, 15)
    variables = _variables(environment)
    with connect(environment.database_url, autocommit=True) as conn, ExitStack() as cleanup:
        conn.execute("CREATE TABLE queue_log (id bigint PRIMARY KEY, status text, at timestamptz DEFAULT now())")
        if not peer.needs_redis:
            _python(variables, f"from bench.queues import {peer.module}; {peer.module}.apply_schema()")
        worker = cleanup.enter_context(_worker(peer, variables))
        count = partial(_count, conn, peer.done) if peer.done is not None else stack.mail.count
        sent = count()
        # It is ready when it has done a task.
        _python(variables, f"from bench.queues import {peer.module}; {peer.module}.enqueue(range(1, 2))")
        wait_for(lambda: count() >= sent + 1)
        groups = {"worker": worker.pid, "postgres": stack.postgres.pid, "sink": stack.mail.pid}
        groups["broker"] = redis.pid if redis is not None and peer.needs_redis else None
        enqueue = f"from bench.queues import {peer.module}; {peer.module}.enqueue(range(2, {mails + 2}))"
        if peer.done is None:
            _python(variables, enqueue)
            wait_for(lambda: count() > sent + 1, seconds=60)
        before = {name: cpu_seconds([pid]) for name, pid in groups.items() if pid}
        ended, start, first = sum(os.times()[2:4]), time.perf_counter(), count()
        if peer.done is not None:
            _python(variables, enqueue)
        wait_for(lambda: count() >= sent + mails + 1, seconds=1800, every=0.25)
        seconds, measured = time.perf_counter() - start, sent + mails + 1 - first
        cpu = {name: cpu_seconds([pid]) - before[name] if pid else 0.0 for name, pid in groups.items()}
        # Who enqueues is the only child that has ended meanwhile.
        cpu["worker"] += sum(os.times()[2:4]) - ended
    return Figures(measured / seconds, {name: value / measured * 1000 for name, value in cpu.items()}, calibration)


def _variables(environment: Environment) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENCH_DATABASE_URL": environment.database_url,
        "BENCH_SMTP_URL": environment.settings.require_smtp(),
        "BENCH_REDIS_URL": f"redis://{HOST}:{_PORT}/0",
    }


def _python(variables: dict[str, str], code: str) -> None:
    subprocess.run([sys.executable, "-c", code], env=variables, cwd=ROOT, check=True)


def _count(conn: Any, statement: LiteralString) -> int:
    row = conn.execute(statement).fetchone()
    return int(row["n"])


@contextmanager
def _worker(peer: Peer, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *peer.command],
        env=variables,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _redis() -> Iterator[subprocess.Popen[bytes] | None]:
    """A Redis of our own that stores nothing; None where there is no redis-server."""
    binary = shutil.which("redis-server")
    if binary is None or not is_free(_PORT):
        yield None
        return
    process = subprocess.Popen(
        [binary, "--port", str(_PORT), "--bind", HOST, "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: not is_free(_PORT))
        yield process
    finally:
        process.terminate()
        process.wait()
