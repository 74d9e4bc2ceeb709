"""C18: when nobody is left to invite, no batch is made, and everybody who asks is told why."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from producers import dispatch, topics
from producers.planner import plan_waiting
from tests.fuzzing import run
from tests.integration.calling import PATH, organisers
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text
from web import actions
from web.pages.rendering import reason_text


@pytest.fixture(autouse=True)
def _nobody(scenario: Scenario) -> None:
    """Three students: two have not accepted the terms, and one is banned."""
    scenario.build(students=[1, 2, 3])
    scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id IN (1, 2)")
    scenario.execute("INSERT INTO bans (id, member_id, permanent) VALUES (1, 3, true)")


EXCLUDED = {"terms_not_accepted": 2, "banned": 1}


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    with open_site(database_url, scenario.conn) as site:
        yield site


def rows(scenario: Scenario) -> int:
    """All that a plan writes."""
    (row,) = scenario.execute(
        "SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM batch_items) + (SELECT count(*) FROM deliveries)"
        " + (SELECT count(*) FROM invitations) AS n"
    )
    n: int = row["n"]
    return n


def test_a_plan_of_nobody_writes_nothing(scenario: Scenario) -> None:
    """A repeat of its key is answered alike; the key is free for the first batch there is, which it then names."""
    first = scenario.trigger(key="k")
    assert (first.batch_id, first.state, first.planned, first.deliveries) == (None, "completed", 0, 0)
    assert (first.excluded, first.already_triggered, first.planning) == (EXCLUDED, False, False)
    assert scenario.trigger(key="k") == first
    assert rows(scenario) == 0
    scenario.execute("UPDATE members SET accepted_toc_at = now() WHERE id = 1")
    started = scenario.trigger(key="k")
    assert (started.planned, started.already_triggered) == (1, False)
    scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id = 1")
    again = scenario.trigger(key="k")
    assert (again.batch_id, again.planned, again.already_triggered) == (started.batch_id, 1, True)


def test_the_command(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 0, also with --wait: nothing needs a person. For people the reasons in one line."""
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    monkeypatch.setattr(topics.Topics, "check_reachable", lambda _: None)
    monkeypatch.setattr(dispatch, "BatchPublisher", lambda *_, **__: None)
    monkeypatch.setenv("BIDDEN_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    said = run("invite", "1", "--audience", "students", "--wait", "--json")
    assert said.out, said
    answer = json.loads(said.out)
    assert (said.code, answer["batch_id"], answer["state"], answer["excluded"]) == (0, None, "completed", EXCLUDED)
    said = run("invite", "1", "--audience", "students")
    assert "nobody is left to invite; excluded: 1 banned, 2 terms_not_accepted" in said.out
    assert rows(scenario) == 0


def test_the_page(site: Site, scenario: Scenario) -> None:
    """A form that was opened when somebody was left leads to the reasons."""
    browser = site.organiser(1)
    answer = browser.post("/events/1/invite", {"audience": "students", "key": str(uuid.uuid4())})
    assert (answer.status_code, answer.headers["location"]) == (303, "/events/1/invite?audience=students")
    text = page_text(browser.get("/events/1/invite?audience=students"))
    assert "Nobody is left to invite" in text
    assert f"2 {reason_text('terms_not_accepted')}" in text
    assert f"1 {reason_text('banned')}" in text
    assert rows(scenario) == 0


def test_the_api(site: Site, scenario: Scenario) -> None:
    """200 without a batch and without a location."""
    program = organisers(site, 1)
    started = program.invite(status=200)
    assert (started["batch_id"], started["planned"], started["excluded"]) == (None, 0, EXCLUDED)
    assert program.call("GET", f"{PATH}/batches").json()["items"] == []


def test_a_large_audience(site: Site, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: its batch was promised before it was planned: it ends completed, and says why."""
    monkeypatch.setattr(actions, "LARGE", 2)
    program = organisers(site, 1)
    started = program.invite(status=202)
    assert plan_waiting(scenario.conn) == 1
    batch = program.get(f"/batches/{started['batch_id']}")
    assert (batch["state"], batch["deliveries"], batch["excluded"]) == ("completed", 0, EXCLUDED)
    assert "Nobody was left to invite." in page_text(site.admin().get(f"/batches/{started['batch_id']}"))
