"""A batch's page while things happen: filters in its address, who works, other batches, a session that ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from config.settings import Settings
from schemas.outcomes import Failed, Retry, Sent
from schemas.send_rates import SendRates
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site, page_text
from web.progress import progress_cache, read_progress


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """Students 1 to 4."""
    scenario.build(students=[1, 2, 3, 4])
    with open_site(database_url, scenario.conn) as site:
        yield site


def test_filters_are_in_the_address(site: Site, scenario: Scenario) -> None:
    """The page shows the rows and the fields that its address names, so that reload and Back keep them."""
    agent, batch = scenario.agent(), scenario.plan()
    agent.deliver(scenario.request(batch, 1), Failed("550 no"))
    browser = site.organiser(1)
    page = browser.get(f"/batches/{batch}?status=failed&q=m1").text
    assert re.search(r'<option value="failed" selected>', page)
    assert 'value="m1"' in page
    assert re.findall(r'href="/members/(\d+)"', page) == ["1"]
    left_out = browser.get(f"/batches/{batch}?status=left_out").text
    assert '<option value="left_out" selected>' in left_out
    assert browser.get(f"/batches/{batch}?status=odd").status_code == 422
    # What the page loads by itself is not announced to those who listen to it.
    assert 'id="found"' not in browser.get(f"/batches/{batch}/entries?live=true", headers={"HX-Request": "true"}).text


@pytest.mark.parametrize(
    ("method", "path", "headers", "place"),
    [
        ("GET", "/batches/1?status=failed", {}, "/batches/1?status=failed"),
        (
            "GET",
            "/batches/1/entries?q=a",
            {"HX-Request": "true", "HX-Current-URL": "http://testserver/batches/1?q=a"},
            "/batches/1?q=a",
        ),
        (
            "POST",
            "/batches/1/retry",
            {"Referer": "http://testserver/batches/1?status=failed"},
            "/batches/1?status=failed",
        ),
        ("POST", "/batches/1/retry", {"Referer": "http://elsewhere.example/batches/1"}, "/"),
        ("POST", "/batches/1/retry", {}, "/"),
    ],
)
def test_a_session_that_ended_leads_back(
    site: Site, method: str, path: str, headers: dict[str, str], place: str
) -> None:
    """After sign-in one is on the page where one was: not on a fragment of it, and not on the list of events."""
    answer = site.browser().client.request(method, path, headers=headers)
    address = answer.headers.get("hx-redirect") or answer.headers["location"]
    assert unquote(address.partition("?next=")[2] or "/") == place


def test_nobody_works(site: Site, scenario: Scenario) -> None:
    """After three minutes without an outcome the page says since when, and whom to ask; not while it only waits."""
    batch = scenario.plan()
    organiser, admin = site.organiser(1), site.admin()
    address = f"/batches/{batch}"
    assert "Nobody has worked" not in page_text(organiser.get(address))
    scenario.execute("UPDATE batches SET started_at = now() - interval '4 minutes'")
    assert "Nobody has worked on this since" in page_text(organiser.get(address))
    assert "Ask an admin to start a worker." in page_text(organiser.get(address))
    assert "Start a dispatcher and a worker" in page_text(admin.get(address))
    scenario.agent().deliver(scenario.request(batch, 1), Sent("250 ok"))
    assert "Nobody has worked" not in page_text(organiser.get(address)), "somebody did"
    scenario.execute("UPDATE log_entries SET at = now() - interval '4 minutes'")
    assert "Nobody has worked" in page_text(organiser.get(address))
    scenario.set_state(batch, "paused")
    assert "Nobody has worked" not in page_text(organiser.get(address))
    scenario.set_state(batch, "running")
    for member in (2, 3, 4):
        scenario.agent().deliver(scenario.request(batch, member), Retry("451 later", delay=3600, uses=1))
    scenario.execute("UPDATE log_entries SET at = now() - interval '4 minutes'")
    assert "Nobody has worked" not in page_text(organiser.get(address)), "all wait for their next attempt"


def test_what_another_batch_did_is_no_error(site: Site, scenario: Scenario) -> None:
    """Two tabs invite: the second batch says that nothing was left, and that nobody was mailed twice."""
    agent = scenario.agent()
    first, second = scenario.plan(), scenario.plan()
    for member in (1, 2, 3, 4):
        agent.deliver(scenario.request(first, member), Sent("250 ok"))
    browser = site.organiser(1)
    for member in (1, 2, 3, 4):
        wanted = scenario.request(second, member)
        agent.try_claim(wanted)
    text = page_text(browser.get(f"/batches/{second}"))
    assert read_progress(scenario.conn, second, SendRates()).status["skipped"] == 4
    assert "Nothing was left to send" in text
    assert "Nobody was mailed twice" in text
    assert "Nobody was mailed twice" not in page_text(browser.get(f"/batches/{first}"))


def test_estimates_follow_each_other(site: Site, scenario: Scenario, settings: Settings) -> None:
    """All who watch a batch see one estimate, which follows those before."""
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1), Sent("250 ok"))
    # Tried a minute ago: what was sent in the last ten seconds is its pace.
    scenario.agent().deliver(scenario.request(batch, 2), Retry("451 later", 3600, uses=1))
    scenario.execute("UPDATE log_entries SET at = now() - interval '1 minute' WHERE member_id = 2")
    now = 0.0
    cache = progress_cache(site.app.state.pool, SendRates(), lambda: now)
    first = cache.get(batch).seconds_left
    assert first == read_progress(scenario.conn, batch, SendRates()).measured_seconds == 30.0
    scenario.execute("UPDATE log_entries SET at = now() - interval '1 minute'")
    now = 1.0
    assert cache._load(batch).seconds_left == first, "a pause in the pace is no news"
