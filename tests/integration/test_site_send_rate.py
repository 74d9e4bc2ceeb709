"""The sending rate on the site: the form of an admin, what pages and `doctor` say, the estimate of the time left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db import send_limits
from db.connect import Connection
from monitoring import sending
from schemas.send_rates import SendRates, parse
from tests.integration.scenario import Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from web.progress import read_progress

FORM = {"rate": "14/s,50000/day", "rate_domain": "example.com=2/s;*=10/s", "warmup": ""}


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """A site whose settings have a rate."""
    with open_site(database_url, scenario.conn, send_rate="5/s") as site:
        yield site


def throttle(conn: Connection, scope: str = "", **values: Any) -> None:
    """As a worker has written it."""
    columns = {"ceiling": 15.0, "clean_seconds": 0.0, "pause_seconds": 4.0, "wait": 4.0, "reply": "454 slow", **values}
    conn.execute(
        """INSERT INTO send_limits (scope, ceiling, clean_seconds, grown_at, pause_seconds, paused_until, throttled_at,
            reply, updated_at)
        VALUES (%(scope)s, %(ceiling)s, %(clean_seconds)s, now(), %(pause_seconds)s,
            now() + %(wait)s * interval '1 second', now(), %(reply)s, now())
        ON CONFLICT (scope) DO UPDATE SET pause_seconds = excluded.pause_seconds""",
        {"scope": scope, **columns},
    )


def last_entry(conn: Connection) -> dict[str, Any]:
    """The newest entry of the audit log."""
    row = conn.execute("SELECT actor, action, detail, outcome FROM audit_log ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    return row


def test_setting_and_unsetting(site: Site) -> None:
    """FM-37: what an admin sets holds instead of the settings, is audited, and can be taken back."""
    browser = site.admin()
    assert "Set by the settings of the workers. At most 5/s." in page_text(browser.get("/system/rate"))
    assert browser.post("/system/rate", FORM).status_code == 303
    found = send_limits.read_settings(site.conn)
    assert found is not None
    assert (found.rate, found.rate_domain, found.warmup) == ("14/s,50000/day", "example.com=2/s;*=10/s", None)
    assert found.set_by.startswith("Ada")
    entry = last_entry(site.conn)
    assert (entry["action"], entry["outcome"]) == ("set sending rate", "done")
    assert "rate 14/s,50000/day; rate_domain example.com=2/s;*=10/s; warmup none" in entry["detail"]
    text = page_text(browser.get("/system/rate"))
    assert "Set on the site by Ada" in text
    assert "At most 14/s and 50000/day." in text
    assert 'value="example.com=2/s;*=10/s"' in browser.get("/system/rate").text
    assert "At most 14/s" in page_text(browser.get("/system/rate/now", headers={"HX-Request": "true"}))
    assert browser.post("/system/rate/unset").status_code == 303
    assert send_limits.read_settings(site.conn) is None
    assert last_entry(site.conn)["action"] == "unset sending rate"


@pytest.mark.parametrize(
    "wrong", [{"rate": "fast"}, {"rate_domain": "2/s"}, {"warmup": "3/s"}, {"rate": "14/s\x01"}, {"rate": "<b>"}]
)
def test_what_makes_no_sense(site: Site, wrong: dict[str, str]) -> None:
    """It is refused with the field, what was typed stays, nothing changes; the attempt is in the audit log."""
    answer = site.admin().post("/system/rate", {**FORM, **wrong})
    assert answer.status_code == 409
    (field,) = wrong
    assert f"Not set: {field.replace('_', ' ')}: must look like" in page_text(answer)
    assert "<b>" not in answer.text.partition("<main")[2]
    assert send_limits.read_settings(site.conn) is None
    assert last_entry(site.conn)["outcome"] == "refused"


def test_admins_only_and_with_their_token(site: Site) -> None:
    """An organiser may not, and neither may a form from elsewhere."""
    organiser = site.organiser()
    assert organiser.post("/system/rate", FORM).status_code == 403
    admin = site.admin()
    assert Browser(admin.client, None).post("/system/rate", FORM).status_code == 403
    assert send_limits.read_settings(site.conn) is None


def test_the_batch_page_says_why_it_is_slow(site: Site, scenario: Scenario) -> None:
    """FM-37: the throttling reply, the rate now and the next try are on the page of the batch, and no address."""
    scenario.build(students=[1, 2, 3])
    batch = scenario.plan("students")
    throttle(scenario.conn)
    throttle(scenario.conn, "rare.example", pause_seconds=0.0, wait=-1)
    browser = site.admin()
    text = page_text(browser.get(f"/batches/{batch}"))
    assert "The mail server asked for fewer mails at " in text
    assert ": 454 slow; now 14 a second, next try in " in text
    assert "1 recipient domain asks for fewer mails." in text
    assert "rare.example" not in text
    assert "rare.example asked for fewer mails" in page_text(browser.get("/system/rate/now"))


def test_doctor_says_it(site: Site, scenario: Scenario) -> None:
    """FM-37: `doctor` has a line about the rate; a server that takes nothing for long needs a person."""
    conn = scenario.conn
    assert sending.describe(sending.read(conn, SendRates())) == "no limit, of the settings"
    throttle(conn)
    now = sending.read(conn, parse("14/s", None, None))
    assert not now.needs_a_person
    assert sending.describe(now).startswith("14/s, of the settings; The mail server asked for fewer mails at ")
    throttle(conn, pause_seconds=60)
    assert sending.read(conn, SendRates()).needs_a_person


def test_the_time_left_uses_the_rate(site: Site, scenario: Scenario) -> None:
    """The estimate follows the rate in force, also before the first mail was sent; a paused batch has none."""
    scenario.build(students=list(range(1, 101)))
    batch = scenario.plan("students")
    conn = scenario.conn
    assert read_progress(conn, batch, SendRates()).seconds_left is None
    assert read_progress(conn, batch, parse("5/s", None, None)).seconds_left == pytest.approx(20)
    throttle(conn, ceiling=1.0, pause_seconds=0.0, wait=-1)
    assert read_progress(conn, batch, SendRates()).seconds_left == pytest.approx(100 / 0.9)
    conn.execute("UPDATE batches SET state = 'paused'")
    assert read_progress(conn, batch, SendRates()).seconds_left is None
    conn.execute("UPDATE batches SET state = 'running'")
