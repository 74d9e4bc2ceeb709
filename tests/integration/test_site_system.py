"""The system pages: lag, servers and health checks, with real servers and without them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from config.kafka import client_config
from config.settings import Settings
from embedded import ports
from monitoring import probe
from producers.topics import Topics
from schemas.errors import UnreachableError
from tests.acceptance.processes import eventually
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text

PARTS = ("/system/lag", "/system/servers", "/system/doctor")
HTMX = {"HX-Request": "true"}


@pytest.fixture
def site(scenario: Scenario, settings: Settings, database_url: str) -> Iterator[Site]:
    """A site with all servers."""
    assert settings.smtp_url is not None
    names = ("kafka_bootstrap", "topic_prefix", "group", "smtp_url")
    with open_site(database_url, scenario.conn, **{name: getattr(settings, name) for name in names}) as site:
        yield site


def test_lag(site: Site, settings: Settings) -> None:
    """Offsets, lag and worker of each partition."""
    producer = Producer(client_config(settings, "test"), logger=None)
    for _ in range(5):
        producer.produce(settings.invitations_topic, b"x", partition=1)
    assert producer.flush(30) == 0
    worker = Consumer({**client_config(settings, "a-worker"), "group.id": settings.group}, logger=None)
    try:
        worker.subscribe([settings.invitations_topic])

        def has_joined() -> bool:
            worker.poll(0.1)
            return len(worker.assignment()) == settings.partitions

        eventually(has_joined, "the worker has its partitions")
        worker.commit(offsets=[TopicPartition(settings.invitations_topic, 1, 2)], asynchronous=False)
        browser = site.admin()
        part = browser.get("/system/lag", headers=HTMX)
        text = page_text(part)
        assert part.status_code == 200
        assert "Total lag: 3 messages . 1 worker is running." in text
        assert re.search(r"a-worker at \S+: partitions 0, 1, 2, 3", text)
        assert re.search(r"1 0 2 5 3 a-worker at", text)
        assert re.search(r"0 0 none yet 0 0 a-worker at", text)
        assert "<html" not in part.text
    finally:
        worker.close()
    assert Topics(settings).member_count() == 0


def test_servers(site: Site, settings: Settings) -> None:
    """All servers are reachable; versions, topic ids, and that no dispatcher is running."""
    browser = site.admin()
    text = page_text(browser.get("/system/servers"))
    assert re.search(r"PostgreSQL ok version \d+", text)
    assert "1 broker at" in text
    assert f"topic {settings.invitations_topic}, id {Topics(settings).topic_id()}" in text
    assert "Mail server ok" in text
    assert "0 dispatchers are running: nothing is published until you start one" in text
    page = browser.get("/system")
    assert 'hx-get="/system/lag"' in page.text
    for path in ("/system", *PARTS[:2]):
        assert not re.search(r"<[^>]*\s(style|on\w+)=", browser.get(path).text)


def test_doctor(site: Site) -> None:
    """The checks of `bidden doctor`."""
    text = page_text(site.admin().get("/system/doctor"))
    assert "All checks passed." in text
    assert "schema ok revision" in text
    assert "mail server ok smtp://127.0.0.1" in text


def test_servers_away(scenario: Scenario, database_url: str) -> None:
    """The page describes each outage, and still shows the other servers."""
    port = ports.choose({"kafka": None}, {})["kafka"]
    away = {"kafka_bootstrap": f"127.0.0.1:{port}", "smtp_url": f"smtp://127.0.0.1:{port}"}
    with open_site(database_url, scenario.conn, **away) as site:
        browser = site.admin()
        lag, servers = browser.get("/system/lag"), browser.get("/system/servers")
        assert (lag.status_code, servers.status_code) == (200, 200)
        assert f"Kafka cannot be reached at 127.0.0.1:{port}" in page_text(lag)
        text = page_text(servers)
        assert "PostgreSQL ok" in text
        assert f"Kafka not ok Kafka cannot be reached at 127.0.0.1:{port}" in text
        assert f"Mail server not ok cannot reach mail server 127.0.0.1:{port}" in text


def test_settings_missing(scenario: Scenario, database_url: str) -> None:
    """The page names them."""
    with open_site(database_url, scenario.conn) as site:
        browser = site.admin()
        assert "BIDDEN_KAFKA_BOOTSTRAP is not set" in page_text(browser.get("/system/lag"))
        servers = page_text(browser.get("/system/servers"))
        assert "BIDDEN_KAFKA_BOOTSTRAP is not set" in servers
        assert "BIDDEN_SMTP_URL is not set" in servers
        findings = page_text(browser.get("/system/doctor"))
        assert "2 checks failed." in findings
        assert "kafka not ok BIDDEN_KAFKA_BOOTSTRAP is not set" in findings
        assert "database ok" in findings


def test_for_admins_only(scenario: Scenario, database_url: str) -> None:
    """Organisers get 403."""
    with open_site(database_url, scenario.conn) as site:
        organiser = site.organiser()
        for path in ("/system", *PARTS):
            assert organiser.get(path).status_code == 403


def test_a_probe_that_crashes(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An assertion of the Kafka client ends the probe's process only; a bug is not reported as an outage."""
    aborts = tmp_path / "aborts"
    aborts.write_text("#!/bin/sh\nkill -ABRT $$\n")
    aborts.chmod(0o700)
    for program, cause in ((aborts, "Kafka was lost"), (Path("/bin/false"), "the probe failed")):
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(UnreachableError, match=cause):
            probe.lag(settings)


def test_a_probe_that_times_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe has a time limit."""
    monkeypatch.setattr(probe, "_LAG_SECONDS", 0.001)
    with pytest.raises(UnreachableError, match="no answer within"):
        probe.lag(settings)
