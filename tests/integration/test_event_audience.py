"""The audience of an event: what is refused, offered and counted, and who is skipped when it is narrowed later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from db import reports, site_queries
from db.site_queries import EVERYONE
from producers.plan import trigger_of
from producers.planner import plan_batch
from schemas.errors import RefusedError
from schemas.vocabulary import Audience
from tests.integration.calling import organisers
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text

STUDENTS = EVENT | {"audience": "students"}


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """One student, two coaches, one member of both lists; event 1 is for students."""
    scenario.build(students=[1], coaches=[2, 3], both=[4], audience="students")
    with open_site(database_url, scenario.conn) as opened:
        yield opened


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("audience", ["coaches", "everyone"])
def test_a_wider_audience_is_refused(scenario: Scenario, audience: str, dry_run: bool) -> None:
    """By field, before anything is written; the event's own audience is planned."""
    scenario.build(students=[1], coaches=[2], both=[3], audience="students")
    with pytest.raises(RefusedError) as caught:
        scenario.trigger(audience, dry_run=dry_run)
    assert caught.value.field == "audience"
    assert caught.value.detail == "event 1 (Workshop) is for students alone"
    assert scenario.execute("SELECT FROM batches") == []
    planned = scenario.trigger("students", dry_run=dry_run)
    assert (planned.planned, planned.deliveries) == (2, 2)


@pytest.mark.parametrize("audience", ["students", "coaches", "everyone"])
def test_an_event_for_everyone(scenario: Scenario, audience: str) -> None:
    """The word says the same as nothing."""
    scenario.build(students=[1], coaches=[2], audience="everyone")
    assert scenario.trigger(audience).planned == (2 if audience == "everyone" else 1)


def test_an_audit_counts_the_audience_alone(scenario: Scenario) -> None:
    """Coaches of an event for students are missing in no audit; `why` says that they are on no list."""
    scenario.build(students=[1], coaches=[2], both=[3], audience="students")
    agent, batch = scenario.agent(), scenario.plan("students")
    for member_id in (1, 3):
        agent.deliver(scenario.request(batch, member_id))
    for audience in ("students", "everyone"):
        audit = scenario.audit(audience)
        assert (audit["eligible"], audit["sent"], audit["missing"], audit["balanced"]) == (2, 2, [], True)
    assert scenario.audit("coaches")["eligible"] == 0
    assert reports.why(scenario.conn, 1, 2)["reasons"] == ["not_subscribed"]


def test_the_directory_narrows_the_audience_later(scenario: Scenario) -> None:
    """At the hand-over a planned coach is skipped as `left_list`; a student of both lists is mailed as a student."""
    scenario.build(students=[1], coaches=[2], both=[3])
    batch = scenario.plan("everyone")
    scenario.load(STUDENTS)
    agent = scenario.agent()
    agent.deliver(scenario.request(batch, 1))
    assert agent.try_claim(scenario.request(batch, 2, "Coach")) is None
    agent.deliver(scenario.request(batch, 3))
    assert agent.try_claim(scenario.request(batch, 3, "Coach")) is None
    assert scenario.log(batch) == {
        (1, "Student"): ("sent", None),
        (2, "Coach"): ("skipped", "left_list"),
        (3, "Student"): ("sent", None),
        (3, "Coach"): ("skipped", "left_list"),
    }


def test_narrowed_before_a_dispatcher_plans(scenario: Scenario) -> None:
    """A batch that waits to be planned ends with the reason, as it would have been refused."""
    scenario.build(students=[1], coaches=[2])
    batch = scenario.plan("everyone", later_from=1)
    scenario.load(STUDENTS)
    assert plan_batch(scenario.conn, batch) == 0
    status = scenario.status(batch)
    assert (status["state"], status["error"]) == ("cancelled", "event 1 (Workshop) is for students alone")


def test_the_same_key_after_the_audience_was_narrowed(scenario: Scenario) -> None:
    """A trigger that is repeated finds its batch: it is not a new one."""
    scenario.build(students=[1], coaches=[2])
    batch = scenario.plan("everyone", key="k")
    scenario.load(STUDENTS)
    assert scenario.trigger("everyone", key="k").batch_id == batch


def test_the_site_offers_what_is_allowed(site: Site, scenario: Scenario) -> None:
    """One dry run, one button; a wider audience typed into the address is refused, and starts nothing."""
    browser = site.organiser(1)
    numbers = browser.get("/events/1/numbers").text
    assert "audience=students" in numbers
    assert "audience=coaches" not in numbers
    assert "audience=everyone" not in numbers
    assert "The event is for students alone." in page_text(browser.get("/events/1/invite?audience=everyone"))
    refused = browser.post("/events/1/invite", {"audience": "coaches", "key": "0" * 36})
    assert refused.status_code == 409
    assert "is for students alone" in page_text(refused)
    assert scenario.execute("SELECT FROM batches") == []
    scenario.plan("students")
    scenario.execute("DELETE FROM batch_items")
    scenario.execute("DELETE FROM deliveries")
    assert '/events/1/invite?audience=students"' in browser.get("/events/1/audit/answer?audience=everyone").text


def test_the_page_of_events_counts_the_audience_alone(site: Site, scenario: Scenario) -> None:
    """All students are invited, so the event is: its coaches are nobody's."""
    agent, batch = scenario.agent(), scenario.plan("students")
    for member_id in (1, 4):
        agent.deliver(scenario.request(batch, member_id))
    (listed,), _ = site_queries.events(scenario.conn, None)
    assert listed.uninvited == frozenset()
    assert "invited" in page_text(site.organiser(1).get("/events"))


def test_the_api_refuses(site: Site) -> None:
    """409 for a batch and for its dry run; the event names its audience."""
    program = organisers(site, 1)
    assert program.get("/events/1")["audience"] == "students"
    assert program.get("/events/1/dry-run?audience=students")["planned"] == 2
    for refused in (program.get("/events/1/dry-run", 409), program.invite(status=409)):
        assert "is for students alone" in refused["detail"]
    assert program.invite(audience="students")["planned"] == 2


def test_nobody_beyond_the_audience_is_a_candidate(site: Site, scenario: Scenario) -> None:
    """The lists behind the numbers hold no others, even for an audience that would be refused."""
    event = site_queries.event(scenario.conn, 1, None)
    assert event is not None
    found = site_queries.candidates(scenario.conn, trigger_of(event.facts, Audience.EVERYONE), None, EVERYONE)
    assert [(row["member_id"], row["roles"]) for row in found.rows] == [(1, ["Student"]), (4, ["Student"])]
