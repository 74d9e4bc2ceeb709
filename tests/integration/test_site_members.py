# ruff: noqa: RUF001 # the letters are the point
"""Members on the site: the search, and what was sent to a member, when, and why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from db import site_queries
from schemas.outcomes import Failed, Sent, Unknown
from tests.integration.importing import CHAPTER, EVENT, STUDENTS, invitation, member, subscription
from tests.integration.scenario import LEAVE, TERMS_ACCEPTED, Scenario
from tests.integration.site import Site, open_site, page_text


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Students 1 to 3 of chapter 1; Berlin, chapter 2, with student 4; member 5 is on no list."""
    scenario.build(students=[1, 2, 3])
    scenario.load(
        CHAPTER | {"id": 2, "name": "Berlin", "time_zone": "Europe/Berlin"},
        STUDENTS | {"id": 3, "chapter_id": 2},
        member(4, name="Grace", surname="Hopper", accepted_toc_at=TERMS_ACCEPTED),
        member(5, name="<b>Bold</b>"),
        subscription(4, 3),
    )
    with open_site(database_url, scenario.conn) as site:
        yield site


def test_search(site: Site) -> None:
    """By name, address or id, from two characters on, within the user's chapters."""
    admin, organiser = site.admin(), site.organiser(1)
    assert "Find a member" in page_text(admin.get("/members"))
    assert "at least two characters" in page_text(admin.get("/members?q=m"))
    assert "Grace Hopper" in page_text(admin.get("/members?q=HOPP"))
    assert "Grace Hopper" in page_text(admin.get("/members?q=m4@exa"))
    assert "Grace Hopper" in page_text(admin.get("/members?q=4"))
    found = admin.get("/members?q=bold")
    assert "&lt;b&gt;Bold&lt;/b&gt;" in found.text
    assert "<b>" not in found.text
    assert "M1" in page_text(organiser.get("/members?q=example"))
    hidden = page_text(organiser.get("/members?q=hopper"))
    assert "No member of your chapters" in hidden
    assert "Grace" not in hidden


@pytest.mark.parametrize(
    ("name", "surname", "typed"),
    [
        (
            "Zoë",
            "O’Brien",
            "zoe obrien; obrien zoe; ZOË O'BRIEN; O'Brien, Zoë; zoe o`b; o brien; Zoe\N{COMBINING DIAERESIS}",
        ),
        ("Łukasz", "Woźniak-Żak", "lukasz wozniak; zak lukasz; wozniakzak; wozniak‐zak; WOŹNIAK ŻAK"),
        ("Ægir", "Þórsson", "aegir thorsson; Þórsson; thors aeg"),
        ("Jürgen", "Groß", "jurgen gross; GROSS; groß; Groẞ"),
        ("Nguyễn", "Thị Ánh", "nguyen anh; thi anh nguyen; Nguyễn"),
        ("İpek", "Işık", "ipek isik; IPEK; ışık"),
        ("Ада", "Чайковский", "чаик; ЧАЙКОВСКИЙ ада"),
        ("Σίσυφος", None, "σισυφοσ; ΣΙΣΥΦΟΣ"),
        ("An\N{SOFT HYPHEN}na", "D\N{MODIFIER LETTER APOSTROPHE}Arcy", "anna darcy; d'arcy"),
        ("100%_\\", None, "100%; %_; \\"),
    ],
)
def test_search_finds_what_a_person_types(
    site: Site, scenario: Scenario, name: str, surname: str | None, typed: str
) -> None:
    """Without accents, with any apostrophe or none, words in any order, parts of words; and nobody else."""
    scenario.load(member(7, name=name, email="noone@example.org", **({"surname": surname} if surname else {})))
    for text in typed.split("; "):
        found = site_queries.members(scenario.conn, None, text).rows
        assert [row["member_id"] for row in found] == [7], text
        assert site_queries.members(scenario.conn, [1], text).rows == [], "of no chapter of theirs"
    for text in ("zoe nobody", "'", "’-", "\N{ZERO WIDTH SPACE}\N{ZERO WIDTH SPACE}"):
        assert site_queries.members(scenario.conn, None, text).rows == [], text


def test_of_other_chapters(site: Site) -> None:
    """Members outside the user's chapters and invalid ids are not found."""
    organiser = site.organiser(1)
    for path in ("/members/4", "/members/5", "/members/99", "/members/0", "/members/x"):
        assert organiser.get(path).status_code == 404
    assert site.admin().get("/members/5").status_code == 200
    assert site.browser().get("/members/1").status_code == 303


def test_of_an_event_that_was_moved(site: Site, scenario: Scenario) -> None:
    """A mailed member is visible to their own chapter; on no list any more, only to the event's chapter."""
    batch = scenario.plan()
    for number in (1, 2, 3):
        scenario.agent().deliver(scenario.request(batch, number))
    scenario.load(EVENT | {"chapter_ids": [2]})
    scenario.execute("DELETE FROM subscriptions WHERE member_id = 2")
    scenario.execute(f"{LEAVE} WHERE s.member_id = 3")
    berlin, london = site.browser(site.account("berta@bidden.example", chapters=[2])), site.organiser(1)
    assert [berlin.get(f"/members/{number}").status_code for number in (1, 2, 3)] == [404, 200, 404]
    assert [london.get(f"/members/{number}").status_code for number in (1, 2, 3)] == [200, 404, 200]
    scenario.load(EVENT | {"chapter_ids": [1, 2]})
    assert [berlin.get(f"/members/{number}").status_code for number in (1, 2, 3)] == [404, 404, 404]


def test_what_was_sent(site: Site, scenario: Scenario) -> None:
    """Every batch that included the member, with status, reason, reply and answer, in the event's time zone."""
    agent = scenario.agent()
    first = scenario.plan()
    agent.deliver(scenario.request(first, 1), Sent("250 queued as 17"))
    agent.deliver(scenario.request(first, 2), Failed("550 no such user"))
    scenario.load(invitation(1, attending=False))
    scenario.plan()
    browser = site.organiser(1)
    page = browser.get("/members/1")
    text = page_text(page)
    assert "M1 " in text
    assert "London, Students" in text
    assert "accepted 1 January 2020, 00:00 UTC" in text
    assert re.search(
        r"invitations, \d+ \w+ student sent The mail server replied: 250 queued as 17 "
        r"\d+ \w+ \d+, \d\d:\d\d (GMT|BST) no",
        text,
    )
    assert re.search(r"invitations, \d+ \w+ not invited declined", text)
    assert 'href="/batches/1"' in page.text
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page.text)
    assert "failed 550 no such user" in page_text(browser.get("/members/2"))
    assert "no batch has included this member" in page_text(site.admin().get("/members/5"))


def test_unknown_is_resolved_here(site: Site, scenario: Scenario) -> None:
    """An unknown delivery is resolved from the member's page, for this member only, and redirects back to it."""
    agent = scenario.agent()
    batch = scenario.plan()
    for number in (1, 2):
        agent.deliver(scenario.request(batch, number), Unknown("the connection was lost"))
    browser = site.organiser(1)
    shown = browser.get("/members/1")
    asked = re.findall(r'href="(/events/1/resolve[?]verdict=(?:sent|failed|resend)[^"]*)"', shown.text)
    assert len(asked) == 3, "each is asked about first"
    assert "Count 1 mail as sent" in page_text(browser.get(unescape(asked[0])))
    form = {"verdict": "sent", "member": 1, "back": "/members/1"}
    answer = browser.post("/events/1/resolve", form)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/members/1?said=")
    assert "1 mail counts as arrived." in page_text(browser.get(answer.headers["location"]))
    assert (scenario.delivery(1)["state"], scenario.delivery(2)["state"]) == ("sent", "unknown")


def test_an_answer_that_lost_its_ground(site: Site, scenario: Scenario) -> None:
    """A yes of somebody who was banned since is shown with the reason; the yes of others is shown as it is."""
    agent = scenario.agent()
    batch = scenario.plan()
    for number in (1, 2):
        agent.deliver(scenario.request(batch, number), Sent("250 queued"))
    scenario.execute("UPDATE invitations SET attending = true WHERE member_id IN (1, 2)")
    scenario.load({"type": "ban", "id": 1, "member_id": 2, "permanent": True})
    browser = site.organiser(1)
    assert "but may no longer come" not in page_text(browser.get("/members/1"))
    assert "yes, but may no longer come: banned" in page_text(browser.get("/members/2"))


def test_upcoming_events(site: Site, scenario: Scenario) -> None:
    """For upcoming events without a mail to the member: whether they would be invited now, or why not."""
    scenario.load(
        EVENT | {"id": 2, "name": "Second", "invitable": False},
        EVENT | {"id": 3, "name": "Elsewhere", "chapter_ids": [2]},
        EVENT | {"id": 4, "name": "Past", "starts_at": "2016-04-09T18:30:00Z", "ends_at": "2016-04-09T19:30:00Z"},
        member(2),
        {"type": "ban", "id": 1, "member_id": 2, "permanent": True},
    )
    scenario.execute(f"{LEAVE} WHERE s.member_id = 3")
    scenario.execute("UPDATE opt_outs SET left_at = '2024-01-01T00:00:00Z'")
    browser = site.organiser(1)
    first = page_text(browser.get("/members/1"))
    assert re.search(r"Workshop \d+ April 2096, 18:30 BST Yes\.", first)
    assert re.search(r"Second [^.]* No: the event ", first)
    assert "Elsewhere" not in first
    assert "Past" not in first
    second = page_text(browser.get("/members/2"))
    assert "No: terms not accepted, banned." in second
    assert "Banned permanently" in second
    third = page_text(browser.get("/members/3"))
    assert "(left 1 January 2024, 00:00 UTC)" in third
    assert "No: on no list of this event." in third
    scenario.plan("students")
    assert "Workshop" not in page_text(browser.get("/members/1")).partition("Upcoming events")[2]


def test_a_temporary_ban(site: Site, scenario: Scenario) -> None:
    """The page says when it ends."""
    scenario.load({"type": "ban", "id": 1, "member_id": 1, "expires_at": "2090-01-01T00:00:00Z"})
    assert "Banned until 1 January 2090" in page_text(site.admin().get("/members/1"))


def test_deleted(site: Site, scenario: Scenario) -> None:
    """Only the record of mails is shown."""
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1))
    scenario.load({"type": "member", "id": 1, "deleted": True})
    page = page_text(site.admin().get("/members/1"))
    assert "Member 1" in page
    assert "Deleted " in page
    assert "m1@example.org" not in page
    assert re.search(r"invitations, \d+ \w+ student sent", page)
