"""Sign-in by OpenID Connect against a provider that validates like a real one, and everything that must not sign in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import structlog
from httpx2 import Response
from joserfc.jwk import OctKey, RSAKey

from config.settings import Settings
from db import accounts, sign_in_requests
from tests.acceptance.processes import eventually
from tests.integration.oidc_provider import CLIENT_ID, CLIENT_SECRET, FakeProvider, running_provider
from tests.integration.scenario import Scenario
from tests.integration.site import Browser, Site, open_site, page_text
from web.auth import oidc, sign_in
from web.auth.oidc_provider import MAX_WAITING, Provider, ProviderError

BASE = "http://testserver"
FAILED = "Signing in with the club did not work"
NO_ACCOUNT = "have no account here"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider with this site as its client."""
    with running_provider(f"{BASE}/sign-in/callback") as provider:
        yield provider


@pytest.fixture
def site(scenario: Scenario, database_url: str, provider: FakeProvider) -> Iterator[Site]:
    """A site with that provider, and with Olga's account."""
    with open_site(database_url, scenario.conn, **settings(provider)) as site:
        site.account("olga@bidden.example")
        yield site


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the site logs about sign-ins, however an earlier test has configured logging."""
    lines = StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(lines), processors=[structlog.dev.ConsoleRenderer(colors=False)]
    )
    for module in (oidc, sign_in):
        monkeypatch.setattr(module, "log", logger)
    return lines


def settings(provider: FakeProvider) -> dict[str, Any]:
    """The site's settings for the provider."""
    return {
        "base_url": BASE,
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_name": "the club",
    }


def follow(redirect: Response) -> str:
    """Signs in at the provider; returns the callback to which it redirects."""
    assert redirect.status_code == 303, page_text(redirect)
    answer = httpx2.get(redirect.headers["location"])
    assert answer.status_code == 302, answer.text
    return answer.headers["location"].removeprefix(BASE)


def to_callback(browser: Browser) -> str:
    """Begins a sign-in, and signs in at the provider."""
    return follow(browser.get("/sign-in/provider"))


def sessions(site: Site) -> int:
    """The number of sessions."""
    row = site.conn.execute("SELECT count(*) AS n FROM sessions").fetchone()
    assert row is not None
    return int(row["n"])


def assert_refused(site: Site, answer: Response, sentence: str, status: int = 403) -> None:
    """The sign-in page with this sentence, and no session."""
    assert (answer.status_code, sentence in page_text(answer)) == (status, True), page_text(answer)
    assert not answer.cookies.get("bidden")
    assert sessions(site) == 0


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"]])
def test_signed_in(site: Site, provider: FakeProvider, methods: list[str]) -> None:
    """A session, the requested page, an entry in the audit log, and no pending request left."""
    provider.auth_methods = methods
    browser = site.browser()
    assert "Sign in with the club" in page_text(browser.get("/sign-in"))
    redirect = browser.get("/sign-in/provider?next=/batches")
    cookie = redirect.headers["set-cookie"]
    assert ("HttpOnly" in cookie, "SameSite=lax" in cookie, "Max-Age=600" in cookie) == (True, True, True)
    parameters = parse_qs(urlsplit(redirect.headers["location"]).query)
    assert parameters["code_challenge_method"] == ["S256"]
    done = browser.get(follow(redirect))
    assert (done.status_code, done.headers["location"]) == (303, "/batches")
    assert "Olga" in page_text(browser.get("/batches"))
    assert "bidden-sign-in" not in browser.client.cookies
    assert site.conn.execute("SELECT * FROM sign_in_requests").fetchall() == []
    trail = site.conn.execute("SELECT actor, action, detail FROM audit_log").fetchall()
    assert trail == [{"actor": "Olga <olga@bidden.example>", "action": "sign in", "detail": "by OpenID Connect"}]


def test_only_digests_are_stored(site: Site, provider: FakeProvider) -> None:
    """A copy of the table does not suffice to complete a sign-in."""
    redirect = site.browser().get("/sign-in/provider")
    state = parse_qs(urlsplit(redirect.headers["location"]).query)["state"][0]
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
        {"aud": "another", "azp": CLIENT_ID},
        {"azp": "another"},
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
def test_invalid_id_tokens(site: Site, provider: FakeProvider, claims: dict[str, Any]) -> None:
    """For another client, from another issuer, expired, or without a required claim."""
    provider.claims = claims
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), FAILED)


def test_foreign_and_rotated_keys(site: Site, provider: FakeProvider) -> None:
    """A foreign key is refused, under the provider's key id and under another; the provider's own new key is not."""
    for kid in (str(provider.key.kid), "other"):
        provider.signing_key = RSAKey.generate_key(2048, {"kid": kid}, private=True)
        browser = site.browser()
        assert_refused(site, browser.get(to_callback(browser)), FAILED)
    provider.rotate_keys()
    browser = site.browser()
    assert browser.get(to_callback(browser)).status_code == 303


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_forgeable_signatures(site: Site, provider: FakeProvider, algorithm: str) -> None:
    """Unsigned, or signed with the client secret: refused, although the provider announces both algorithms."""
    provider.algorithm = algorithm
    provider.signing_key = OctKey.import_key(CLIENT_SECRET, {"kid": str(provider.key.kid)})
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), FAILED)


@pytest.mark.parametrize(
    ("userinfo", "sentence"),
    [
        ({}, None),
        ({"sub": "another"}, FAILED),
        ({"sub": None}, FAILED),
        ({"email": None}, FAILED),
        ({"email_verified": False}, NO_ACCOUNT),
        ({"email_verified": None}, NO_ACCOUNT),
    ],
    ids=str,
)
def test_email_from_userinfo(
    site: Site, provider: FakeProvider, userinfo: dict[str, Any], sentence: str | None
) -> None:
    """Where the ID token names no e-mail address, the userinfo of the same subject does, if it is verified there."""
    provider.claims = {"email": None}
    provider.userinfo = {"sub": "4711", "email": "olga@bidden.example", "email_verified": True, **userinfo}
    browser = site.browser()
    done = browser.get(to_callback(browser))
    if sentence is None:
        assert (done.status_code, sessions(site)) == (303, 1)
    else:
        assert_refused(site, done, sentence)
    assert provider.requests == ["discovery", "keys", "userinfo"]


def test_an_id_token_with_an_email_needs_no_userinfo(site: Site, provider: FakeProvider) -> None:
    """What it says counts."""
    provider.claims = {"email_verified": False}
    provider.userinfo = {"sub": "4711", "email": "olga@bidden.example", "email_verified": True}
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), NO_ACCOUNT)
    assert provider.requests == ["discovery", "keys"]


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "unknown@bidden.example"},
        {"email": "a\0b@bidden.example"},
        {"email": "olga@bidden.example "},
    ],
    ids=str,
)
def test_no_account(site: Site, provider: FakeProvider, claims: dict[str, Any]) -> None:
    """The provider's users need an account here, and an address that it has not verified counts for none."""
    provider.claims = claims
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), NO_ACCOUNT)


def test_a_disabled_account(site: Site, provider: FakeProvider) -> None:
    """With the same answer as no account."""
    site.conn.execute("UPDATE accounts SET disabled_at = now()")
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), NO_ACCOUNT)


def test_disabled_during_the_sign_in(site: Site, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the account was found, and before its session is stored."""
    real = sign_in_requests.find_by_identity

    def find(*arguments: Any) -> Any:
        found = real(*arguments)
        site.conn.execute("UPDATE accounts SET disabled_at = now()")
        return found

    monkeypatch.setattr(sign_in_requests, "find_by_identity", find)
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), NO_ACCOUNT)


@pytest.mark.parametrize(
    "email", ["\u212aelvin@bidden.example", "\u212aELVIN@bidden.example", "kelv\u0130n@bidden.example"]
)
def test_letters_that_look_alike(site: Site, provider: FakeProvider, email: str) -> None:
    """A verified address with a Kelvin sign or a dotted I is not the account's, however a lower case folds it."""
    site.account("kelvin@bidden.example")
    provider.claims = {"email": email}
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), NO_ACCOUNT)
    provider.claims = {"email": "KELVIN@Bidden.example"}
    assert browser.get(to_callback(browser)).status_code == 303


def test_the_subject_is_bound_at_the_first_sign_in(site: Site, provider: FakeProvider) -> None:
    """Later sign-ins go by it, whatever the address; another subject with the account's is refused until a reset."""
    browser = site.browser()
    assert browser.get(to_callback(browser)).status_code == 303
    provider.claims = {"email": "new.name@elsewhere.example", "email_verified": False}
    assert browser.get(to_callback(browser)).status_code == 303
    assert "Olga" in page_text(browser.get("/batches"))
    provider.claims = {"sub": "another"}
    stranger = site.browser()
    answer = stranger.get(to_callback(stranger))
    assert (answer.status_code, NO_ACCOUNT in page_text(answer)) == (403, True)
    other = site.account("zoe@bidden.example")
    provider.claims = {"email": "zoe@bidden.example"}
    assert "Olga" in page_text((browser.get(to_callback(browser)), browser.get("/batches"))[1])
    assert site.conn.execute("SELECT oidc_subject FROM accounts WHERE id = %s", (other,)).fetchall() == [
        {"oidc_subject": None}
    ]
    olga = accounts.get_by_email(site.conn, "olga@bidden.example")
    accounts.enable(site.conn, olga.id)
    provider.claims = {"sub": "another"}
    assert stranger.get(to_callback(stranger)).status_code == 303


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\0b", 4711, None])
def test_subjects_that_are_none(site: Site, provider: FakeProvider, subject: Any) -> None:
    """Empty, too long, not storable, no text."""
    provider.claims = {"sub": subject}
    browser = site.browser()
    assert_refused(site, browser.get(to_callback(browser)), FAILED)


def test_a_callback_in_another_browser(site: Site, provider: FakeProvider) -> None:
    """A callback sent to a victim signs them in to nothing (login CSRF), and stays valid for its owner."""
    owner, victim = site.browser(), site.browser()
    back = to_callback(owner)
    assert_refused(site, victim.get(back), FAILED)
    to_callback(victim)
    assert_refused(site, victim.get(back), FAILED)
    assert owner.get(back).status_code == 303


def test_a_state_is_good_once(site: Site, provider: FakeProvider) -> None:
    """Even if the cookie is kept, whatever the first outcome was; and for ten minutes only."""
    browser = site.browser()
    back = to_callback(browser)
    state = browser.client.cookies["bidden-sign-in"]
    assert browser.get(back).status_code == 303
    site.conn.execute("DELETE FROM sessions")
    for _ in range(2):
        browser.client.cookies.set("bidden-sign-in", state)
        assert_refused(site, browser.get(back), FAILED)
    late = site.browser()
    back = to_callback(late)
    site.conn.execute("UPDATE sign_in_requests SET expires_at = now() - interval '1 second'")
    assert_refused(site, late.get(back), FAILED)
    assert site.conn.execute("SELECT * FROM sign_in_requests").fetchall() == []


@pytest.mark.parametrize("query", ["", "?state=", "?state=x&code=y", "?state=%00", "?code=x", "?error=access_denied"])
def test_a_callback_without_a_request(site: Site, query: str) -> None:
    """Whatever its parameters are."""
    assert_refused(site, site.browser().get(f"/sign-in/callback{query}"), FAILED)


def test_the_provider_refuses(site: Site, provider: FakeProvider) -> None:
    """The user has cancelled, or the code is unknown or missing."""
    browser = site.browser()
    for given in ("error=access_denied", "code=made-up", "code="):
        state = parse_qs(urlsplit(to_callback(browser)).query)["state"][0]
        assert_refused(site, browser.get(f"/sign-in/callback?state={state}&{given}"), FAILED)


def test_the_code_of_another_sign_in(site: Site, provider: FakeProvider) -> None:
    """PKCE: a stolen code is useless with the state of another sign-in."""
    thief = site.browser()
    stolen = parse_qs(urlsplit(to_callback(site.browser())).query)["code"][0]
    state = parse_qs(urlsplit(to_callback(thief)).query)["state"][0]
    assert_refused(site, thief.get(f"/sign-in/callback?state={state}&code={stolen}"), FAILED)


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:x"]
)
def test_no_open_redirect(site: Site, provider: FakeProvider, place: str) -> None:
    """A sign-in leads to a page of this site, or to the first one."""
    browser = site.browser()
    done = browser.get(follow(browser.get("/sign-in/provider", params={"next": place})))
    assert (done.status_code, done.headers["location"]) == (303, "/")


def test_metadata_is_cached(site: Site, provider: FakeProvider) -> None:
    """Metadata and keys are fetched once, not for each sign-in."""
    for _ in range(3):
        browser = site.browser()
        assert browser.get(to_callback(browser)).status_code == 303
    assert provider.requests == ["discovery", "keys"]


def test_metadata_expires(provider: FakeProvider) -> None:
    """After ten minutes both are fetched again: a withdrawn key is refused, a moved endpoint is found."""
    now = [0.0]
    client = Provider(Settings(**settings(provider)), lambda: now[0])
    for at, requests in ((0.0, 2), (600.0, 2), (600.5, 4)):
        now[0] = at
        asyncio.run(client.authorization_request())
        assert len(provider.requests) == requests


def test_another_process_completes_the_sign_in(
    site: Site, scenario: Scenario, database_url: str, provider: FakeProvider
) -> None:
    """Processes share the pending requests, and no secret of their own."""
    browser = site.browser()
    back = to_callback(browser)
    with open_site(database_url, scenario.conn, **settings(provider)) as other:
        elsewhere = other.browser()
        elsewhere.client.cookies.set("bidden-sign-in", browser.client.cookies["bidden-sign-in"])
        assert elsewhere.get(back).status_code == 303
    assert browser.get(back).status_code == 403


@pytest.mark.parametrize(
    ("scheme", "parts"), [("https", ["__Host-bidden-sign-in=", "Secure"]), ("http", ["bidden-sign-in="])]
)
def test_the_cookie_of_a_pending_sign_in(scenario: Scenario, database_url: str, scheme: str, parts: list[str]) -> None:
    """With HTTPS its name binds it to this host and to HTTPS."""
    with (
        running_provider(f"{scheme}://testserver/sign-in/callback") as provider,
        open_site(database_url, scenario.conn, **settings(provider) | {"base_url": f"{scheme}://testserver"}) as site,
    ):
        cookie = site.browser().get("/sign-in/provider").headers["set-cookie"]
    assert cookie.startswith(parts[0])
    assert ("Secure" in cookie.split("; ")) == ("Secure" in parts)
    assert ("Path=/" in cookie, "domain" in cookie.lower()) == (True, False)


def test_throttled_by_address(site: Site, provider: FakeProvider) -> None:
    """One address may begin 60 sign-ins: so it cannot fill the table."""
    answers = [site.browser().get("/sign-in/provider").status_code for _ in range(61)]
    assert answers == [303] * 60 + [429]


def test_the_provider_is_away(
    scenario: Scenario, database_url: str, logged: StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the beginning, or between redirect and callback: a message, no traceback."""
    with running_provider(f"{BASE}/sign-in/callback") as provider:
        values = settings(provider)
    with open_site(database_url, scenario.conn, **values) as site:
        assert_refused(site, site.browser().get("/sign-in/provider"), FAILED, status=503)
    with (
        running_provider(f"{BASE}/sign-in/callback") as provider,
        open_site(database_url, scenario.conn, **settings(provider)) as site,
    ):
        browser = site.browser()
        back = to_callback(browser)
        provider.app.routes.clear()
        assert_refused(site, browser.get(back), FAILED)
    assert logged.getvalue().count("ConnectError") == 1
    with ExitStack() as stack:
        with running_provider(f"{BASE}/sign-in/callback") as provider:
            site = stack.enter_context(open_site(database_url, scenario.conn, **settings(provider)))
            browser = site.browser()
            back = to_callback(browser)
        assert_refused(site, browser.get(back), FAILED)
    assert logged.getvalue().count("ConnectError") == 2
    assert "Traceback" not in logged.getvalue() + str(capsys.readouterr())
    assert "it cannot be reached: ConnectError" in logged.getvalue()


def test_discovery_backs_off(provider: FakeProvider) -> None:
    """After a failure discovery is not tried again for 10 s: requests fail at once instead of waiting."""
    now, issuer = [0.0], provider.issuer
    client = Provider(Settings(**settings(provider)), lambda: now[0])
    provider.issuer = "http://elsewhere.example"
    for _ in range(3):
        with pytest.raises(ProviderError):
            asyncio.run(client.authorization_request())
    assert provider.requests == ["discovery"]
    provider.issuer = issuer
    now[0] += 10
    assert asyncio.run(client.authorization_request()).url.startswith(issuer)


def test_few_wait_for_the_provider(site: Site, provider: FakeProvider) -> None:
    """A slow provider holds few requests; further ones fail at once."""
    provider.is_answering.clear()
    try:
        with ThreadPoolExecutor(MAX_WAITING) as pool:
            waiting = [pool.submit(site.browser().get, "/sign-in/provider") for _ in range(MAX_WAITING)]
            eventually(lambda: len(provider.requests) == MAX_WAITING, "all wait for the provider")
            assert_refused(site, site.browser().get("/sign-in/provider"), FAILED, status=503)
            assert not any(answer.done() for answer in waiting)
            provider.is_answering.set()
            assert [answer.result().status_code for answer in waiting] == [303] * MAX_WAITING
    finally:
        provider.is_answering.set()
    assert site.browser().get("/sign-in/provider").status_code == 303


def test_no_secret_in_any_log(
    site: Site,
    provider: FakeProvider,
    logged: StringIO,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither in ours nor in those of libraries, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    for claims in ({}, {"nonce": "another"}, {"email": "unknown@bidden.example"}, {"aud": "another"}):
        provider.claims = claims
        browser = site.browser()
        browser.get(to_callback(browser))
    browser = site.browser()
    state = parse_qs(urlsplit(to_callback(browser)).query)["state"][0]
    browser.get(f"/sign-in/callback?state={state}&code=made-up-code")
    # The test's own browsers log URLs.
    own = ("/authorize?", "testserver/sign-in")
    lines = [record.getMessage() for record in caplog.records]
    text = "\n".join(line for line in lines if not any(word in line for word in own))
    text += logged.getvalue() + str(capsys.readouterr())
    assert "sign-in by the provider failed" in logged.getvalue()
    assert [secret for secret in (CLIENT_SECRET, "made-up-code", *provider.secrets) if secret in text] == []


def test_without_a_provider(scenario: Scenario, database_url: str) -> None:
    """Neither the link nor the routes."""
    with open_site(database_url, scenario.conn) as site:
        browser = site.browser()
        assert "Sign in with" not in page_text(browser.get("/sign-in"))
        for path in ("/sign-in/provider", "/sign-in/callback"):
            assert browser.get(path).status_code == 404
