"""Fixtures on real servers: PostgreSQL and Kafka for the session; a database, topics and a mail sink for each test."""

from __future__ import annotations

import gc
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog

from config.settings import Settings
from db.connect import Connection, connect
from embedded import ports
from embedded.mail_server import MailServer
from producers.topics import Topics
from tests import java_cache, servers
from tests.acceptance.processes import heed_hang_ups
from tests.databases import Databases
from tests.servers import Servers


def pytest_configure() -> None:
    """Processes inherit what their parent ignores, and keep what they compile."""
    heed_hang_ups()
    # A logger that is kept goes on writing where the test that used it first had it write, and no other sees it.
    configure = structlog.configure
    patch.object(structlog, "configure", lambda **how: configure(**how | {"cache_logger_on_first_use": False})).start()
    # Tests start the command line thousands of times: where the environment says so, each would compile it again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, and the longest of all before them: the others fill the gaps at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name != "chaos"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Brokers get their cache of classes, if tests of this run start any."""
    wanted = servers.embedded_installed() and not session.config.option.collectonly
    # `-p no:cacheprovider` leaves none.
    cache = getattr(session.config, "cache", None)
    if wanted and cache is not None and any(_needs_servers(item) for item in session.items):
        java_cache.use(cache.mkdir("java"))
    # Thousands of tests and all modules stay to the end: the collector need not walk them again and again.
    gc.collect()
    gc.freeze()


def _needs_servers(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None or "real_servers" in getattr(item, "fixturenames", ())


def pytest_report_header() -> str:
    """Report which servers the session runs on."""
    return f"servers: {_source().value}"


def _source() -> servers.Source:
    return servers.choose(
        docker=servers.docker_answers(), embedded=servers.embedded_installed(), environment=os.environ
    )


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the BIDDEN_ variables, and with them the servers, of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith("BIDDEN_") and not name.startswith("BIDDEN_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL and Kafka."""
    with servers.start(_source(), tmp_path_factory.mktemp("servers"), os.environ) as running:
        yield running


@pytest.fixture(scope="session")
def databases(real_servers: Servers) -> Iterator[Databases]:
    """The pool of migrated, empty databases."""
    databases = Databases(real_servers.postgres)
    yield databases
    databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A migrated, empty database."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    """An autocommit connection to the test's database."""
    with connect(database_url, application="test", autocommit=True) as connection:
        yield connection


@contextmanager
def fresh_sink(home: Path) -> Iterator[MailServer]:
    """A mail sink with this folder."""
    for folder in ("logs", "run"):
        (home / folder).mkdir(parents=True)
    sink = MailServer(home, ports.choose({"smtp": None}, {})["smtp"])
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


@pytest.fixture
def mail_sink(tmp_path: Path) -> Iterator[MailServer]:
    """A mail sink of the test's own; `set_rules` makes it misbehave."""
    with fresh_sink(tmp_path / "mail-home") as sink:
        yield sink


@pytest.fixture
def settings_for(real_servers: Servers, database_url: str, mail_sink: MailServer) -> Callable[..., Settings]:
    """Make settings for the test's own database, topics, group and mail sink; keywords override."""
    own = {"database_url": database_url, "kafka_bootstrap": real_servers.kafka, "smtp_url": mail_sink.url}
    return partial(quick_settings, uuid.uuid4().hex[:8], **own)


def quick_settings(unique: str, **settings: Any) -> Settings:
    """These settings, with topics and a group of their own, and with a short lease and back-off unless given."""
    values: dict[str, Any] = {
        "topic_prefix": f"test-{unique}",
        "group": f"workers-{unique}",
        "partitions": 4,
        "lease_seconds": 5,
        "retry_base_seconds": 0.2,
    }
    return Settings(**{**values, **settings})


@pytest.fixture
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """Settings whose topics exist."""
    made = settings_for()
    Topics(made).create()
    return made
