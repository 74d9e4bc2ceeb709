"""Signing in by OpenID Connect, with a provider that really checks; and everything that must not get anybody in."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog
from httpx2 import Response
from joserfc.jwk import RSAKey

from config.settings import Settings
from db import accounts
from tests.acceptance.processes import eventually
from tests.integration.oidc_provider import CLIENT_ID, CLIENT_SECRET, FakeProvider, running_provider
from tests.integration.site import Browser, Site, open_site, words
from tests.integration.world import World
from web.auth import oidc, sign_in
from web.auth.oidc_provider import AT_ONCE, Provider, ProviderError

BASE = "http://testserver"
NOT_WORKED = "Signing in with the club did not work"
NO_ACCOUNT = "have no account here"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that knows this site."""
    with running_provider(f"{BASE}/sign-in/callback") as provider:
        yield provider


@pytest.fixture
def site(world: World, database_url: str, provider: FakeProvider) -> Iterator[Site]:
    """A site that knows the provider, with Olga's account."""
    with open_site(database_url, world.conn, **settings(provider)) as site:
        site.account("olga@bidden.example")
        yield site


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the site logs about signing in, whatever a command before has set logs up to be."""
    lines = StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(lines), processors=[structlog.dev.ConsoleRenderer(colors=False)]
    )
    for module in (oidc, sign_in):
        monkeypatch.setattr(module, "log", logger)
    return lines


def settings(provider: FakeProvider) -> dict[str, Any]:
    """As the site knows the provider."""
    return {
        "base_url": BASE,
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_name": "the club",
    }


def away_and_back(browser: Browser, query: str = "") -> str:
    """The address at which the provider sends a browser back."""
    away = browser.get(f"/sign-in/provider{query}")
    assert away.status_code == 303, words(away)
    back = httpx.get(away.headers["location"])
    assert back.status_code == 302, back.text
    return back.headers["location"].removeprefix(BASE)


def sessions(site: Site) -> int:
    """How many are signed in."""
    row = site.conn.execute("SELECT count(*) AS n FROM sessions").fetchone()
    assert row is not None
    return int(row["n"])


def assert_refused(site: Site, answer: Response, sentence: str, status: int = 403) -> None:
    """Back at the sign-in page, with these words and without a session."""
    assert (answer.status_code, sentence in words(answer)) == (status, True), words(answer)
    assert not answer.cookies.get("bidden")
    assert sessions(site) == 0


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"]])
def test_signed_in(site: Site, provider: FakeProvider, methods: list[str]) -> None:
    """There and back: a session, the page that was wanted, an entry in the trail, and nothing left of the way."""
    provider.auth_methods = methods
    browser = site.browser()
    assert "Sign in with the club" in words(browser.get("/sign-in"))
    away = browser.get("/sign-in/provider?next=/batches")
    cookie = away.headers["set-cookie"]
    assert ("HttpOnly" in cookie, "SameSite=lax" in cookie, "Max-Age=600" in cookie) == (True, True, True)
    asked = parse_qs(urlsplit(away.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    done = browser.get(httpx.get(away.headers["location"]).headers["location"].removeprefix(BASE))
    assert (done.status_code, done.headers["location"]) == (303, "/batches")
    assert "Olga" in words(browser.get("/batches"))
    assert "bidden-sign-in" not in browser.client.cookies
    assert site.conn.execute("SELECT * FROM sign_in_requests").fetchall() == []
    trail = site.conn.execute("SELECT actor, action, detail FROM audit_log").fetchall()
    assert trail == [{"actor": "Olga <olga@bidden.example>", "action": "sign in", "detail": "by OpenID Connect"}]


def test_only_digests_are_kept(site: Site, provider: FakeProvider) -> None:
    """Who reads the table cannot finish a sign-in."""
    away = site.browser().get("/sign-in/provider")
    state = parse_qs(urlsplit(away.headers["location"]).query)["state"][0]
    rows = site.conn.execute("SELECT sign_in_requests::text AS all FROM sign_in_requests").fetchall()
    assert len(rows) == 1
    assert state not in rows[0]["all"]


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["x"]},
        {"aud": "another"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "http://127.0.0.1:1"},
        {"iss": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"exp": "never"},
        {"iat": int(time.time()) + 3600},
        {"email": None},
        {"email": ["olga@bidden.example"]},
    ],
    ids=lambda claims: "-".join(claims),
)
def test_tokens_that_do_not_hold(site: Site, provider: FakeProvider, claims: dict[str, Any]) -> None:
    """For another, of another, too old, or without what it must say."""
    provider.claims = claims
    browser = site.browser()
    assert_refused(site, browser.get(away_and_back(browser)), NOT_WORKED)


def test_signed_by_somebody_else(site: Site, provider: FakeProvider) -> None:
    """Under the provider's key id, and under another; by its own new key it is fine."""
    for kid in (str(provider.key.kid), "other"):
        provider.signs_with = RSAKey.generate_key(2048, {"kid": kid}, private=True)
        browser = site.browser()
        assert_refused(site, browser.get(away_and_back(browser)), NOT_WORKED)
    provider.renew_keys()
    browser = site.browser()
    assert browser.get(away_and_back(browser)).status_code == 303


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "nobody@bidden.example"},
        {"email": "a\0b@bidden.example"},
        {"email": "olga@bidden.example "},
    ],
    ids=str,
)
def test_no_account(site: Site, provider: FakeProvider, claims: dict[str, Any]) -> None:
    """Known to the provider is not known here, and an address that it did not check is nobody's."""
    provider.claims = claims
    browser = site.browser()
    assert_refused(site, browser.get(away_and_back(browser)), NO_ACCOUNT)


def test_a_disabled_account(site: Site, provider: FakeProvider) -> None:
    """In the same words as no account."""
    site.conn.execute("UPDATE accounts SET disabled_at = now()")
    browser = site.browser()
    assert_refused(site, browser.get(away_and_back(browser)), NO_ACCOUNT)


def test_disabled_meanwhile(site: Site, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the account was looked up, and before its session begins."""
    real = accounts.to_sign_in

    def find(*arguments: Any) -> Any:
        found = real(*arguments)
        site.conn.execute("UPDATE accounts SET disabled_at = now()")
        return found

    monkeypatch.setattr(accounts, "to_sign_in", find)
    browser = site.browser()
    assert_refused(site, browser.get(away_and_back(browser)), NO_ACCOUNT)


def test_another_browser_with_the_address(site: Site, provider: FakeProvider) -> None:
    """Somebody is sent the address of another's way back: it signs nobody in, and is still good for its owner."""
    owner, victim = site.browser(), site.browser()
    back = away_and_back(owner)
    assert_refused(site, victim.get(back), NOT_WORKED)
    away_and_back(victim)
    assert_refused(site, victim.get(back), NOT_WORKED)
    assert owner.get(back).status_code == 303


def test_a_way_back_is_good_once(site: Site, provider: FakeProvider) -> None:
    """Even with the cookie kept, and when the first came to nothing; and for ten minutes only."""
    browser = site.browser()
    back = away_and_back(browser)
    state = browser.client.cookies["bidden-sign-in"]
    assert browser.get(back).status_code == 303
    site.conn.execute("DELETE FROM sessions")
    for _ in range(2):
        browser.client.cookies.set("bidden-sign-in", state)
        assert_refused(site, browser.get(back), NOT_WORKED)
    late = site.browser()
    back = away_and_back(late)
    site.conn.execute("UPDATE sign_in_requests SET expires_at = now() - interval '1 second'")
    assert_refused(site, late.get(back), NOT_WORKED)
    assert site.conn.execute("SELECT * FROM sign_in_requests").fetchall() == []


@pytest.mark.parametrize("query", ["", "?state=", "?state=x&code=y", "?state=%00", "?code=x", "?error=access_denied"])
def test_a_way_back_that_was_never_begun(site: Site, query: str) -> None:
    """Whatever somebody types."""
    assert_refused(site, site.browser().get(f"/sign-in/callback{query}"), NOT_WORKED)


def test_the_provider_says_no(site: Site, provider: FakeProvider) -> None:
    """Somebody pressed cancel there, or the code is another's."""
    browser = site.browser()
    for given in ("error=access_denied", "code=made-up", "code="):
        state = parse_qs(urlsplit(away_and_back(browser)).query)["state"][0]
        assert_refused(site, browser.get(f"/sign-in/callback?state={state}&{given}"), NOT_WORKED)


def test_the_code_of_another_sign_in(site: Site, provider: FakeProvider) -> None:
    """PKCE: a code that was stolen is worth nothing with another's state."""
    thief = site.browser()
    stolen = parse_qs(urlsplit(away_and_back(site.browser())).query)["code"][0]
    state = parse_qs(urlsplit(away_and_back(thief)).query)["state"][0]
    assert_refused(site, thief.get(f"/sign-in/callback?state={state}&code={stolen}"), NOT_WORKED)


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:x"]
)
def test_it_leads_nowhere_else(site: Site, provider: FakeProvider, place: str) -> None:
    """What was wanted is a page of this site, or the first one."""
    browser = site.browser()
    away = browser.get("/sign-in/provider", params={"next": place})
    done = browser.get(httpx.get(away.headers["location"]).headers["location"].removeprefix(BASE))
    assert (done.status_code, done.headers["location"]) == (303, "/")


def test_published_once(site: Site, provider: FakeProvider) -> None:
    """What the provider publishes is asked for once in a while, not by every visitor."""
    for _ in range(3):
        browser = site.browser()
        assert browser.get(away_and_back(browser)).status_code == 303
    assert provider.asked == ["discovery", "keys"]


def test_nobody_fills_the_table(site: Site, provider: FakeProvider) -> None:
    """One address may begin so often, and no more."""
    answers = [site.browser().get("/sign-in/provider").status_code for _ in range(61)]
    assert answers == [303] * 60 + [429]


def test_the_provider_is_away(
    world: World, database_url: str, said: StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it began and in between: a sentence, no traceback."""
    with running_provider(f"{BASE}/sign-in/callback") as provider:
        stays = settings(provider)
    with open_site(database_url, world.conn, **stays) as site:
        assert_refused(site, site.browser().get("/sign-in/provider"), NOT_WORKED, status=503)
    with (
        running_provider(f"{BASE}/sign-in/callback") as provider,
        open_site(database_url, world.conn, **settings(provider)) as site,
    ):
        browser = site.browser()
        back = away_and_back(browser)
        provider.app.routes.clear()
        assert_refused(site, browser.get(back), NOT_WORKED)
    assert "Traceback" not in said.getvalue() + str(capsys.readouterr())
    assert "it cannot be reached: ConnectError" in said.getvalue()


def test_a_provider_that_is_away_is_asked_once_in_a_while(provider: FakeProvider) -> None:
    """Whoever comes meanwhile is answered at once, and waits for nothing."""
    now, issuer = [0.0], provider.issuer
    ours = Provider(Settings(**settings(provider)), lambda: now[0])
    provider.issuer = "http://elsewhere.example"
    for _ in range(3):
        with pytest.raises(ProviderError):
            ours.sign_in_address(state="s", nonce="n", verifier="v" * 43)
    assert provider.asked == ["discovery"]
    provider.issuer = issuer
    now[0] += 10
    assert ours.sign_in_address(state="s", nonce="n", verifier="v" * 43).startswith(issuer)


def test_few_wait_for_the_provider(site: Site, provider: FakeProvider) -> None:
    """While it takes its time, it keeps few of the threads that everybody else is answered by."""
    provider.answers.clear()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = [pool.submit(site.browser().get, "/sign-in/provider") for _ in range(AT_ONCE)]
            eventually(lambda: len(provider.asked) == AT_ONCE, "all of them wait")
            assert_refused(site, site.browser().get("/sign-in/provider"), NOT_WORKED, status=503)
            assert not any(answer.done() for answer in waiting)
            provider.answers.set()
            assert [answer.result().status_code for answer in waiting] == [303] * AT_ONCE
    finally:
        provider.answers.set()
    assert site.browser().get("/sign-in/provider").status_code == 303


def test_no_secret_in_any_log(
    site: Site,
    provider: FakeProvider,
    said: StringIO,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither of ours nor of any library, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    for claims in ({}, {"nonce": "another"}, {"email": "nobody@bidden.example"}, {"aud": "another"}):
        provider.claims = claims
        browser = site.browser()
        browser.get(away_and_back(browser))
    browser = site.browser()
    state = parse_qs(urlsplit(away_and_back(browser)).query)["state"][0]
    browser.get(f"/sign-in/callback?state={state}&code=made-up-code")
    # What the test's own browsers log is not ours.
    own = ("/authorize?", "testserver/sign-in")
    lines = [record.getMessage() for record in caplog.records]
    all_said = "\n".join(line for line in lines if not any(word in line for word in own))
    all_said += said.getvalue() + str(capsys.readouterr())
    assert "came to nothing" in said.getvalue()
    assert [secret for secret in (CLIENT_SECRET, "made-up-code", *provider.secrets) if secret in all_said] == []


def test_without_a_provider(world: World, database_url: str) -> None:
    """Nothing is there."""
    with open_site(database_url, world.conn) as site:
        browser = site.browser()
        assert "Sign in with" not in words(browser.get("/sign-in"))
        for path in ("/sign-in/provider", "/sign-in/callback"):
            assert browser.get(path).status_code == 404
