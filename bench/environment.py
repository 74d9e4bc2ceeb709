"""The environment of a measurement: servers, a directory of a given size, and processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psycopg

from config.clock import now
from config.settings import Settings
from db import checks
from db.connect import connect
from db.directory import import_lines
from db.migrate import upgrade
from demo.generator import DEMO_EVENT_ID, generate
from embedded.stack import Stack
from producers.topics import Topics
from schemas.directory_file import parse_lines

EVENT = DEMO_EVENT_ID
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Environment:
    """One measurement's database, topics and settings, on the servers of the whole run."""

    stack: Stack
    settings: Settings

    @property
    def database_url(self) -> str:
        """The measurement's own database."""
        return self.settings.require_database()

    def variables(self, **extra: str) -> dict[str, str]:
        """The environment variables of this measurement's processes."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BIDDEN_")}
        return {
            **clean,
            "PYTHONPATH": str(ROOT),
            "BIDDEN_DATABASE_URL": self.database_url,
            "BIDDEN_KAFKA_BOOTSTRAP": self.settings.require_kafka(),
            "BIDDEN_SMTP_URL": self.settings.require_smtp(),
            "BIDDEN_TOPIC_PREFIX": self.settings.topic_prefix,
            "BIDDEN_GROUP": self.settings.group,
            **extra,
        }

    @contextmanager
    def worker(self, runner: str, **extra: str) -> Iterator[int]:
        """A worker process with partitions; yields its pid."""
        with self._process("worker", "--runner", runner, **extra) as (process, log):
            wait_for(lambda: "partitions assigned" in log.read_text() or _dead(process, log))
            yield process.pid

    @contextmanager
    def dispatcher(self, **extra: str) -> Iterator[int]:
        """A dispatcher process that is connected; yields its pid."""
        with self._process("dispatch", **extra) as (process, log), connect(self.database_url, autocommit=True) as conn:
            wait_for(lambda: checks.dispatchers(conn) > 0 or _dead(process, log))
            yield process.pid

    @contextmanager
    def _process(self, command: str, *arguments: str, **extra: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        log = self.stack.home / "logs" / f"bench-{command}-{self.settings.topic_prefix}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", command, *arguments],
                env=self.variables(**extra),
                cwd=self.stack.home,
                stdout=output,
                stderr=output,
            )
        try:
            yield process, log
        finally:
            process.terminate()
            process.wait(30)


def _dead(process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the process ended: {log.read_text()[-2000:]}")
    return False


def wait_for(condition: Callable[[], bool], seconds: float = 300, every: float = 0.02) -> None:
    """Wait until the condition holds; RuntimeError when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("the measurement has timed out")
        time.sleep(every)


_count = 0


def prepare(stack: Stack, members: int) -> Environment:
    """A fresh database with a directory for that many planned members, and fresh topics."""
    return prepare_filled(stack, lambda url: _fill(url, members))


def prepare_filled(stack: Stack, fill: Callable[[str], None]) -> Environment:
    """A fresh database that `fill` migrates and fills, and fresh topics."""
    global _count
    _count += 1
    name = f"bench_{_count}"
    base = stack.addresses.database_url
    with psycopg.connect(base, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        conn.execute(f"CREATE DATABASE {name}")
    url = base.rpartition("/")[0] + "/" + name
    fill(url)
    settings = Settings.model_validate(
        {
            "database_url": url,
            "kafka_bootstrap": stack.addresses.kafka_bootstrap,
            "smtp_url": stack.addresses.smtp_url,
            "topic_prefix": f"bench-{_count}-{os.getpid()}",
            "group": f"bench-{_count}-{os.getpid()}",
        }
    )
    Topics(settings).create()
    return Environment(stack, settings)


def _fill(url: str, members: int) -> None:
    upgrade(url)
    lines = b"\n".join(orjson.dumps(line) for line in generate(members, now=now()))
    with connect(url) as conn:
        import_lines(conn, parse_lines(io.BytesIO(lines)))
