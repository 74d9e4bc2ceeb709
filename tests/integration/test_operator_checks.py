"""The checks of `doctor` in the database and on the topic, each with a seeded violation, and the rows that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import LiteralString

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from config.kafka import client_config
from config.settings import Settings
from db import checks, samples
from db.connect import Connection, connect
from db.migrate import drift
from monitoring.checks import CheckResult, run_checks, stalled_partitions
from monitoring.source import check_snapshot, check_source
from producers import batch_control
from producers.topics import Topics
from schemas.errors import RefusedError
from schemas.outcomes import Failed, Sent
from tests.integration.scenario import OTHER_TOPIC, Scenario, open_scenario
from tests.integration.snapshots import MADE_UP, set_aside, snapshot

HELD: LiteralString = "UPDATE deliveries SET state = 'handing_off', owner = 'x', fence = 1, lease_until = now() "
#: A change to one batch with member 1 sent, 2 failed and 3 open; the check that finds it; the row that it names.
LEFTOVERS: list[tuple[LiteralString, str, str]] = [
    ("UPDATE batch_items SET settled_at = now(), publish_at = NULL WHERE member_id = 3", "planned without item",
     "1/invite/3/Student"),
    ("UPDATE batch_items SET publish_at = NULL WHERE member_id = 3", "stuck items", "1/3"),
    ("UPDATE batch_items SET publish_at = now() - interval '2 minutes' WHERE member_id = 3", "overdue items", "1/3"),
    ("UPDATE batches SET unapplied_since = now() - interval '2 minutes'", "unapplied decisions", "1"),
    ("UPDATE batches SET planning = '{}', started_at = now() - interval '9 minutes'", "waiting to be planned", "1"),
    ("INSERT INTO batch_items (batch_id, member_id, roles) VALUES (1, 999, '{Student}')", "items set aside", "1/999"),
    ("UPDATE batch_items SET roles = '{Guest}' WHERE member_id = 3", "items set aside", "1/3"),
    ("DELETE FROM deliveries WHERE member_id = 3", "items set aside", "1/3"),
    (HELD + "- interval '1 hour' WHERE member_id = 3", "expired leases", "1/invite/3/Student"),
    (HELD + "+ interval '1 year' WHERE member_id = 3", "times far ahead", "1/invite/3/Student"),
    ("UPDATE deliveries SET state = 'retry', not_before = 'infinity' WHERE member_id = 3", "times far ahead",
     "1/invite/3/Student"),
    ("UPDATE batch_items SET publish_at = 'infinity' WHERE member_id = 3", "times far ahead", "1/3"),
    ("UPDATE log_entries SET status = 'sent' WHERE member_id = 2", "logs without ledger", "1/2"),
    ("INSERT INTO log_entries VALUES (77, 3, 'Student', 'Student', 'sent', NULL, 1, now())", "entries without item",
     "77/3"),
    ("DELETE FROM log_entries WHERE member_id = 2", "settled without entry", "1/2"),
    ("UPDATE deliveries SET batch_id = 77 WHERE member_id = 2", "claims without batch", "1/invite/2/Student"),
    ("UPDATE deliveries SET member_id = 99 WHERE member_id = 2", "rows without origin", "1/invite/99/Student"),
    ("UPDATE invitations SET event_id = 77 WHERE member_id = 2", "rows without origin", "77/Student/2"),
    ("UPDATE batch_items SET batch_id = 77 WHERE member_id = 2", "rows without origin", "77/2"),
    ("UPDATE deliveries SET slot = 'member' WHERE member_id = 3", "slots of other policy", "1/invite/3/member"),
]  # fmt: skip


@pytest.fixture
def leftover_world(database_url: str) -> Iterator[Scenario]:
    """A scenario whose invariants a test violates on purpose: they are not checked at the end."""
    with connect(database_url, application="test", autocommit=True) as conn:
        scenario = Scenario(conn).build(students=[1, 2, 3])
        batch, agent = scenario.plan(), scenario.agent()
        agent.deliver(scenario.request(batch, 1))
        agent.deliver(scenario.request(batch, 2), Failed("550"))
        yield scenario
        scenario.close()


def wrong(conn: Connection) -> dict[str, tuple[str, ...]]:
    """The checks that found violations, with the names."""
    return {found.check: found.names for found in checks.violations(conn) if found.count}


def test_nothing_is_wrong_with_a_batch_under_way(scenario: Scenario) -> None:
    """Planned, published, claimed, retried, paused, resumed, cancelled, cleaned: no check finds a violation."""
    scenario.build(students=range(1, 9), both=[9])
    batch, agent = scenario.plan("everyone"), scenario.agent()
    assert wrong(scenario.conn) == {}
    scenario.publish()
    agent.deliver(scenario.request(batch, 1))
    agent.deliver(scenario.request(batch, 2), Failed("550"))
    agent.claim(scenario.request(batch, 3))
    assert wrong(scenario.conn) == {}
    batch_control.pause(scenario.conn, batch)
    assert wrong(scenario.conn) == {}
    batch_control.resume(scenario.conn, batch)
    batch_control.retry(scenario.conn, batch)
    assert wrong(scenario.conn) == {}
    batch_control.cancel(scenario.conn, batch)
    assert wrong(scenario.conn) == {}
    scenario.end_leases()
    agent.try_claim(scenario.request(batch, 3))
    batch_control.clean_up(scenario.conn, timedelta(0))
    assert wrong(scenario.conn) == {}


@pytest.mark.parametrize(("leftover", "check", "name"), LEFTOVERS)
def test_a_leftover_is_named(leftover_world: Scenario, leftover: LiteralString, check: str, name: str) -> None:
    """FM-18: an impossible row is found, named and counted, and breaks nothing that reads the tables."""
    scenario = leftover_world
    assert wrong(scenario.conn) == {}
    scenario.execute(leftover)
    found = wrong(scenario.conn)
    assert name in found[check], found
    batch = 1
    scenario.status(batch)
    scenario.log(batch)
    scenario.audit()
    agent = scenario.agent()
    agent.run_cycle(claim=[scenario.request(batch, number) for number in (1, 2, 3, 999)])
    scenario.publish()
    scenario.find_lost({0: 1000}, OTHER_TOPIC)
    for decision in (batch_control.pause, batch_control.resume, batch_control.cancel):
        # Refused where the agent has just completed the batch.
        with suppress(RefusedError):
            decision(scenario.conn, batch)
    # It keeps no item open, except for deliveries in flight.
    left = scenario.execute("SELECT i.member_id FROM batch_items i WHERE settled_at IS NULL")
    held = scenario.execute("SELECT member_id FROM deliveries WHERE state = 'handing_off'")
    assert {row["member_id"] for row in left} <= {row["member_id"] for row in held}
    batch_control.clean_up(scenario.conn, timedelta(0))


def test_what_is_set_aside_is_not_published_for_ever(leftover_world: Scenario) -> None:
    """FM-18: an item that no worker can settle is published once, and not found lost for ever."""
    scenario = leftover_world
    scenario.execute(
        "INSERT INTO batch_items (batch_id, member_id, roles, publish_at, position) VALUES"
        " (1, 999, '{Student}', now(), 4)"
    )
    scenario.make_due()
    assert scenario.publish() == 2
    assert scenario.find_lost({0: 1000}) == 1
    assert wrong(scenario.conn) == {"items set aside": ("1/999",)}
    lost = checks.lost_items(scenario.conn, scenario.offsets({0: 1000}, OTHER_TOPIC))
    assert lost.count == 0


def test_lost_items_are_counted(leftover_world: Scenario) -> None:
    """Lost items are counted until a dispatcher makes them due."""
    scenario = leftover_world
    scenario.make_due()
    scenario.publish()
    assert checks.lost_items(scenario.conn, scenario.offsets({0: 0})).count == 0
    found = checks.lost_items(scenario.conn, scenario.offsets({0: 1000}))
    assert (found.count, found.names) == (1, ("1/3",))
    assert scenario.find_lost({0: 1000}) == 1
    assert checks.lost_items(scenario.conn, scenario.offsets({0: 1000})).count == 0


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("DROP TRIGGER deliveries_sent_is_final ON deliveries", "deliveries_sent_is_final"),
        ("ALTER TABLE deliveries DISABLE TRIGGER deliveries_sent_is_kept", "deliveries_sent_is_kept"),
        ("ALTER TABLE deliveries DROP CONSTRAINT ck_deliveries_state", "ck_deliveries_state"),
        ("DROP INDEX ix_batch_items_due", "ix_batch_items_due"),
        ("ALTER TABLE batches DROP CONSTRAINT uq_batches_trigger_key", "uq_batches_trigger_key"),
        ("ALTER TABLE batches DROP COLUMN first_error", "first_error"),
    ],
)
def test_a_changed_schema_is_named(conn: Connection, database_url: str, change: LiteralString, missing: str) -> None:
    """FM-18: a constraint or trigger that was dropped, or disabled, is drift, and is named."""
    assert drift(database_url) == []
    conn.execute(change)
    assert any(missing in difference for difference in drift(database_url)), drift(database_url)


def test_clocks_that_differ(conn: Connection) -> None:
    """The round trip to the database is no skew; a difference of seconds is."""
    (now,) = [row["now"] for row in conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")]

    def ticking(start: float) -> Iterator[float]:
        yield start
        yield start + 1.5

    assert checks.clock_skew(conn, ticking(now - 0.7).__next__) == 0
    assert checks.clock_skew(conn, ticking(now - 10).__next__) == pytest.approx(8.5, abs=1)
    assert checks.clock_skew(conn, ticking(now + 10).__next__) == pytest.approx(-10, abs=1)


def findings(settings: Settings) -> dict[str, CheckResult]:
    """The results of `doctor`, without its wait between two reads of the commits."""
    return {finding.check: finding for finding in run_checks(settings, sleep=lambda _: None)}


def test_stalled_partitions(settings: Settings, conn: Connection) -> None:
    """FM-21: partitions whose messages no worker reads are named, until their offsets are committed."""
    assert findings(settings)["stalled partitions"].ok
    producer = Producer(client_config(settings, "test"), logger=None)
    for _ in range(3):
        producer.produce(settings.invitations_topic, b"{}", b"1", partition=2)
    assert producer.flush(30) == 0
    found = findings(settings)
    assert not found["lag"].ok
    assert found["stalled partitions"] == CheckResult(
        "stalled partitions", ok=False, detail="partition 2: 3 messages wait from offset 0 on, and no worker has it"
    )
    topics = Topics(settings)
    assert topics.move_group({2: 3})
    assert stalled_partitions(topics, None, lambda _: None) == []

    def commit(_: float) -> None:
        topics.move_group({2: 2})

    topics.move_group({2: 1})
    assert stalled_partitions(topics, None, commit) == []


def test_servers_that_an_earlier_instance_left_behind(settings: Settings) -> None:
    """FM-18: addresses of a `bidden up` that has ended are named; without such a folder there is no check."""
    assert "embedded servers" not in findings(settings)
    settings = settings.model_copy(update={"home": settings.home.absolute() / "nowhere"})
    assert "embedded servers" not in findings(settings)


def test_stale_addresses(settings: Settings, tmp_path: Path) -> None:
    """Servers in `settings.env` that are not running fail a check, which tells what to do."""
    (tmp_path / "settings.env").write_text(f"BIDDEN_DATABASE_URL={settings.require_database()}\n")
    found = findings(settings.model_copy(update={"home": tmp_path}))["embedded servers"]
    assert not found.ok
    assert "bidden up" in found.detail


def test_a_lease_that_is_held_is_not_stuck(database_url: str) -> None:
    """A worker that renews its lease is at work, however long its mail takes."""
    for scenario in open_scenario(database_url):
        scenario.build(students=[1])
        batch, agent = scenario.plan(), scenario.agent()
        claim = agent.claim(request := scenario.request(batch, 1))
        agent.run_cycle(renew=[(request, claim.fence)])
        assert wrong(scenario.conn) == {}
        agent.record(request, claim, Sent("250"))


@pytest.fixture
def source(settings: Settings, database_url: str, tmp_path: Path) -> Settings:
    """Settings of a source whose queries fit: the ledger's own database, and rows that it makes up."""
    file = tmp_path / "source.sql"
    file.write_text(MADE_UP)
    found = {"source_url": SecretStr(database_url), "source_file": file, "source_time_zone": "Europe/Oslo"}
    return settings.model_copy(update=found)


def test_no_source(settings: Settings, conn: Connection) -> None:
    """Without one there is no check of it."""
    assert list(check_source(settings)) == []
    assert list(check_snapshot(conn, settings)) == []


def test_a_source_that_fits(source: Settings) -> None:
    """It is read, and named without its password."""
    ((check, ok, detail),) = check_source(source)
    assert (check, ok) == ("source", True)
    assert "the 7 queries fit" in detail
    assert "PostgreSQL" in detail


@pytest.mark.parametrize("missing", ["url", "file", "time_zone"])
def test_a_setting_alone(source: Settings, missing: str) -> None:
    """One without the others is named."""
    ((_, ok, detail),) = check_source(source.model_copy(update={f"source_{missing}": None}))
    assert (ok, detail) == (False, f"BIDDEN_SOURCE_{missing.upper()} is not set")


def test_a_source_that_does_not_fit(source: Settings) -> None:
    """A query that fails, a column of another type, and a database that is away are named."""
    assert source.source_file is not None
    text = source.source_file.read_text()
    for there, instead, expected in (
        ("'M' AS name", "'M' AS surname", "the query member: the column name is missing"),
        ("1 AS member_id, 1 AS group_id", "nothing", "the query subscription fails in the source: "),
        ("true AS permanent", "'yes'::text AS permanent", "the query ban: permanent has the type text"),
    ):
        source.source_file.write_text(text.replace(there, instead))
        ((_, ok, detail),) = check_source(source)
        assert not ok
        assert expected in detail
    source.source_file.write_text(text)
    away = SecretStr("postgresql://reader:sesame@127.0.0.1:1/own")
    ((_, ok, detail),) = check_source(source.model_copy(update={"source_url": away}))
    assert not ok
    assert "127.0.0.1:1" in detail
    assert "sesame" not in detail


def test_snapshots(source: Settings, settings: Settings, conn: Connection) -> None:
    """None yet, a fresh one, one that is too old, one with a problem, and what was set aside."""
    ((check, ok, detail),) = check_snapshot(conn, source)
    assert (check, ok) == ("snapshot", False)
    assert "none was taken yet" in detail
    snapshot(conn, age=5, limit=3600)
    assert [(check, ok) for check, ok, _ in check_snapshot(conn, settings)] == [
        ("snapshot", True), ("lines set aside", True),
    ]  # fmt: skip
    snapshot(conn, age=600)
    (_, ok, detail), _ = check_snapshot(conn, settings)
    assert not ok
    assert "10 min ago; at most 60 s are allowed" in detail
    assert "claims wait" in detail
    snapshot(conn, limit=None, problem="the query member fails in the source: x")
    (_, ok, detail), _ = check_snapshot(conn, settings)
    assert not ok
    assert "none was taken: the query member fails in the source: x" in detail
    for number in range(1, 8):
        set_aside(conn, "member", str(number), "is no address", field="email", member=number)
    _, (check, ok, detail) = check_snapshot(conn, settings)
    assert (check, ok) == ("lines set aside", False)
    assert detail.startswith("7 of the newest snapshot: member 1, email: is no address; ")
    assert detail.endswith("; …")
    assert {"snapshot", "lines set aside"} <= findings(settings).keys()


def test_items_that_wait_for_the_source(scenario: Scenario) -> None:
    """No dispatcher is missing while the newest snapshot is too old: nothing is published then."""
    scenario.build(students=[1])
    scenario.plan()
    scenario.execute("UPDATE batch_items SET publish_at = now() - interval '2 minutes'")
    assert wrong(scenario.conn) == {"overdue items": ("1/1",)}
    assert samples.due(scenario.conn).items == 1
    snapshot(scenario.conn, age=61)
    assert wrong(scenario.conn) == {}
    assert samples.due(scenario.conn).items == 0


def test_a_batch_that_waits_to_be_placed(scenario: Scenario, settings: Settings) -> None:
    """FM-45: nothing is due meanwhile; after five minutes a person should look."""
    conn = scenario.conn
    snapshot(conn, limit=None)
    scenario.execute("UPDATE directory_source SET places = true")
    scenario.build(students=[1])
    scenario.plan()
    scenario.execute("UPDATE batch_items SET publish_at = now() - interval '2 minutes'")
    assert wrong(conn) == {}
    assert samples.due(conn).items == 0
    _, (check, ok, detail), _ = check_snapshot(conn, settings)
    assert (check, ok) == ("placing", True)
    scenario.execute("UPDATE batches SET started_at = now() - interval '10 minutes'")
    _, (check, ok, detail), _ = check_snapshot(conn, settings)
    assert (check, ok) == ("placing", False)
    assert "1 of the batches wait until the source has their invitations, one for 10 min" in detail
    scenario.execute("UPDATE batches SET needs_placing = false")
    _, (check, ok, detail), _ = check_snapshot(conn, settings)
    assert (ok, detail) == (True, "the source has the invitations of every batch")
    assert wrong(conn) == {"overdue items": ("1/1",)}


def test_a_batch_that_the_source_does_not_take(scenario: Scenario, settings: Settings) -> None:
    """FM-46: after an hour a person should look; before, a batch of the source's own may be in the way."""
    conn = scenario.conn
    snapshot(conn, limit=None)
    scenario.build(students=[1])
    batch = scenario.plan()
    scenario.execute(f"INSERT INTO reported_batches VALUES ({batch}, NULL, false, NULL, now())")
    _, (check, ok, detail), _ = check_snapshot(conn, settings)
    assert (check, ok, detail) == ("outcomes given back", True, "the source takes those of every batch")
    scenario.execute("UPDATE batches SET started_at = now() - interval '2 hours'")
    _, (_, ok, detail), _ = check_snapshot(conn, settings)
    assert not ok
    assert "1 of the batches that began more than 60 min ago are refused" in detail
    assert f"first batch {batch}: what does" in detail
    scenario.execute("UPDATE reported_batches SET refused_at = NULL")
    _, (_, ok, _), _ = check_snapshot(conn, settings)
    assert ok
