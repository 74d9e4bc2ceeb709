"""A streaming standby as the source: its snapshots are as old as what it has replayed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from config.settings import Settings
from db import source_status
from db.source import Source, describe
from db.sync import sync_once
from embedded import ports
from embedded.postgres import Postgres, _binary, _environment
from schemas.source_file import parse
from tests.acceptance.processes import eventually
from tests.integration.scenario import Scenario
from tests.organisations.databases import own_database
from tests.organisations.organisation import PLANNER, Planner

pytestmark = pytest.mark.slow

MAX_AGE = 3.0


def server(home: Path) -> Postgres:
    """One that is not started yet."""
    for folder in ("logs", "run"):
        (home / folder).mkdir(parents=True)
    return Postgres(home, ports.choose({"postgres": None}, {})["postgres"])


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Postgres]:
    """The organisation's server."""
    primary = server(tmp_path / "primary")
    primary.prepare(print)
    primary.start()
    try:
        yield primary
    finally:
        primary.stop()


@pytest.fixture
def standby(primary: Postgres, tmp_path: Path) -> Iterator[Postgres]:
    """Its standby, by streaming replication."""
    standby = server(tmp_path / "standby")
    standby.folder.mkdir(mode=0o711)
    shutil.copy(primary.folder / "password", standby.folder / "password")
    how = ("--write-recovery-conf", "--checkpoint=fast", "--dbname", primary.url)
    subprocess.run([_binary("pg_basebackup"), "--pgdata", standby.data, *how], env=_environment(), check=True)
    owner = primary.data.stat()
    for path in (standby.data, *standby.data.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    standby.prepare(print)
    standby.start()
    try:
        yield standby
    finally:
        standby.stop()


def test_as_old_as_what_it_has_replayed(
    primary: Postgres, standby: Postgres, scenario: Scenario, database_url: str
) -> None:
    """FM-44: while it lags nothing is claimed, however often it is read; who is banned meanwhile gets no mail."""
    settings = Settings(database_url=database_url, source_max_age=f"{MAX_AGE:.0f}s", _env_file=None)  # type: ignore[call-arg, arg-type] # pydantic-settings
    with own_database(primary.url) as url, closing(Planner(settings, url)) as planner:
        planner.add(1, 2)
        there = url.replace(f":{primary.port}/", f":{standby.port}/")
        source = Source(there, "UTC", parse(PLANNER.read_text(encoding="utf-8")))
        eventually(lambda: replays(standby, url.rpartition("/")[2]), "the standby has the database")

        def snapshot() -> bool:
            """Whether claims may go by one that is taken now. The primary is written to all the time."""
            planner.execute("UPDATE members SET updated_at = localtimestamp WHERE id = 2")
            sync_once(settings, source, "test", accept=True)
            status = source_status.read(scenario.conn)
            assert status is not None
            return not status.is_stale

        eventually(snapshot, "a fresh snapshot of the standby")
        scenario._one = True
        batch = scenario.plan(event=planner.event_id)
        agent = scenario.agent()
        with psycopg.connect(standby.url, autocommit=True) as control:
            control.execute("SELECT pg_wal_replay_pause()")
            planner.ban(1)
            eventually(lambda: describe(source).age.total_seconds() > MAX_AGE, "the standby lags")
            assert not snapshot()
            for member in (1, 2):
                assert agent.try_claim(scenario.request(batch, member, event=planner.event_id)) is None
            control.execute("SELECT pg_wal_replay_resume()")
        eventually(snapshot, "the standby has caught up")
        assert agent.try_claim(scenario.request(batch, 1, event=planner.event_id)) is None
        assert agent.try_claim(scenario.request(batch, 2, event=planner.event_id)) is not None
        assert scenario.log(batch)[1, "Student"] == ("skipped", "banned")
        scenario.end_leases()


def replays(standby: Postgres, database: str) -> bool:
    """Whether the standby has the database."""
    with psycopg.connect(standby.url) as conn:
        return conn.execute("SELECT datname FROM pg_database WHERE datname = %s", (database,)).fetchone() is not None
