"""The pages that the links in mails lead to, over HTTP and a real database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings
from embedded import ports
from tests.integration.importing import EVENT, STUDENTS, invitation, subscription
from tests.integration.scenario import Scenario
from web.app import build

TOKEN = "a-token_of.mine~1"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def invited(scenario: Scenario) -> Scenario:
    """Member 1, student, with an invitation and its token; member 2, coach, with another."""
    scenario.build(students=[1], coaches=[2])
    scenario.load(invitation(1, token=TOKEN), invitation(2, role="Coach", token="other"))
    return scenario


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[TestClient]:
    """A browser without cookies, which follows no redirect by itself."""
    values: dict[str, Any] = {"database_url": database_url, "base_url": "https://bidden.example.org"}
    with TestClient(build(Settings(**values)), follow_redirects=False) as client:
        yield client


def answers(scenario: Scenario) -> dict[int, bool | None]:
    """What each member has answered."""
    return {
        row["member_id"]: row["attending"] for row in scenario.execute("SELECT member_id, attending FROM invitations")
    }


def on_lists(scenario: Scenario) -> list[tuple[int, str]]:
    """Who is on a list of the event now."""
    rows = scenario.execute("SELECT member_id, role FROM event_subscriptions ORDER BY member_id")
    return [(row["member_id"], row["role"]) for row in rows]


def everything(scenario: Scenario) -> list[dict[str, Any]]:
    """Whatever a request could change."""
    return scenario.execute("SELECT to_jsonb(v) FROM invitations v UNION ALL SELECT to_jsonb(o) FROM opt_outs o")


@pytest.mark.parametrize("path", ["invitation", "unsubscribe"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_scanners_change_nothing(invited: Scenario, site: TestClient, path: str, method: str) -> None:
    """Mail programs and virus scanners open every link: what they find there changes nothing."""
    before = everything(invited)
    for token in (TOKEN, "other", "unknown"):
        assert site.request(method, f"/{path}/{token}").status_code in (200, 404, 405)
    assert everything(invited) == before


def test_yes_then_no(invited: Scenario, site: TestClient) -> None:
    """An invitation is answered, and answered again; the page after it can be reloaded."""
    page = site.get(f"/invitation/{TOKEN}")
    assert "Workshop" in page.text
    assert "The Engine Room" in page.text
    assert "18:30 to 21:00 BST" in page.text
    for answer, attending, words in (("yes", True, "You are coming"), ("no", False, "You are not coming")):
        done = site.post(f"/invitation/{TOKEN}", data={"answer": answer})
        assert (done.status_code, done.headers["location"]) == (303, f"/invitation/{TOKEN}")
        assert answers(invited) == {1: attending, 2: None}
        assert words in site.get(f"/invitation/{TOKEN}").text


@pytest.mark.parametrize("answer", ["", "maybe", "YES", "yes\0"])
def test_no_answer_at_all(invited: Scenario, site: TestClient, answer: str) -> None:
    """Anything but yes and no is refused, and changes nothing."""
    assert site.post(f"/invitation/{TOKEN}", data={"answer": answer}).status_code == 422
    assert answers(invited) == {1: None, 2: None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts_at": "2020-01-01T18:00:00Z", "ends_at": "2020-01-01T20:00:00Z"}, "This event has begun"),
        ({"cancelled_at": "2026-01-01T00:00:00Z"}, "This event was cancelled"),
    ],
)
def test_too_late(invited: Scenario, site: TestClient, change: dict[str, str], words: str) -> None:
    """What is over or cancelled is shown as such, and cannot be answered."""
    invited.load(EVENT | change)
    page = site.get(f"/invitation/{TOKEN}")
    assert words in page.text
    assert "<button" not in page.text
    refused = site.post(f"/invitation/{TOKEN}", data={"answer": "yes"})
    assert (refused.status_code, words in refused.text) == (409, True)
    assert answers(invited) == {1: None, 2: None}


@pytest.mark.parametrize("token", ["unknown", "%00", "a%2Fb", "x" * 5000, "%C3%28", "%F0%9F%92%8C", "...", "%ED%A0%80"])
@pytest.mark.parametrize("path", ["invitation", "unsubscribe"])
def test_unknown_tokens(invited: Scenario, site: TestClient, path: str, token: str) -> None:
    """Any token that is not known: a page says so, and nothing changes."""
    before = everything(invited)
    for answer in (
        site.get(f"/{path}/{token}"),
        site.post(f"/{path}/{token}", data={"answer": "yes"}),
        site.post(f"/{path}/{token}", data=ONE_CLICK),
    ):
        assert answer.status_code == 404
    assert everything(invited) == before


def test_a_deleted_members_links_are_dead(invited: Scenario, site: TestClient) -> None:
    """A member who was anonymised is not shown to anyone who still has the mail."""
    invited.load({"type": "member", "id": 1, "deleted": True})
    assert site.get(f"/invitation/{TOKEN}").status_code == 404
    assert site.post(f"/unsubscribe/{TOKEN}", data=ONE_CLICK).status_code == 404


def test_one_click(invited: Scenario, site: TestClient) -> None:
    """RFC 8058: the mail program's POST is enough, without a cookie or a page; a second one changes nothing."""
    for _ in range(2):
        done = site.post(f"/unsubscribe/{TOKEN}", data=ONE_CLICK)
        assert (done.status_code, done.text) == (200, "unsubscribed\n")
        assert on_lists(invited) == [(2, "Coach")]


def test_left_by_the_page_and_joined_again(invited: Scenario, site: TestClient) -> None:
    """The page's button does the same, and can be taken back."""
    assert "Leave the list?" in site.get(f"/unsubscribe/{TOKEN}").text
    left = site.post(f"/unsubscribe/{TOKEN}", data={"leave": "yes"})
    assert (left.status_code, left.headers["location"]) == (303, f"/unsubscribe/{TOKEN}")
    assert on_lists(invited) == [(2, "Coach")]
    assert "You are not on the list" in site.get(f"/unsubscribe/{TOKEN}").text
    site.post(f"/unsubscribe/{TOKEN}", data={"again": "yes"})
    assert on_lists(invited) == [(1, "Student"), (2, "Coach")]


def test_an_import_does_not_undo_it(invited: Scenario, site: TestClient) -> None:
    """Whatever the next files say: the subscription again, removed and added, on another list, on the list's new id."""
    site.post(f"/unsubscribe/{TOKEN}", data={"leave": "list"})
    for lines in (
        [subscription(1, 1)],
        [subscription(1, 1, deleted=True)],
        [subscription(1, 1)],
        [STUDENTS | {"id": 5}, subscription(1, 5)],
        [{"type": "group", "id": 1, "deleted": True}, STUDENTS | {"id": 7}, subscription(1, 7)],
    ):
        invited.load(*lines)
        assert on_lists(invited) == [(2, "Coach")]
    site.post(f"/unsubscribe/{TOKEN}", data={"again": "list"})
    assert set(on_lists(invited)) == {(1, "Student"), (2, "Coach")}


def test_only_her_own_list(scenario: Scenario, site: TestClient) -> None:
    """A student who is also a coach, and on another chapter's list, leaves the list that the invitation came by."""
    scenario.build(both=[1])
    scenario.load(
        {"type": "chapter", "id": 2, "name": "Berlin", "email": "b@example.org", "time_zone": "Europe/Berlin"},
        {"type": "group", "id": 3, "chapter_id": 2, "name": "Students"},
        subscription(1, 3),
        EVENT | {"id": 2, "chapter_ids": [2]},
        invitation(1, token=TOKEN),
    )
    site.post(f"/unsubscribe/{TOKEN}", data={"leave": "list"})
    left = "SELECT event_id, role FROM event_subscriptions ORDER BY 1, 2"
    assert scenario.execute(left) == [{"event_id": 1, "role": "Coach"}, {"event_id": 2, "role": "Student"}]
    site.post(f"/unsubscribe/{TOKEN}", data=ONE_CLICK)
    assert scenario.execute(left) == []


def test_it_counts_for_mails_already_planned(invited: Scenario, site: TestClient) -> None:
    """FM-25: planned, then declined or unsubscribed by a link: the mail is not sent, and the log says why."""
    batch = invited.plan("everyone")
    site.post(f"/unsubscribe/{TOKEN}", data=ONE_CLICK)
    site.post("/invitation/other", data={"answer": "no"})
    agent = invited.agent()
    assert agent.try_claim(invited.request(batch, 1)) is None
    assert agent.try_claim(invited.request(batch, 2, "Coach")) is None
    assert invited.log(batch) == {(1, "Student"): ("skipped", "left_list"), (2, "Coach"): ("skipped", "declined")}


def test_headers(invited: Scenario, site: TestClient) -> None:
    """Every response, errors and files too: nothing foreign, no frame, no referrer elsewhere, no cache."""
    for path in (f"/invitation/{TOKEN}", "/unsubscribe/unknown", "/nowhere", "/static/site.css", "/healthz"):
        headers = site.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")
        assert headers["cache-control"] == "no-store"
        assert headers["strict-transport-security"].startswith("max-age=31536000")
    assert "set-cookie" not in headers


def test_names_are_escaped(invited: Scenario, site: TestClient) -> None:
    """What the directory holds is shown and not run."""
    invited.load(EVENT | {"name": "<script>alert(1)</script>", "description": '"><img src=x onerror=alert(1)>'})
    page = site.get(f"/invitation/{TOKEN}").text
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_database_was_away(invited: Scenario, site: TestClient) -> None:
    """FM-30: connections that broke meanwhile are replaced unseen."""
    for _ in range(2):
        assert site.get(f"/invitation/{TOKEN}").status_code == 200
        invited.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'bidden-admin' AND datname = current_database()"
        )


def test_the_database_is_away(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """FM-30: a page says so, with the time to try again. No log holds the token, nor the password."""
    caplog.set_level(logging.DEBUG)
    port = ports.choose({"nobody": None}, {})["nobody"]
    values: dict[str, Any] = {"database_url": f"postgresql://ada:geheim@127.0.0.1:{port}/none"}
    with TestClient(build(Settings(**values))) as site:
        answer = site.get(f"/invitation/{TOKEN}")
    assert (answer.status_code, "Try again" in answer.text) == (503, True)
    assert int(answer.headers["retry-after"]) > 0
    # What the test's own browser logs is not ours.
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    said = "\n".join(ours) + str(capsys.readouterr())
    assert "/invitation/{token}" in said
    assert TOKEN not in said
    assert "geheim" not in said
