"""Events and batches on the site."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Three students, two coaches, one member of both lists, in chapter 1; event 1."""
    scenario.build(students=[1, 2, 3], coaches=[4, 5], both=[6])
    with open_site(database_url, scenario.conn) as site:
        yield site


def test_from_events_to_a_batch(site: Site, scenario: Scenario) -> None:
    """An organiser finds an event, sees the dry runs, and invites."""
    browser = site.organiser(1)
    assert "Workshop" in page_text(browser.get("/events"))
    assert "Who would be invited now" in page_text(browser.get("/events/1"))
    numbers = page_text(browser.get("/events/1/numbers"))
    assert "Students 4 members" in numbers
    assert "Everyone 6 members 7 mails" in numbers
    question = browser.get("/events/1/invite?audience=everyone")
    assert "Invite 6 members?" in page_text(question)
    key = re.findall(r'name="key" value="([^"]+)"', question.text)[0]
    first, second = (browser.post("/events/1/invite", {"audience": "everyone", "key": key}) for _ in range(2))
    assert (first.status_code, first.headers["location"]) == (303, "/batches/1")
    assert second.headers["location"] == "/batches/1"
    assert scenario.execute("SELECT initiator FROM batches") == [{"initiator": "Olga <olga@bidden.example>"}]
    page = page_text(browser.get("/batches/1"))
    assert "0 of 7 mails" in page
    assert "Download as CSV" in page
    trail = scenario.execute("SELECT actor, action, batch_id, outcome FROM audit_log ORDER BY id")
    assert [(row["action"], row["batch_id"], row["outcome"]) for row in trail] == [("invite", 1, "done")] * 2


def test_notices_cannot_be_forged(site: Site, scenario: Scenario) -> None:
    """The page after an action has a notice; a link with another text shows none."""
    browser = site.organiser(1)
    done = browser.post("/events/1/resolve", {"verdict": "sent"})
    assert "nothing was changed." in page_text(browser.get(done.headers["location"]))
    for said in ("your account is locked", "0123456789abcdefyour account is locked", "", "short", "é\0"):
        assert "Done:" not in page_text(browser.get("/events/1", params={"said": said}))
