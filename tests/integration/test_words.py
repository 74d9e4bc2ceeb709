"""One definition of each word: what events, batches and members are said to be, from the rows that the audit counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.commands.reports import state_for_people
from db import reports, retention, site_queries
from producers import batch_control
from schemas.outcomes import Failed, Sent, Unknown
from tests.integration.calling import program
from tests.integration.importing import EVENT, invitation
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text
from web.event_state import event_state

SENT_AT = "2026-04-01T10:00:00Z"


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Students 1 to 3 and coaches 4 and 5."""
    scenario.build(students=[1, 2, 3], coaches=[4, 5])
    with open_site(database_url, scenario.conn) as site:
        yield site


def state(scenario: Scenario) -> str:
    """What lists say of event 1."""
    ((listed,), _) = site_queries.events(scenario.conn, None)
    return event_state(listed)


def send(scenario: Scenario, batch: int, *members: int) -> None:
    """The mails of these members are sent."""
    for number in members:
        scenario.agent().deliver(scenario.request(batch, number, "Student" if number < 4 else "Coach"))


def test_what_an_event_is_called(scenario: Scenario) -> None:
    """`invited` only when nobody of its lists was left out: not for one audience, a cancelled batch, or an import."""
    scenario.build(students=[1, 2, 3], coaches=[4, 5])
    assert state(scenario) == "not invited yet"
    coaches = scenario.plan("coaches")
    assert state(scenario) == "inviting"
    send(scenario, coaches, 4, 5)
    assert state(scenario) == "coaches invited"
    students = scenario.plan("students")
    batch_control.cancel(scenario.conn, students)
    assert state(scenario) == "coaches invited"
    assert len(scenario.audit()["missing"]) == 3
    students = scenario.plan("students")
    send(scenario, students, 1)
    batch_control.cancel(scenario.conn, students)
    assert state(scenario) == "partly invited"
    everyone = scenario.plan("everyone")
    send(scenario, everyone, 2, 3)
    assert (state(scenario), scenario.audit()["missing"]) == ("invited", [])


def test_an_event_whose_only_batch_was_cancelled(scenario: Scenario) -> None:
    """It is not invited to."""
    scenario.build(students=[1, 2, 3])
    batch_control.cancel(scenario.conn, scenario.plan("everyone"))
    assert state(scenario) == "not invited yet"
    assert len(scenario.audit()["missing"]) == 3
    send(scenario, scenario.plan("students"), 1, 2, 3)
    assert state(scenario) == "invited", "nobody is on the list of coaches"


def test_mails_of_another_system(site: Site, scenario: Scenario) -> None:
    """An imported mail is a mail: on the event, in its list, and on the member's page."""
    scenario.load(invitation(1, sent_at=SENT_AT))
    browser = site.organiser(1)
    assert state(scenario) == "partly invited"
    assert "partly invited" in page_text(browser.get("/events"))
    assert "1 mail was sent by another system" in page_text(browser.get("/events/1"))
    member = page_text(browser.get("/members/1"))
    assert "another system student sent imported" in member
    assert "no batch has included" not in member
    assert "Nothing" not in member
    # In a batch that came too late for them, they are shown once.
    scenario.plan("students")
    assert page_text(browser.get("/members/1")).count("Workshop") == 1


def test_who_was_reached_by_another_batch(site: Site, scenario: Scenario) -> None:
    """Who failed in three batches and was reached by the first is not failed in the others, which have no errors."""
    agent, batches = scenario.agent(), []
    for _ in range(3):
        batches.append(scenario.plan("students"))
        agent.deliver(scenario.request(batches[-1], 1), Failed("550 no"))
        if len(batches) == 1:
            send(scenario, batches[0], 2, 3)
    admin = site.admin()
    listed = page_text(admin.get("/batches"))
    assert listed.count("completed with errors") == 3
    assert batch_control.retry(scenario.conn, batches[0]) == 1
    agent.deliver(scenario.request(batches[0], 1), Sent("250 ok"))
    for batch in batches[1:]:
        status = scenario.status(batch)
        assert (status["failed"], status["skipped"], status["error"]) == (0, 1, None)
        assert scenario.log(batch)[1, "Student"] == ("skipped", "already_sent")
        assert site_queries.batch_numbers(scenario.conn, batch).status == status
        page = page_text(admin.get(f"/batches/{batch}/entries?status=skipped"))
        assert f"reached by batch {batches[0]}" in page
        assert "No members." in page_text(admin.get(f"/batches/{batch}/entries?status=failed"))
    assert scenario.status(batches[0])["sent"] == 3
    listed = page_text(admin.get("/batches"))
    assert "with errors" not in listed
    assert "550 no" not in page_text(admin.get(f"/batches/{batches[0]}"))
    client = program(site, 1)
    assert [row["has_errors"] for row in client.get("/batches")["items"]] == [False] * 3
    assert list(reports.log(scenario.conn, batches[1], "failed")) == []


@pytest.mark.parametrize("mended", ["resolved", "failed"])
def test_with_errors(site: Site, scenario: Scenario, mended: str) -> None:
    """A batch has errors while a delivery of it is failed or unknown, whether or not a server has said why."""
    batch = scenario.plan("coaches")
    send(scenario, batch, 4)
    scenario.agent().deliver(scenario.request(batch, 5, "Coach"), Unknown("lost"))
    browser = site.organiser(1)
    assert "completed with errors" in page_text(browser.get("/batches"))
    assert "completed with errors" in page_text(browser.get(f"/batches/{batch}"))
    assert (
        state_for_people(reports.status(scenario.conn, batch), reports.with_errors(scenario.conn))
        == "completed with errors"
    )
    verdict = batch_control.Verdict.SENT if mended == "resolved" else batch_control.Verdict.FAILED
    batch_control.resolve(scenario.conn, 1, verdict, member_id=None, by="a test", resend_below=0)
    says = "completed with errors" in page_text(browser.get("/batches"))
    assert says is (mended == "failed")
    assert (
        state_for_people(reports.status(scenario.conn, batch), reports.with_errors(scenario.conn))
        == "completed with errors"
    ) is says
    # An archived batch keeps its last word.
    scenario.execute("UPDATE batches SET started_at = started_at - interval '1 year'")
    scenario.execute("UPDATE batch_items SET settled_at = settled_at - interval '1 year'")
    scenario.execute("UPDATE log_entries SET at = at - interval '1 year'")
    retention.run_all(scenario.conn, 86_400.0)
    assert scenario.execute("SELECT archived IS NOT NULL AS it_is FROM batches") == [{"it_is": True}]
    assert ("completed with errors" in page_text(browser.get("/batches"))) is says


def test_an_event_without_lists(scenario: Scenario) -> None:
    """Nobody to invite is not everybody invited."""
    scenario.build()
    scenario.load(EVENT)
    assert state(scenario) == "not invited yet"


def test_who_was_reached_by_a_newer_batch(site: Site, scenario: Scenario) -> None:
    """FM-06: the older batch keeps what it did, names the batch that reached the member, and has no errors any more."""
    agent, first = scenario.agent(), scenario.plan("students")
    agent.deliver(scenario.request(first, 1), Failed("550 no"))
    send(scenario, first, 2, 3)
    second = scenario.plan("students")
    send(scenario, second, 1)
    assert scenario.log(first)[1, "Student"] == ("failed", "550 no")
    admin = site.admin()
    assert f"failed 550 no reached by batch {second}" in page_text(admin.get(f"/batches/{first}"))
    assert "with errors" not in page_text(admin.get("/batches")) + page_text(admin.get(f"/batches/{first}"))
