"""Dead letters by the API: paged, read whole, redriven once, and audited."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from config.kafka import client_config
from config.settings import Settings
from tests.integration.calling import Program, program
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site
from web import dead_letters


@pytest.fixture
def site(scenario: Scenario, settings: Settings) -> Iterator[Site]:
    """A site whose dead-letter topic has three of our messages and one from elsewhere."""
    producer = Producer(client_config(settings, "test"), logger=None)
    for number in range(4):
        source = "elsewhere" if number == 3 else settings.invitations_topic
        producer.produce(
            settings.dead_letter_topic, b"\xff%d" % number, b"key", headers=[("bidden-topic", source.encode())]
        )
        assert producer.flush(30) == 0
    values = {name: getattr(settings, name) for name in ("kafka_bootstrap", "topic_prefix", "group")}
    assert settings.database_url is not None
    with open_site(settings.require_database(), scenario.conn, **values) as site:
        yield site


@pytest.fixture
def admin(site: Site) -> Program:
    """A client of an admin."""
    return program(site, site.account("ada@bidden.example", "admin"), ["dead-letters"])


def test_read_page_by_page(admin: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-20: every dead letter once, by place; one of them whole."""
    monkeypatch.setattr(dead_letters, "PAGE_SIZE", 3)
    first = admin.get("/dead-letters")
    assert [row["offset"] for row in first["items"]] == [3, 2, 1]
    assert first["items"][0]["source_topic"] == "elsewhere"
    second = admin.get(first["next"])
    assert [row["offset"] for row in second["items"]] == [0]
    assert second["next"] is None
    whole = admin.get("/dead-letters/0/1")
    assert (base64.b64decode(whole["value"]), whole["key"]) == (b"\xff1", "key")
    assert list(whole["headers"]) == ["bidden-topic"]
    admin.get("/dead-letters/0/99", status=404)
    admin.get("/dead-letters/7/0", status=404)


def test_redriven_once(admin: Program, scenario: Scenario) -> None:
    """FM-20: not a second time without `again`; not those from elsewhere; it is audited."""
    places = [{"partition": 0, "offset": offset} for offset in (0, 1)]
    redrive = "/dead-letters/redrive"
    assert admin.post(redrive, {"letters": places}) == {"redriven": 2, "failed": []}
    assert admin.post(redrive, {"letters": places}) == {"redriven": 0, "failed": []}
    assert admin.post(redrive, {"letters": places, "again": True}) == {"redriven": 2, "failed": []}
    found = admin.get("/dead-letters")["items"]
    assert [row["redriven_at"] is not None for row in found] == [False, False, True, True]
    refused = admin.post(redrive, {"letters": [*places, {"partition": 0, "offset": 3}]}, status=409)
    assert "elsewhere" in refused["detail"]
    trail = scenario.execute("SELECT action, detail, outcome FROM audit_log ORDER BY id")
    assert [row["outcome"] for row in trail] == ["done", "nothing", "done", "refused"]
    assert trail[0] == {"action": "redrive", "detail": "0:0, 0:1; 2 dead letters redriven", "outcome": "done"}


def test_discarded(admin: Program, scenario: Scenario) -> None:
    """FM-41: set aside for good, and audited; redriven only if the client says so."""
    places = [{"partition": 0, "offset": offset} for offset in (0, 3)]
    assert admin.post("/dead-letters/discard", {"letters": places}) == {"discarded": 2}
    assert admin.post("/dead-letters/discard", {"letters": places}) == {"discarded": 2}
    found = admin.get("/dead-letters")["items"]
    assert [row["discarded_at"] is not None for row in found] == [True, False, False, True]
    refused = admin.post("/dead-letters/redrive", {"letters": places[:1]}, status=409)
    assert "discarded" in refused["detail"]
    assert admin.post("/dead-letters/redrive", {"letters": places[:1], "again": True})["redriven"] == 1
    admin.post("/dead-letters/discard", {"letters": [{"partition": 0, "offset": 99}]}, status=404)
    trail = scenario.execute("SELECT action, detail, outcome FROM audit_log ORDER BY id")
    assert trail[0] == {"action": "discard", "detail": "0:0, 0:3", "outcome": "done"}
    assert [row["outcome"] for row in trail] == ["done", "done", "refused", "done", "refused"]
