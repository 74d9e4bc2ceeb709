"""A forgotten password: the link by mail, who gets one, what it does, and what nobody learns from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import default
from typing import Any, Final

import pytest
import structlog
from fastapi.testclient import TestClient
from httpx2 import Response

from embedded.mail_server import MailServer
from tests.integration.scenario import Scenario
from tests.integration.site import PASSWORD, Browser, Site, open_site, page_text
from web.auth import tokens

OLGA: Final = "olga@bidden.example"
NEW: Final = "a new and long password"
GONE: Final = "This link works no more"


@pytest.fixture
def site(scenario: Scenario, database_url: str, mail_sink: MailServer) -> Iterator[Site]:
    """A site with a mail server, below a path, and Olga."""
    base_url = "http://testserver/club"
    with open_site(database_url, scenario.conn, smtp_url=mail_sink.url, base_url=base_url) as site:
        site.account(OLGA, password=PASSWORD)
        yield site


def ask(site: Site, email: str = OLGA, address: str = "10.0.0.1") -> Response:
    """Submits the form from this IP address."""
    client = TestClient(site.app, follow_redirects=False, client=(address, 1))
    return client.post("/club/password", data={"email": email})


def links(mail_sink: MailServer) -> list[str]:
    """The paths in the mails."""
    found = []
    for mail in mail_sink.mails():
        text = message_from_bytes(mail.data, policy=default).get_content()
        found += re.findall(r"http://testserver(/\S+/password/\S+)", text)
    return found


def choose(site: Site, link: str, password: str = NEW, again: str | None = None) -> Response:
    """Submits the page behind the link."""
    form = {"password": password, "again": password if again is None else again}
    return site.browser().client.post(link, data=form)


def sign_in(site: Site, password: str) -> int:
    return site.browser().client.post("/club/sign-in", data={"email": OLGA, "password": password}).status_code


def test_a_new_password_by_mail(site: Site, mail_sink: MailServer) -> None:
    """From the sign-in page to a new password, below a path: sessions end, and the trail has both steps."""
    browser = site.browser(site.conn.execute("SELECT id FROM accounts").fetchall()[0]["id"])
    (form,) = re.findall(r'href="([^"]+)">Forgot your password', site.browser().get("/club/sign-in").text)
    assert form == "/club/password"
    assert 'action="/club/password"' in site.browser().get(form).text
    assert ask(site, " Olga@BIDDEN.example ").status_code == 200
    (mail,) = mail_sink.mails()
    message = message_from_bytes(mail.data, policy=default)
    assert (mail.recipients, message["To"]) == ((OLGA,), f"Olga <{OLGA}>")
    assert message["Subject"] == "A new password for bidden"
    (link,) = links(mail_sink)
    page = site.browser().get(link)
    assert (page.status_code, f'action="{link}"' in page.text) == (200, True)
    assert page.headers["referrer-policy"] == "same-origin"
    # Neither a look nor what is refused uses the link up.
    for password, again, why in ((NEW, "another", "differ"), ("short", None, "12 to 1000 characters")):
        answer = choose(site, link, password, again)
        assert (answer.status_code, why in page_text(answer)) == (409, True)
    done = choose(site, link)
    assert done.status_code == 303
    assert done.headers["location"].startswith("/club/sign-in?said=")
    assert "Your new password is set" in page_text(site.browser().get(done.headers["location"]))
    assert browser.get("/club/events").headers["location"].startswith("/club/sign-in")
    assert (sign_in(site, PASSWORD), sign_in(site, NEW)) == (403, 303)
    trail = site.conn.execute("SELECT actor, action, detail, outcome FROM audit_log ORDER BY id LIMIT 2").fetchall()
    assert {entry["actor"] for entry in trail} == {f"Olga <{OLGA}>"}
    assert [(entry["action"], entry["outcome"]) for entry in trail] == [
        ("ask for a new password", "done"), ("set password", "done"),
    ]  # fmt: skip
    assert not any(link.rpartition("/")[2] in str(entry) for entry in trail)


def test_a_link_works_once(site: Site, mail_sink: MailServer) -> None:
    """Also for two at once; and with it the account's other links end. Only digests are stored."""
    ask(site)
    ask(site)
    first, second = links(mail_sink)
    stored = site.conn.execute("SELECT token_hash, password_resets::text AS row FROM password_resets").fetchall()
    assert {row["token_hash"] for row in stored} == {tokens.digest(link.rpartition("/")[2]) for link in (first, second)}
    assert not any(link.rpartition("/")[2] in row["row"] for row in stored for link in (first, second))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda n: choose(site, first, f"{NEW} {n}").status_code, range(2)))
    assert sorted(answers) == [303, 404]
    for link in (first, second, "/club/password/" + "x" * 43, "/club/password/%00"):
        for answer in (site.browser().get(link), choose(site, link)):
            assert (answer.status_code, GONE in page_text(answer)) == (404, True)
    assert 'href="/club/password"' in site.browser().get(first).text


ENDS: Final[list[Any]] = [
    "UPDATE password_resets SET expires_at = now()",
    "UPDATE accounts SET disabled_at = now()",
    "UPDATE accounts SET password_hash = NULL",
    "DELETE FROM accounts",
]


@pytest.mark.parametrize("end", ENDS)
def test_a_link_ends(site: Site, mail_sink: MailServer, end: Any) -> None:
    """After an hour, and with the account or its password."""
    ask(site)
    (link,) = links(mail_sink)
    (row,) = site.conn.execute("SELECT extract(epoch FROM expires_at - now()) AS left FROM password_resets").fetchall()
    assert 3500 < row["left"] <= 3600
    site.conn.execute(end)
    assert choose(site, link).status_code == 404
    assert site.conn.execute("SELECT FROM audit_log WHERE action = 'set password'").fetchall() == []


def test_a_new_password_by_an_admin_ends_links(site: Site, mail_sink: MailServer) -> None:
    """As does disabling the account, also if it is enabled again."""
    admin, olga = site.account("ada@bidden.example", "admin"), 1
    for forms in (("password",), ("disable", "enable")):
        ask(site)
        link = links(mail_sink)[-1]
        browser = site.browser()
        browser.token = site.browser(admin).token
        for form in forms:
            cookie = {"cookie": f"bidden-club={browser.token}"}
            data = {"how": "made", "csrf": tokens.csrf_token(str(browser.token))}
            answer = browser.client.post(f"/club/accounts/{olga}/{form}", data=data, headers=cookie)
            assert answer.status_code in (200, 303)
        assert choose(site, link).status_code == 404


def test_nobody_learns_who_has_an_account(site: Site, mail_sink: MailServer) -> None:
    """One answer to all; a mail only to an account with a password that is not disabled. Logs name nobody."""
    site.account("oidc@bidden.example")
    site.account("gone@bidden.example", password=PASSWORD)
    site.conn.execute("UPDATE accounts SET disabled_at = now() WHERE email = 'gone@bidden.example'")
    asked = (OLGA, "nobody@bidden.example", "oidc@bidden.example", "gone@bidden.example", "", "\0", "x" * 400, "' OR 1")
    with structlog.testing.capture_logs() as logs:
        answers = [ask(site, email) for email in asked]
    assert {(answer.status_code, answer.text, tuple(sorted(answer.headers))) for answer in answers} == {
        (200, answers[0].text, tuple(sorted(answers[0].headers)))
    }
    assert [mail.recipients for mail in mail_sink.mails()] == [(OLGA,)]
    trail = site.conn.execute("SELECT actor, outcome FROM audit_log ORDER BY id").fetchall()
    assert [(entry["actor"], entry["outcome"]) for entry in trail][:4] == [
        (f"Olga <{OLGA}>", "done"), ("somebody", "refused"), ("Oidc <oidc@bidden.example>", "refused"),
        ("somebody", "refused"),
    ]  # fmt: skip
    token = links(mail_sink)[0].rpartition("/")[2]
    assert not any(text in str(logs) for text in ("bidden.example", token))


def test_a_mail_server_that_refuses(site: Site, mail_sink: MailServer) -> None:
    """The answer is the same; the trail has the reply, and the log names nobody."""
    mail_sink.set_rules([{"do": "refuse_recipient", "recipient": "olga@*"}])
    with structlog.testing.capture_logs() as logs:
        assert "a mail with a link is on its way" in page_text(ask(site))
    assert [row["outcome"] for row in site.conn.execute("SELECT outcome FROM audit_log")] == ["refused"]
    assert [entry["cause"] for entry in logs if "cause" in entry] == ["RefusedError"]
    assert "olga" not in str(logs)


def test_throttled(site: Site, mail_sink: MailServer) -> None:
    """As the sign-in is, by account and address, and counted for itself; strangers cannot fill a mailbox."""
    assert [ask(site).status_code for _ in range(7)] == [200] * 5 + [429] * 2
    assert int(ask(site).headers["retry-after"]) > 0
    assert sign_in(site, PASSWORD) == 303
    # From elsewhere the owner gets the same answer; the links of the mails before still work.
    assert ask(site, address="10.0.0.2").status_code == 200
    assert len(links(mail_sink)) == 5
    assert choose(site, links(mail_sink)[0]).status_code == 303
    answers = [ask(site, f"n{n}@bidden.example", "10.0.0.3").status_code for n in range(61)]
    assert answers == [200] * 60 + [429]


def test_another_site_sends_nothing(site: Site, mail_sink: MailServer) -> None:
    """A form elsewhere neither asks for a link nor uses one."""
    elsewhere = {"sec-fetch-site": "cross-site"}
    post: Callable[..., Response] = site.browser().client.post
    assert post("/club/password", data={"email": OLGA}, headers=elsewhere).status_code == 403
    ask(site)
    (link,) = links(mail_sink)
    assert post(link, data={"password": NEW, "again": NEW}, headers=elsewhere).status_code == 403
    assert sign_in(site, PASSWORD) == 303


@pytest.mark.parametrize("missing", ["smtp_url", "base_url"])
def test_only_where_the_site_can_mail_links(
    scenario: Scenario, database_url: str, mail_sink: MailServer, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without a mail server or a public address, an admin is to be asked."""
    monkeypatch.delenv("BIDDEN_BASE_URL", raising=False)
    settings = {"smtp_url": mail_sink.url, "base_url": "http://testserver"}
    with open_site(database_url, scenario.conn, **{**settings, "smtp_url": None}) as site:
        if missing == "base_url":
            site.app.state.settings = type(site.app.state.settings)(database_url=database_url, smtp_url=mail_sink.url)
        site.account(OLGA, password=PASSWORD)
        browser: Browser = site.browser()
        assert "Forgot your password? Ask an admin" in page_text(browser.get("/sign-in"))
        for answer in (browser.get("/password"), browser.client.post("/password", data={"email": OLGA})):
            assert (answer.status_code, "Ask an admin" in page_text(answer)) == (404, True)
    assert mail_sink.count() == 0
