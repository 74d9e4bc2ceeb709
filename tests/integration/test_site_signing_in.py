"""Sign-in with a password: sessions, throttling, open redirects, and cross-site requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from db.connect import connect
from tests.acceptance.processes import eventually
from tests.integration.scenario import Scenario
from tests.integration.site import PASSWORD, Browser, Site, open_site, page_text
from web.auth import tokens
from web.auth.sign_in import local_path

WRONG = "Wrong e-mail address or password"
TOO_MANY = "Too many attempts"


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """A site with event 1 and Olga, an organiser of chapter 1."""
    scenario.build(students=[1])
    with open_site(database_url, scenario.conn) as site:
        site.account("olga@bidden.example", chapters=[1], password=PASSWORD)
        yield site


def sign_in(browser: Browser, email: str = "olga@bidden.example", password: str = PASSWORD, **more: Any) -> Response:
    """Submits the sign-in form."""
    headers = more.pop("headers", {})
    return browser.client.post("/sign-in", data={"email": email, "password": password, **more}, headers=headers)


def is_signed_in(browser: Browser) -> bool:
    """Whether the browser gets a page that needs a session."""
    answer = browser.get("/events")
    assert answer.status_code in (200, 303)
    return answer.status_code == 200


def at(site: Site, address: str) -> Browser:
    """A browser with this IP address."""
    return Browser(TestClient(site.app, follow_redirects=False, client=(address, 1)), None)


# Sessions.


def test_sign_in_and_sign_out(site: Site) -> None:
    """The right password starts a session, in whatever case the address is typed; both are in the audit log."""
    browser = site.browser()
    assert browser.get("/batches?skip=50").headers["location"] == "/sign-in?next=%2Fbatches%3Fskip%3D50"
    done = sign_in(browser, " Olga@BIDDEN.example ", next="/batches?skip=50")
    assert (done.status_code, done.headers["location"]) == (303, "/batches?skip=50")
    assert is_signed_in(browser)
    browser.token = browser.client.cookies["bidden"]
    gone = browser.post("/sign-out")
    assert (gone.status_code, gone.headers["location"]) == (303, "/sign-in")
    assert not is_signed_in(browser)
    browser.client.cookies.set("bidden", browser.token)
    assert not is_signed_in(browser)
    trail = site.conn.execute("SELECT actor, action, outcome FROM audit_log ORDER BY id").fetchall()
    assert [(row["action"], row["outcome"]) for row in trail] == [("sign in", "done"), ("sign out", "done")]
    assert {row["actor"] for row in trail} == {"Olga <olga@bidden.example>"}


def test_only_digests_are_stored(site: Site) -> None:
    """A copy of the table does not suffice to take over a session; passwords are hashed with Argon2id."""
    browser = site.browser()
    sign_in(browser)
    (row,) = site.conn.execute("SELECT token_hash, sessions::text AS all FROM sessions").fetchall()
    assert row["token_hash"] == tokens.digest(browser.client.cookies["bidden"])
    assert browser.client.cookies["bidden"] not in row["all"]
    (account,) = site.conn.execute("SELECT password_hash FROM accounts").fetchall()
    assert account["password_hash"].startswith("$argon2id$")


def test_no_session_fixation(site: Site) -> None:
    """Each sign-in makes a new token, and ends the session that the browser had."""
    browser = site.browser()
    browser.client.cookies.set("bidden", "planted", domain="testserver.local", path="/")
    sign_in(browser)
    first = browser.client.cookies["bidden"]
    sign_in(browser)
    assert len({"planted", first, browser.client.cookies["bidden"]}) == 3
    assert site.conn.execute("SELECT count(*) AS n FROM sessions").fetchall() == [{"n": 1}]


@pytest.mark.parametrize(("scheme", "name"), [("https", "__Host-bidden"), ("http", "bidden")])
def test_cookie(scenario: Scenario, database_url: str, scheme: str, name: str) -> None:
    """No script can read it, no other site's form sends it; with HTTPS it is bound to HTTPS and the host."""
    base = f"{scheme}://testserver"
    with open_site(database_url, scenario.conn, base_url=base) as site:
        site.account("olga@bidden.example", password=PASSWORD)
        browser = Browser(TestClient(site.app, base_url=base, follow_redirects=False), None)
        cookie = sign_in(browser).headers["set-cookie"]
        assert is_signed_in(browser)
    parts = cookie.split("; ")
    assert parts[0].startswith(f"{name}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=604800"} <= set(parts)
    assert ("Secure" in parts) == (scheme == "https")
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE sessions SET seen_at = now() - interval '12 hours 1 second'",
        "UPDATE sessions SET expires_at = now()",
        "UPDATE accounts SET disabled_at = now()",
        "DELETE FROM sessions",
        "DELETE FROM accounts",
    ],
)
def test_a_session_ends(site: Site, scenario: Scenario, end: Any) -> None:
    """After twelve idle hours, after a week, with its account: pages and forms alike redirect to the sign-in."""
    browser = site.browser()
    sign_in(browser)
    browser.token = browser.client.cookies["bidden"]
    assert is_signed_in(browser)
    scenario.execute(end)
    assert not is_signed_in(browser)
    assert browser.post("/account/password", {}).headers["location"].startswith("/sign-in")
    assert (
        site.browser(None).get("/events", headers={"hx-request": "true"}).headers["hx-redirect"].startswith("/sign-in")
    )


def test_a_request_prolongs_the_session(site: Site, scenario: Scenario) -> None:
    """Its idle time starts again."""
    browser = site.browser()
    sign_in(browser)
    scenario.execute("UPDATE sessions SET seen_at = now() - interval '11 hours'")
    assert is_signed_in(browser)
    assert scenario.execute("SELECT seen_at > now() - interval '1 minute' AS is_fresh FROM sessions") == [
        {"is_fresh": True}
    ]


# The account changes during the sign-in.

CHANGES: list[Any] = [
    "UPDATE accounts SET password_hash = 'another'",
    "UPDATE accounts SET password_hash = NULL",
    "UPDATE accounts SET disabled_at = now()",
    "DELETE FROM accounts",
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_after_the_password_was_verified(
    site: Site, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    """A user locked out in between gets no session."""
    real = tokens.verify_password

    def verify(password: str, stored: str | None) -> bool:
        found = real(password, stored)
        scenario.execute(change)
        return found

    monkeypatch.setattr(tokens, "verify_password", verify)
    answer = sign_in(site.browser())
    assert (answer.status_code, WRONG in page_text(answer), "set-cookie" in answer.headers) == (403, True, False)
    assert scenario.execute("SELECT FROM sessions") == []
    assert scenario.execute("SELECT action, outcome FROM audit_log") == [{"action": "sign in", "outcome": "refused"}]


def test_an_uncommitted_change_is_waited_for(site: Site, scenario: Scenario, database_url: str) -> None:
    """The statement that stores the session waits for the change, then sees it."""
    with ThreadPoolExecutor(1) as pool, connect(database_url) as other:
        other.execute("UPDATE accounts SET password_hash = 'another'")
        other.execute("DELETE FROM sessions")
        answer = pool.submit(sign_in, site.browser())
        eventually(lambda: bool(scenario.waiting()) or answer.done(), "the session waits for the lock")
        other.commit()
        assert answer.result().status_code == 403
    assert scenario.execute("SELECT FROM sessions") == []


# Throttling.


def test_no_user_enumeration(site: Site, scenario: Scenario) -> None:
    """An unknown address and a wrong password get the same text, status and headers, after about the same time."""
    site.account("oidc@bidden.example")
    site.account("gone@bidden.example", password=PASSWORD)
    scenario.execute("UPDATE accounts SET disabled_at = now() WHERE email = 'gone@bidden.example'")
    answers = {}
    for email in ("olga@bidden.example", "nobody@bidden.example", "oidc@bidden.example", "gone@bidden.example"):
        times = []
        for attempt in range(5):
            began = perf_counter()
            answer = sign_in(at(site, f"10.0.0.{attempt}"), email, "not the password")
            times.append(perf_counter() - began)
        answers[email] = (answer.status_code, page_text(answer), sorted(answer.headers), median(times))
    assert answers["olga@bidden.example"][:2] == (403, answers["nobody@bidden.example"][1])
    assert WRONG in answers["olga@bidden.example"][1]
    assert len({answer[:2] for answer in answers.values()}) == 1
    assert len({tuple(answer[2]) for answer in answers.values()}) == 1
    # Verifying a hash takes dozens of milliseconds, all the rest a few.
    assert min(answer[3] for answer in answers.values()) > max(answer[3] for answer in answers.values()) / 4
    assert sign_in(site.browser(), "gone@bidden.example").status_code == 403


def test_any_input(site: Site) -> None:
    """Any input is answered as wrong."""
    for email in ("", "\0", "x" * 321 + "@example.org", "' OR 1=1 --", "%", "olga@bidden.example\0"):
        for password in ("", "x" * 2000, "p\0", "🦆"):
            answer = sign_in(site.browser(), email, password)
            assert (answer.status_code, WRONG in page_text(answer)) == (403, True)


def test_concurrent_guesses(site: Site) -> None:
    """They are counted before the password is verified: of twenty at once, five are verified."""

    def guess(number: int) -> int:
        return sign_in(at(site, "10.1.1.1"), password=f"guess number {number}").status_code

    with ThreadPoolExecutor(20) as pool:
        answers = sorted(pool.map(guess, range(20)))
    assert answers == [403] * 5 + [429] * 15


def test_throttled(site: Site, scenario: Scenario) -> None:
    """After five wrong passwords even the right one must wait until the window ends. Other clients are let in."""
    guesser, owner = at(site, "10.1.1.1"), at(site, "10.2.2.2")
    assert [sign_in(guesser, password="wrong").status_code for _ in range(40)] == [403] * 5 + [429] * 35
    answer = sign_in(guesser)
    assert (answer.status_code, TOO_MANY in page_text(answer)) == (429, True)
    assert 0 < int(answer.headers["retry-after"]) <= 15 * 60 + 1
    assert not is_signed_in(guesser)
    # Olga is not locked out of their own account.
    assert sign_in(owner).status_code == 303
    scenario.execute("UPDATE sign_in_attempts SET since = since - interval '15 minutes 1 second'")
    assert sign_in(guesser).status_code == 303


def test_guesses_from_everywhere(site: Site, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """After thirty at one e-mail address each IP address has two, and none locks out; sixty from one IP address."""
    verify = tokens.verify_password
    # Verifying a hundred hashes would take a minute.
    monkeypatch.setattr(tokens, "verify_password", lambda *_: False)
    assert {sign_in(at(site, f"10.3.0.{n}"), password="wrong").status_code for n in range(100)} == {403}
    assert [sign_in(at(site, "10.3.1.1"), password="wrong").status_code for _ in range(3)] == [403, 403, 429]
    monkeypatch.setattr(tokens, "verify_password", verify)
    assert sign_in(at(site, "10.3.2.2")).status_code == 303, "strangers lock the owner out"
    monkeypatch.setattr(tokens, "verify_password", lambda *_: False)
    answers = [sign_in(at(site, "10.4.4.4"), f"n{n}@bidden.example", "wrong").status_code for n in range(61)]
    assert answers == [403] * 60 + [429]
    before = scenario.execute("SELECT count(*) FROM sign_in_attempts")
    assert sign_in(at(site, "10.4.4.4"), "another@bidden.example", "wrong").status_code == 429
    assert scenario.execute("SELECT count(*) FROM sign_in_attempts") == before, "a throttled address adds rows"


def test_addresses_of_one_network(site: Site) -> None:
    """A client may choose its IPv6 address within a /64 network: that counts as one."""
    answers = [sign_in(at(site, f"2001:db8::{n}"), password="wrong").status_code for n in range(1, 7)]
    assert answers == [403] * 5 + [429]
    assert sign_in(at(site, "2001:db8:0:1::1")).status_code == 303


def test_a_success_resets_the_count(site: Site) -> None:
    """Failed attempts before it no longer count."""
    for _ in range(3):
        browser = site.browser()
        assert [sign_in(browser, password="wrong").status_code for _ in range(4)] == [403] * 4
        assert sign_in(browser).status_code == 303


def test_the_host_header_reaches_no_redirect(site: Site) -> None:
    """A redirect to a path without its slash, and to the sign-in, names no host: a forged one leads nowhere."""
    for path in ("/events/", "/events", "/batches/?skip=50", "//evil.example/", "/sign-in/"):
        answer = site.browser().get(path, headers={"host": "evil.example", "x-forwarded-host": "evil.example"})
        location = answer.headers.get("location", "/")
        assert location.startswith("/"), location
        assert not location.startswith(("//", "/\\")), location
        assert not location.removeprefix("/").startswith("evil"), location
    assert site.browser().get("/batches/?skip=50").headers["location"] == "/batches?skip=50"


# Addresses of clients.


def test_only_trusted_proxies_name_clients(scenario: Scenario, database_url: str) -> None:
    """Behind one, a stranger's wrong passwords stop the stranger; from elsewhere the header counts for nothing."""
    scenario.build(students=[1])
    with open_site(database_url, scenario.conn, trusted_proxies="10.9.0.0/16,::1") as site:
        site.account("olga@bidden.example", password=PASSWORD)
        by_proxy, direct = at(site, "10.9.0.1"), at(site, "203.0.113.7")

        def guess(browser: Browser, forwarded: str, password: str = "wrong") -> int:
            return sign_in(browser, password=password, headers={"x-forwarded-for": forwarded}).status_code

        assert [guess(by_proxy, "203.0.113.1") for _ in range(6)] == [403] * 5 + [429]
        assert guess(by_proxy, "203.0.113.2", PASSWORD) == 303, "one who shares the proxy is locked out"
        # What the client itself wrote comes first, and is not believed; nor is what is no address.
        assert guess(by_proxy, "203.0.113.2, 203.0.113.1") == 429
        assert [guess(by_proxy, f"nonsense {n}") for n in range(6)] == [403] * 5 + [429]
        assert [guess(direct, f"198.51.100.{n}") for n in range(6)] == [403] * 5 + [429]


def test_the_system_page_says_which_address_it_sees(scenario: Scenario, database_url: str) -> None:
    """The client's by a trusted proxy; and that a proxy is not trusted, and by which setting it is."""
    scenario.build(students=[1])
    with open_site(database_url, scenario.conn, trusted_proxies="10.9.0.1") as site:
        admin = site.account("ada@bidden.example", "admin")

        def shown(address: str) -> str:
            browser = at(site, address)
            browser.client.cookies = site.browser(admin).client.cookies
            path = "/system/servers"
            eventually(lambda: "Client addresses" in browser.get(path).text, "the servers were asked")
            return page_text(browser.get(path, headers={"x-forwarded-for": "203.0.113.1"}))

        assert "this request came from 203.0.113.1 by 10.9.0.1" in shown("10.9.0.1")
        assert "a proxy at 10.7.7.7 names other clients, and is not trusted: set BIDDEN_TRUSTED_PROXIES" in shown(
            "10.7.7.7"
        )


# Open redirects.

ELSEWHERE = [
    "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example",
    "javascript:alert(1)", "/\t/evil.example", "/\n/evil.example", "evil.example", "", "/ü", " /events", "http:/events",
    "/\x00",
]  # fmt: skip


def test_no_open_redirect(site: Site) -> None:
    """A sign-in leads to a page of this site only."""
    browser = site.browser()
    for place in ELSEWHERE:
        assert local_path(place) == "/"
        answer = browser.get("/sign-in", params={"next": place})
        assert re.findall(r'name="next" value="([^"]*)"', answer.text) == ["/"]
        assert sign_in(browser, next=place).headers["location"] == "/"


# Cross-site requests.

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "http://testserver.evil.example"},
    {"origin": "http://testserver:81"},
    {"origin": "http://["},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "null", "sec-fetch-site": "cross-site"},
    {"origin": "http://testserver", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "nonsense"},
]
OURS: list[dict[str, str]] = [
    {},
    {"origin": "http://testserver"},
    {"origin": "null", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {"origin": "http://testserver", "sec-fetch-site": "same-origin"},
]


def test_cross_site_requests(site: Site, scenario: Scenario) -> None:
    """Forms and sign-ins from another site are refused, even with a valid session and token."""
    browser, stranger = site.browser(1), site.browser()
    form = {"audience": "everyone", "key": "k" * 36}
    for headers in FOREIGN:
        assert browser.post("/events/1/invite", form, headers=headers).status_code == 403, headers
        assert browser.post("/sign-out", headers=headers).status_code == 403, headers
        assert is_signed_in(browser)
        assert sign_in(stranger, headers=headers).status_code == 403, headers
        assert not is_signed_in(stranger)
    assert scenario.execute("SELECT FROM batches") == []
    assert scenario.execute("SELECT FROM audit_log") == []


def test_same_site_requests(site: Site) -> None:
    """Accepted, whether or not the browser sends Origin and Sec-Fetch-Site."""
    browser = site.browser()
    for headers in OURS:
        assert sign_in(browser, headers=headers).status_code == 303, headers
        browser.token = browser.client.cookies["bidden"]
        assert browser.post("/sign-out", headers=headers).status_code == 303, headers


def test_every_form_needs_its_token(site: Site, scenario: Scenario) -> None:
    """A missing, wrong or empty CSRF token, or another session's, is refused. It may come in a header."""
    browser, other = site.browser(1), site.browser(1)
    assert browser.token is not None
    assert other.token is not None
    form = {"audience": "everyone", "key": "k" * 36}
    for wrong in (None, "", "x", "ü", "\0", tokens.csrf_token(other.token), browser.token):
        given = form if wrong is None else {**form, "csrf": wrong}
        answer = browser.client.post("/events/1/invite", data=given)
        assert (answer.status_code, "out of date" in page_text(answer)) == (403, True)
    in_query = browser.client.post(f"/events/1/invite?csrf={tokens.csrf_token(browser.token)}", data=form)
    assert in_query.status_code == 403
    as_file = browser.client.post("/events/1/invite", data=form, files={"csrf": b"x"})
    assert as_file.status_code == 403
    assert scenario.execute("SELECT FROM batches") == []
    assert scenario.execute("SELECT FROM audit_log") == []
    right = {"x-csrf-token": tokens.csrf_token(browser.token)}
    assert browser.client.post("/events/1/invite", data=form, headers=right).status_code == 303
