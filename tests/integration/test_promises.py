"""What was promised to a person holds for the person: opt-outs, bans and answers, whatever the next file says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db import reports
from tests.integration.importing import EVENT, STUDENTS, invitation, member, subscription
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import Site, open_site, page_text

TOKEN = "token-of-1"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
BAN = {"type": "ban", "id": 1, "member_id": 1, "permanent": True}


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """The site, and member 1, a student with an invitation, with member 2."""
    scenario.build(students=[1, 2])
    scenario.load(invitation(1, token=TOKEN))
    with open_site(database_url, scenario.conn) as found:
        yield found


def post(site: Site, page: str, **form: str) -> Any:
    """What the person behind the link presses."""
    return site.browser().client.post(f"/{page}/{TOKEN}", data=form)


def reasons(scenario: Scenario, member_id: int, event: int = 1) -> list[str]:
    """Why they are not invited now."""
    found: list[str] = reports.why(scenario.conn, event, member_id)["reasons"]
    return found


def make_anew(scenario: Scenario, email: str = "M1@Example.ORG") -> None:
    """Member 1 is deleted and comes back as member 11, on a new list, with the same mailbox."""
    scenario.load({"type": "member", "id": 1, "deleted": True})
    scenario.load(member(11, email=email, accepted_toc_at=TERMS_ACCEPTED), STUDENTS | {"id": 5}, subscription(11, 5))


PROMISES = {
    "not_subscribed": lambda site, scenario: post(site, "unsubscribe", leave="list"),
    "banned": lambda site, scenario: scenario.load(BAN),
    "declined": lambda site, scenario: post(site, "invitation", answer="no"),
    "signed_up": lambda site, scenario: post(site, "invitation", answer="yes"),
}


@pytest.mark.parametrize("reason", PROMISES)
def test_a_promise_outlives_the_member(site: Site, scenario: Scenario, reason: str) -> None:
    """FM-25: the member is deleted and made anew with the same mailbox: not invited, and no address is kept."""
    PROMISES[reason](site, scenario)
    make_anew(scenario)
    assert reasons(scenario, 11) == [reason]
    assert scenario.trigger(dry_run=True).planned == 1
    batch = scenario.plan()
    planned = scenario.execute("SELECT member_id FROM batch_items WHERE batch_id = %s AND excluded IS NULL", batch)
    assert planned == [{"member_id": 2}]
    kept = scenario.execute("SELECT f::text AS row FROM former_mailboxes f UNION ALL SELECT o::text FROM opt_outs o")
    assert "example" not in str(kept).lower()


@pytest.mark.parametrize("reason", PROMISES)
def test_a_promise_is_of_the_id_too(site: Site, scenario: Scenario, reason: str) -> None:
    """A new address does not end it, and who takes over the old one shares it."""
    PROMISES[reason](site, scenario)
    scenario.load(member(1, email="new@example.org", accepted_toc_at=TERMS_ACCEPTED))
    assert reasons(scenario, 1) == [reason]
    scenario.load(member(2, email="m1@EXAMPLE.org", accepted_toc_at=TERMS_ACCEPTED))
    assert reasons(scenario, 2) == [reason]


def test_a_removed_ban_is_removed(site: Site, scenario: Scenario) -> None:
    """The directory takes its own ban back, for every id."""
    scenario.load(BAN)
    make_anew(scenario)
    scenario.load({"type": "ban", "id": 1, "deleted": True})
    assert reasons(scenario, 11) == []


def test_one_click_leaves_every_list(site: Site, scenario: Scenario) -> None:
    """RFC 8058 is about the sender: no chapter and no role invites them, until they undo it on the page."""
    scenario.load(
        {"type": "chapter", "id": 2, "name": "Berlin", "email": "b@example.org", "time_zone": "Europe/Berlin"},
        {"type": "group", "id": 3, "chapter_id": 2, "name": "Coaches"},
        EVENT | {"id": 2, "chapter_ids": [2]},
        subscription(1, 3),
    )
    assert post(site, "unsubscribe", **ONE_CLICK).text == "unsubscribed\n"
    assert [reasons(scenario, 1, event) for event in (1, 2)] == [["not_subscribed"], ["not_subscribed"]]
    assert "No chapter will invite you" in page_text(site.browser().get(f"/unsubscribe/{TOKEN}"))
    post(site, "unsubscribe", again="everything")
    assert [reasons(scenario, 1, event) for event in (1, 2)] == [[], []]


def test_this_list_or_everything(site: Site, scenario: Scenario) -> None:
    """The page offers both; each is undone by itself."""
    page = site.browser().get(f"/unsubscribe/{TOKEN}").text
    assert 'value="list"' in page
    assert 'value="everything"' in page
    post(site, "unsubscribe", leave="list")
    post(site, "unsubscribe", leave="everything")
    post(site, "unsubscribe", again="everything")
    assert "You are not on the list" in page_text(site.browser().get(f"/unsubscribe/{TOKEN}"))
    assert reasons(scenario, 1) == ["not_subscribed"]
    post(site, "unsubscribe", again="list")
    assert reasons(scenario, 1) == []


@pytest.mark.parametrize("leave", ["list", "everything"])
def test_an_admin_takes_it_back(site: Site, scenario: Scenario, leave: str) -> None:
    """On the page of any member with the mailbox; the audit log says so. An organiser sees it and has no form."""
    post(site, "unsubscribe", leave=leave)
    make_anew(scenario)
    organiser = site.organiser(1)
    assert "Left by a link in a mail" in organiser.get("/members/11").text
    assert "Invite them again" not in organiser.get("/members/11").text
    admin = site.admin()
    assert "Invite them again" in admin.get("/members/11").text
    form = {"chapter": "1", "role": "Student"} if leave == "list" else {}
    assert admin.post("/members/11/opt-outs", form).status_code == 303
    assert reasons(scenario, 11) == []
    (entry,) = scenario.execute("SELECT action, member_id, detail FROM audit_log")
    assert (entry["action"], entry["member_id"]) == ("take back opt-out", 11)
    assert "1 opt-outs" in entry["detail"]


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "banned": (BAN, "you are banned"),
    "closed": (EVENT | {"invitable": False}, "the event is closed"),
    "terms": (member(1), "you have not accepted the terms"),
}


@pytest.mark.parametrize("answered_before", [False, True])
@pytest.mark.parametrize("obstacle", [*OBSTACLES, "left"])
def test_a_yes_asks_the_rule_of_the_claim(site: Site, scenario: Scenario, obstacle: str, answered_before: bool) -> None:
    """FM-25: after the mail something stands against it: no yes is stored, the page says why; a no is stored.

    A yes given before is shown to the organiser with the reason.
    """
    if answered_before:
        post(site, "invitation", answer="yes")
    if obstacle == "left":
        post(site, "unsubscribe", leave="list")
        words = "you are no longer on the list"
    else:
        line, words = OBSTACLES[obstacle]
        scenario.load(line)
    refused = post(site, "invitation", answer="yes")
    assert (refused.status_code, words in page_text(refused)) == (409, True)
    page = page_text(site.browser().get(f"/invitation/{TOKEN}"))
    assert words in page
    assert "We look forward" not in page
    assert "Yes, I will come" not in page
    stored = scenario.execute("SELECT attending FROM invitations WHERE member_id = 1")
    assert stored == [{"attending": True if answered_before else None}]
    shown = page_text(site.organiser(1).get("/events/1"))
    assert ("Said yes, and may no longer come" in shown) == (answered_before and obstacle != "closed")
    assert post(site, "invitation", answer="no").status_code == 303
    assert scenario.execute("SELECT attending FROM invitations WHERE member_id = 1") == [{"attending": False}]


def test_removed_from_the_list_after_the_mail(site: Site, scenario: Scenario) -> None:
    """Who was mailed by us was on a list; with an invitation of another system they need not have been on any."""
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1))
    never_on_it = member(3, accepted_toc_at=TERMS_ACCEPTED)
    scenario.load(subscription(1, 1, deleted=True), never_on_it, invitation(3, token="other"))
    assert post(site, "invitation", answer="yes").status_code == 409
    assert site.browser().client.post("/invitation/other", data={"answer": "yes"}).status_code == 303
