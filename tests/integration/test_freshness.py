"""How old the newest snapshot of a source may be: later nothing is claimed, and nobody's attempt is used."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pytest

from config.clock import elapsed
from db import outbox
from schemas.delivery import Delivery
from schemas.outcomes import Sent
from tests.integration.scenario import Scenario, open_scenario

SNAPSHOT = """INSERT INTO directory_source (id, began_at, applied_at, max_age_seconds, result)
VALUES (1, now() - %s * interval '1 second', now(), %s, '{}')
ON CONFLICT (id) DO UPDATE SET began_at = excluded.began_at, max_age_seconds = excluded.max_age_seconds"""


@pytest.fixture
def scenario(database_url: str) -> Iterator[Scenario]:
    """Three members on one list, and an event."""
    yield from open_scenario(database_url)


@pytest.fixture
def requests(scenario: Scenario) -> list[Delivery]:
    """The deliveries of a batch, which are on the topic."""
    scenario.build(students=(1, 2, 3))
    batch = scenario.plan()
    scenario.publish()
    return [scenario.request(batch, member) for member in (1, 2, 3)]


def age(scenario: Scenario, seconds: float, limit: float | None = 60) -> None:
    """The newest snapshot began so long ago."""
    scenario.execute(SNAPSHOT, seconds, limit)


def test_without_a_source(scenario: Scenario, requests: list[Delivery]) -> None:
    """Whenever."""
    claimed = scenario.agent().run_cycle(claim=requests)
    assert len(claimed) == 3
    assert {delivery.begin_before for delivery in claimed.values()} == {inf}


def test_a_fresh_snapshot(scenario: Scenario, requests: list[Delivery]) -> None:
    """A mail may be begun until the snapshot that its claim went by is too old, whatever newer ones there are."""
    age(scenario, 20)
    before = elapsed()
    claimed = scenario.agent().run_cycle(claim=requests)
    assert len(claimed) == 3
    for delivery in claimed.values():
        assert 0 < delivery.begin_before - before <= 40


def test_a_stale_snapshot(scenario: Scenario, requests: list[Delivery]) -> None:
    """FM-44: nothing is claimed, no attempt is used, and the items are due again once a newer one is there."""
    age(scenario, 61)
    assert scenario.agent().run_cycle(claim=requests) == {}
    batch = requests[0].batch_id
    for member in (1, 2, 3):
        found = scenario.delivery(member)
        assert (found["state"], found["attempts"], found["fence"]) == ("planned", 0, 0)
        assert not scenario.is_settled(batch, member)
    scenario.make_due()
    assert not outbox.any_due(scenario.conn)
    assert outbox.claim_due_items(scenario.conn, 10) == []
    age(scenario, 0)
    assert outbox.any_due(scenario.conn)
    assert len(outbox.claim_due_items(scenario.conn, 10)) == 3
    assert len(scenario.agent().run_cycle(claim=requests)) == 3


def test_age_does_not_matter(scenario: Scenario, requests: list[Delivery]) -> None:
    """Of a file, unless BIDDEN_SOURCE_MAX_AGE says so."""
    age(scenario, 10_000, None)
    assert len(scenario.agent().run_cycle(claim=requests)) == 3


def test_a_repeated_claim(scenario: Scenario, requests: list[Delivery]) -> None:
    """A claim whose answer was lost is given back when its snapshot has become too old before the repetition."""
    age(scenario, 0)
    agent = scenario.agent()
    owner = agent.next_owner()
    assert len(agent.run_cycle(claim=requests, owner=owner)) == 3
    age(scenario, 61)
    assert agent.run_cycle(claim=requests, owner=owner) == {}
    assert {scenario.delivery(member)["state"] for member in (1, 2, 3)} == {"planned"}


def test_outcomes_are_recorded(scenario: Scenario, requests: list[Delivery]) -> None:
    """What was sent while the snapshot was fresh is recorded when it is not any more."""
    age(scenario, 0)
    agent = scenario.agent()
    first = agent.claim(requests[0])
    age(scenario, 61)
    agent.record(requests[0], first, Sent("250 ok"))
    assert scenario.delivery(1)["state"] == "sent"
