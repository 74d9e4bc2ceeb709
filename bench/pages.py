"""The web application's pages over a large directory: the time that its server takes for each of them."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import uvicorn

from bench import bulk_data
from bench.measure import peak_memory_mb
from config.settings import Settings
from db import accounts
from db.accounts import AccountRole
from db.connect import Connection, connect
from embedded import ports
from embedded.postgres import Postgres
from web.app import build
from web.auth import tokens

_WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class PageTiming:
    """The timings of one page, in milliseconds."""

    kind: str
    name: str
    median: float
    p95: float
    size: int


#: Kind, name, address. Of a stream the first event is timed.
_PAGES: Final = (
    ("anchor", "/healthz", "/healthz"),
    ("page", "events", "/events"),
    ("page", "events, searched", "/events?q=evening+17"),
    ("page", "event, over", f"/events/{bulk_data.OVER}"),
    ("page", "event, under way", f"/events/{bulk_data.UNDER_WAY}"),
    ("page", "people to invite", f"/events/{bulk_data.UNTOUCHED}/people"),
    ("page", "people to invite, few left", f"/events/{bulk_data.OVER}/people"),
    ("page", "people already mailed", f"/events/{bulk_data.OVER}/people?reason=already_sent"),
    ("page", "people unknown", f"/events/{bulk_data.OVER}/people?reason=unknown"),
    ("page", "people banned", f"/events/{bulk_data.UNTOUCHED}/people?reason=banned"),
    ("page", "people banned, last page", f"/events/{bulk_data.UNTOUCHED}/people?reason=banned&after=115000"),
    ("page", "people who said no", f"/events/{bulk_data.OVER}/people?reason=declined"),
    ("page", "batches", "/batches"),
    ("page", "batch, over", f"/batches/{bulk_data.BATCH_OVER}"),
    ("page", "batch, under way", f"/batches/{bulk_data.BATCH_UNDER_WAY}"),
    ("page", "entries, deep", f"/batches/{bulk_data.BATCH_OVER}/entries?after=90000&after_role=Student"),
    ("page", "entries sent", f"/batches/{bulk_data.BATCH_OVER}/entries?status=sent"),
    ("page", "entries failed", f"/batches/{bulk_data.BATCH_OVER}/entries?status=failed"),
    (
        "page",
        "entries failed, deep",
        f"/batches/{bulk_data.BATCH_OVER}/entries?status=failed&after=100000&after_role=Student",
    ),
    ("page", "entries unknown", f"/batches/{bulk_data.BATCH_OVER}/entries?status=unknown"),
    ("page", "entries skipped", f"/batches/{bulk_data.BATCH_OVER}/entries?status=skipped"),
    ("page", "entries pending, none", f"/batches/{bulk_data.BATCH_OVER}/entries?status=pending"),
    ("page", "entries pending, half", f"/batches/{bulk_data.BATCH_UNDER_WAY}/entries?status=pending"),
    ("page", "entries left out", f"/batches/{bulk_data.BATCH_OVER}/entries?status=left_out"),
    ("page", "search, common word", f"/batches/{bulk_data.BATCH_OVER}/entries?q=ada"),
    ("page", "search, rare word", f"/batches/{bulk_data.BATCH_OVER}/entries?q=%C3%98rsted"),
    ("page", "search, no match", f"/batches/{bulk_data.BATCH_OVER}/entries?q=nobody+at+all"),
    ("page", "search, an id", f"/batches/{bulk_data.BATCH_OVER}/entries?q={bulk_data.MEMBER}"),
    ("page", "search, rare word failed", f"/batches/{bulk_data.BATCH_OVER}/entries?q=person77&status=failed"),
    ("page", "search, common word pending", f"/batches/{bulk_data.BATCH_UNDER_WAY}/entries?q=grace&status=pending"),
    ("page", "search, left out", f"/batches/{bulk_data.BATCH_OVER}/entries?q=%C3%98rsted&status=left_out"),
    ("page", "audit, without its answer", f"/events/{bulk_data.OVER}/audit"),
    ("page", "question before inviting", f"/events/{bulk_data.UNTOUCHED}/invite"),
    ("page", "question, nearly all invited", f"/events/{bulk_data.OVER}/invite"),
    ("tick", "live, one event", f"/batches/{bulk_data.BATCH_UNDER_WAY}/live"),
    ("fragment", "numbers, none invited yet", f"/events/{bulk_data.UNTOUCHED}/numbers"),
    ("fragment", "numbers, nearly all invited", f"/events/{bulk_data.OVER}/numbers"),
    ("fragment", "audit answer, over", f"/events/{bulk_data.OVER}/audit/answer"),
    ("fragment", "audit answer, 118,000 mails missing", f"/events/{bulk_data.UNTOUCHED}/audit/answer"),
    ("page", "members, searched", "/members?q=lovelace"),
    ("page", "members, no match", "/members?q=nobody+at+all"),
    ("page", "a member", f"/members/{bulk_data.MEMBER}"),
)


@contextmanager
def database(home: Path) -> Iterator[str]:
    """The embedded PostgreSQL alone; yields its address."""
    for folder in ("logs", "run"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    server = Postgres(home, ports.choose({"postgres": None}, {})["postgres"])
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def served(url: str) -> Iterator[httpx.Client]:
    """Serve the application; yields a client that is signed in as an admin."""
    with connect(url, autocommit=True) as conn:
        account = accounts.add(conn, email="ada@bidden.example", name="Ada", role=AccountRole.ADMIN)
        token = tokens.new_token()
        accounts.add_session(conn, account, tokens.digest(token))
    port = ports.choose({"web": None}, {})["web"]
    settings = Settings.model_validate({"database_url": url, "base_url": f"http://127.0.0.1:{port}"})
    server = uvicorn.Server(uvicorn.Config(build(settings), port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=settings.base_url, cookies={"bidden": token}, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def measure(url: str, client: httpx.Client, rounds: int, only: str = "") -> Iterator[PageTiming]:
    """Time every page that is served, `rounds` times after a warm-up.

    The first row is the anchor: it counts 100,000 rows in PostgreSQL.
    """
    with connect(url, autocommit=True) as conn:
        yield _row("anchor", "count(*) over 100,000 rows", rounds, lambda: _count(conn))
    for kind, name, address in _PAGES:
        if (only in name or kind == "anchor") and client.get(address.partition("/live")[0]).status_code != 404:
            yield _row(kind, name, rounds, lambda address=address: _ask(client, address))  # type: ignore[misc]


def export(client: httpx.Client) -> tuple[float, int, int, float]:
    """Download the whole log as CSV: seconds, rows, bytes, and the growth of the process's peak memory in MB."""
    before = peak_memory_mb(os.getpid())
    started, rows, size = time.perf_counter(), 0, 0
    with client.stream("GET", f"/batches/{bulk_data.BATCH_OVER}/log.csv") as response:
        for part in response.iter_raw():
            rows += part.count(b"\n")
            size += len(part)
    return time.perf_counter() - started, rows - 1, size, peak_memory_mb(os.getpid()) - before


def _row(kind: str, name: str, rounds: int, ask: Callable[[], int]) -> PageTiming:
    for _ in range(_WARM_UP):
        ask()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        size = ask()
        times.append((time.perf_counter() - started) * 1000)
    return PageTiming(kind, name, statistics.median(times), statistics.quantiles(times, n=20)[-1], size)


def _ask(client: httpx.Client, address: str) -> int:
    """Bytes of the answer; of a stream those of its first event."""
    with client.stream("GET", address) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{address} answered {response.status_code}")
        if response.headers["content-type"].startswith("text/event-stream"):
            return len(next(response.iter_raw()))
        return sum(len(part) for part in response.iter_raw())


def _count(conn: Connection) -> int:
    conn.execute(
        "SELECT count(*) FROM log_entries WHERE batch_id = %s AND attempts > 0", (bulk_data.BATCH_OVER,)
    ).fetchone()
    return 0
