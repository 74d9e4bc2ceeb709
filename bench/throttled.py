"""A campaign against a mail server that throttles: how long it takes, and how many dialogues are wasted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.environment import EVENT, Environment, wait_for
from bench.throttling_server import Mode, ThrottlingServer
from db import checks, reports
from db.connect import Connection, connect
from producers.plan import plan
from schemas.vocabulary import Audience

COLUMNS = (
    "mode", "mails", "seconds", "mails/s", "sent", "failed", "unknown", "twice", "throttled", "wasted %", "connections",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One campaign."""

    mode: str
    mails: int
    seconds: float
    sent: int
    failed: int
    unknown: int
    twice: int
    throttled: int
    wasted: float
    connections: int


def campaign(
    environment: Environment, rate: float, mode: Mode, *, workers: int, closed: Callable[[float], bool], seconds: float
) -> Result:
    """Invite everybody with so many workers and a dispatcher; until nothing is pending, or `seconds` are over."""
    with ExitStack() as stack, connect(environment.database_url, autocommit=True) as conn:
        server = stack.enter_context(ThrottlingServer(rate, mode, closed))
        for _ in range(workers):
            stack.enter_context(environment.worker("confluent", BIDDEN_SMTP_URL=server.url))
        stack.enter_context(_dispatcher(environment))
        wait_for(lambda: checks.dispatchers(conn) > 0)
        server.began = started = time.monotonic()
        batch_id = plan(conn, event_id=EVENT, audience=Audience.EVERYONE, claim_seconds=0).batch_id
        assert batch_id is not None
        wait_for(lambda: not _pending(conn, batch_id), seconds, every=0.5)
        took = time.monotonic() - started
        status = reports.status(conn, batch_id)
        return Result(
            mode.value,
            status["deliveries"],
            took,
            status["sent"],
            status["failed"],
            status["unknown"],
            sum(count > 1 for count in server.accepted.values()),
            server.throttled,
            100 * server.wasted,
            server.connections,
        )


def _pending(conn: Connection, batch_id: int) -> bool:
    query = "SELECT EXISTS (SELECT FROM batch_items WHERE batch_id = %s AND settled_at IS NULL) AS pending"
    row = conn.execute(query, [batch_id]).fetchone()
    assert row is not None
    return bool(row["pending"])


@contextmanager
def _dispatcher(environment: Environment) -> Iterator[None]:
    log = environment.stack.home / "logs" / f"bench-dispatch-{environment.settings.topic_prefix}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.main", "dispatch"],
            env=environment.variables(),
            cwd=environment.stack.home,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
