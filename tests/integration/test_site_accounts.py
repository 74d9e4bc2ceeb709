"""Accounts and API clients, managed by commands and on pages, and the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from db import accounts
from db.audit_log import AuditEntry, audited
from schemas.errors import (
    InputError,
    InstallError,
    MachineError,
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
    UsageError,
)
from tests.fuzzing import CommandResult, fingerprint, run
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.integration.site import PASSWORD, Browser, Site, open_site, page_text
from web.auth import tokens

CHAPTER_2 = {"type": "chapter", "id": 2, "name": "Berlin", "email": "b@example.org", "time_zone": "Europe/Berlin"}


@pytest.fixture
def site(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with chapters 1 (London) and 2 (Berlin); commands use the same database."""
    scenario.build(students=[1]).load(CHAPTER_2)
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    with open_site(database_url, scenario.conn) as site:
        yield site


def command(*arguments: str, stdin: str = "") -> Any:
    """What `bidden account …` prints as JSON."""
    said = run("account", *arguments, "--json", stdin=stdin.encode())
    assert said.code == 0, said
    return json.loads(said.out)


def refused(site: Site, *arguments: str, stdin: bytes = b"", error: str = "refused") -> CommandResult:
    """A command that exits with 2 and has written nothing, not even to the audit log."""
    before = fingerprint(site.conn)
    said = run("account", *arguments, "--json", stdin=stdin)
    said.check()
    assert (said.code, said.error["error"]) == (2, error), said
    assert fingerprint(site.conn) == before
    return said


def can_sign_in(site: Site, email: str, password: str) -> bool:
    """Whether this address and password are accepted."""
    site.conn.execute("DELETE FROM sign_in_attempts")
    answer = site.browser().client.post("/sign-in", data={"email": email, "password": password})
    assert answer.status_code in (303, 403)
    return answer.status_code == 303


def audit_log(site: Site) -> list[tuple[str, str, str]]:
    """Actor, action and outcome of each entry, without sign-ins."""
    rows = site.conn.execute("SELECT actor, action, outcome FROM audit_log WHERE action <> 'sign in' ORDER BY id")
    return [tuple(row.values()) for row in rows]


def state(site: Site, email: str) -> dict[str, Any]:
    """The account's row of the list."""
    (row,) = [row for row in accounts.list_all(site.conn) if row["email"] == email]
    return row


# Commands.


def test_the_first_admin(site: Site) -> None:
    """Without a terminal a password is generated and shown once; it is accepted."""
    made = command("add", "Ada@Bidden.example", "--name", "Ada", "--role", "admin")
    assert (made["email"], made["role"], made["chapters"], made["has_password"]) == (
        "ada@bidden.example",
        "admin",
        [],
        True,
    )
    assert re.fullmatch(r"([a-z2-9]{4}-){4}[a-z2-9]{4}", made["password"])
    assert can_sign_in(site, "ada@bidden.example", made["password"])
    (listed,) = [json.loads(line) for line in run("account", "list", "--json").out.splitlines()]
    assert (listed["email"], listed["seen_at"] is None, "password" in listed) == ("ada@bidden.example", False, False)
    table = run("account", "list").out
    assert "ada@bidden.example" in table
    assert audit_log(site) == [("command line", "add account", "done")]
    said = run("account", "password", "ada@bidden.example")
    assert "shown this once" in said.out


def test_a_password_from_standard_input(site: Site) -> None:
    """It is used as it is, spaces too, and not shown."""
    made = command("add", "a@b.example", "--name", "A", "--role", "admin", "--password-stdin", stdin=f" {PASSWORD} \n")
    assert "password" not in made
    assert can_sign_in(site, "a@b.example", f" {PASSWORD} ")
    changed = command("password", "a@b.example", "--password-stdin", stdin="another good one\r\n")
    assert "password" not in changed
    assert not can_sign_in(site, "a@b.example", f" {PASSWORD} ")
    assert can_sign_in(site, "a@b.example", "another good one")


def test_without_a_password(site: Site) -> None:
    """For users who sign in with the provider: no password is accepted."""
    made = command("add", "a@b.example", "--name", "A", "--role", "organiser", "--no-password")
    assert (made["has_password"], "password" in made) == (False, False)
    assert not can_sign_in(site, "a@b.example", "")


def test_changed_by_commands(site: Site) -> None:
    """Omitted options change nothing; changes and disabling take effect in running sessions."""
    command("add", "ada@bidden.example", "--name", "Ada", "--role", "admin", "--no-password")
    command("add", "o@b.example", "--name", "Olga", "--role", "organiser", "--chapter", "2", "--no-password")
    olga = site.browser(state(site, "o@b.example")["id"])
    assert olga.get("/events/1").status_code == 404
    assert command("change", "O@b.example", "--chapter", "1", "--chapter", "1")["chapters"] == [1]
    assert olga.get("/events/1").status_code == 200
    changed = command("change", "o@b.example", "--name", "Olga O.")
    assert (changed["name"], changed["role"], changed["chapters"]) == ("Olga O.", "organiser", [1])
    assert command("change", "o@b.example", "--no-chapters")["chapters"] == []
    assert olga.get("/events/1").status_code == 404
    assert olga.get("/accounts").status_code == 403
    assert command("change", "o@b.example", "--role", "admin")["role"] == "admin"
    assert olga.get("/accounts").status_code == 200
    assert command("disable", "o@b.example")["disabled_at"]
    assert olga.get("/accounts").status_code == 303
    assert command("enable", "o@b.example")["disabled_at"] is None
    assert olga.get("/accounts").status_code == 303
    assert [action for _, action, _ in audit_log(site)] == [
        "add account", "add account", "change account", "change account", "change account", "change account",
        "disable account", "enable account",
    ]  # fmt: skip


def test_a_new_password_ends_sessions(site: Site) -> None:
    """All sessions of the account."""
    command("add", "o@b.example", "--name", "Olga", "--role", "organiser", "--no-password")
    olga = site.browser(state(site, "o@b.example")["id"])
    assert olga.get("/events").status_code == 200
    assert command("password", "o@b.example")["has_password"]
    assert olga.get("/events").status_code == 303


INVALID_EMAILS = [
    "", "ada", "@b.example", "a@", "a b@c.example", "a@b@c", "x" * 310 + "@example.org", "<a@b.example>",
    "\udcff@b.example", "\x1b[2J@b.example",
]  # fmt: skip


def test_invalid_email_addresses(site: Site) -> None:
    """Refused, with the field."""
    for email in INVALID_EMAILS:
        said = refused(site, "add", email, "--name", "A", "--role", "admin", "--no-password")
        assert said.error["field"] == "email"


def test_refused_by_commands(site: Site) -> None:
    """With the reason, and nothing is written."""
    command("add", "ada@bidden.example", "--name", "Ada", "--role", "admin", "--no-password")
    add = ("add", "new@b.example", "--role", "organiser")
    assert refused(site, *add, "--name", "", "--no-password").error["field"] == "name"
    assert refused(site, *add, "--name", "x" * 201, "--no-password").error["field"] == "name"
    refused(site, *add, "--name", "A", "--no-password", "--chapter", "99", error="not_found")
    refused(site, "add", "ADA@bidden.example", "--name", "A", "--role", "admin", "--no-password")
    refused(site, *add, "--name", "A", "--no-password", "--password-stdin", error="usage")
    for typed in (b"", b"\n", b"one\ntwo\n", b"\xff\xfe\n"):
        refused(site, *add, "--name", "A", "--password-stdin", stdin=typed, error="bad_input")
    for typed in (b"too short\n", b"x" * 1001):
        assert refused(site, *add, "--name", "A", "--password-stdin", stdin=typed).error["field"] == "password"
    for words_ in (("change", "--name", "A"), ("password",), ("disable",), ("enable",)):
        refused(site, *words_, "nobody@b.example", error="not_found")
    refused(site, "change", "ada@bidden.example", error="usage")
    refused(site, "change", "ada@bidden.example", "--chapter", "1", "--no-chapters", error="usage")
    for last in (("disable",), ("change", "--role", "organiser")):
        assert "no admin would be left" in refused(site, *last, "ada@bidden.example").error["detail"]


# Pages.


def shown_password(answer: Response) -> str:
    """The generated password on a page."""
    assert answer.status_code == 200, page_text(answer)
    (password,) = re.findall(r"<pre>([a-z2-9-]+)</pre>", answer.text)
    return str(password)


def test_an_account_by_pages(site: Site) -> None:
    """Added with a password that is shown once, changed, given a new password, disabled, enabled."""
    ada = site.admin()
    typed = {"email": "New@B.example", "name": "Nele", "role": "organiser", "how": "made", "chapter": ["1", "2"]}
    first = shown_password(ada.post("/accounts", typed))
    assert can_sign_in(site, "new@b.example", first)
    row = state(site, "new@b.example")
    assert (row["name"], row["chapters"]) == ("Nele", [1, 2])
    assert "Nele new@b.example organiser London, Berlin" in page_text(ada.get("/accounts"))
    here = f"/accounts/{row['id']}"
    assert "Nele" in page_text(ada.get(here))
    assert first not in ada.get(here).text
    changed = ada.post(here, {"name": "Nele N.", "role": "organiser", "chapter": ["2"]})
    assert (changed.status_code, state(site, "new@b.example")["chapters"]) == (303, [2])
    nele = site.browser(row["id"])
    second = shown_password(ada.post(f"{here}/password", {"how": "made"}))
    assert (can_sign_in(site, "new@b.example", first), can_sign_in(site, "new@b.example", second)) == (False, True)
    assert nele.get("/events").status_code == 303
    assert ada.post(f"{here}/password", {"how": "typed", "password": "typed by hand"}).status_code == 303
    assert can_sign_in(site, "new@b.example", "typed by hand")
    assert ada.post(f"{here}/disable").status_code == 303
    assert "disabled" in page_text(ada.get("/accounts"))
    assert not can_sign_in(site, "new@b.example", "typed by hand")
    assert ada.post(f"{here}/enable").status_code == 303
    assert can_sign_in(site, "new@b.example", "typed by hand")
    by = "Ada <ada@bidden.example>"
    done = ["add account", "change account", "set password", "set password", "disable account", "enable account"]
    assert audit_log(site) == [(by, action, "done") for action in done]
    assert first not in str(site.conn.execute("SELECT * FROM audit_log").fetchall())


def test_refused_on_pages(site: Site) -> None:
    """The form again, with the input and the reason; refusals are in the audit log. The last admin stays."""
    ada = site.admin()
    good = {"email": "n@b.example", "name": "Nele", "role": "organiser", "how": "none"}
    for wrong, reason in (
        ({"email": "nele"}, "is no e-mail address"),
        ({"name": "\x1b"}, "control characters"),
        ({"chapter": ["99"]}, "there is no chapter 99"),
        ({"email": "ada@bidden.example"}, "has an account already"),
        ({"how": "typed", "password": "short"}, "12 to 1000 characters"),
    ):
        answer = ada.post("/accounts", {**good, **wrong})
        assert (answer.status_code, reason in page_text(answer)) == (409, True), page_text(answer)
    for wrong in ({"role": "king"}, {"chapter": ["x"]}, {"how": "guessed"}, {"name": "x" * 1001}):
        assert ada.post("/accounts", {**good, **wrong}).status_code == 422
    assert [row["email"] for row in accounts.list_all(site.conn)] == ["ada@bidden.example"]
    own = f"/accounts/{state(site, 'ada@bidden.example')['id']}"
    for address, form in ((f"{own}/disable", {}), (own, {"name": "Ada", "role": "organiser"})):
        answer = ada.post(address, form)
        assert (answer.status_code, "no admin would be left" in page_text(answer)) == (409, True)
    assert ada.post(f"{own}/password", {"how": "none"}).status_code == 422
    assert ada.post(f"{own}/password", {"how": "typed", "password": "short"}).status_code == 409
    for address in ("/accounts/999", "/accounts/0", "/accounts/x", f"/accounts/{2**63}"):
        assert ada.get(address).status_code == 404
    assert ada.post("/accounts/999/disable").status_code == 404
    assert {outcome for _, _, outcome in audit_log(site)} == {"refused"}


def own_account(site: Site) -> tuple[Browser, Browser]:
    """Two browsers with Olga at them, who has a password."""
    olga = site.account("olga@bidden.example", chapters=[2], password=PASSWORD)
    return site.browser(olga), site.browser(olga)


def test_ones_own_account(site: Site) -> None:
    """Users see their account, and change their password with the old one: other sessions end, this one is renewed."""
    here, elsewhere = own_account(site)
    old_token = here.token
    page = page_text(here.get("/account"))
    assert ("olga@bidden.example" in page, "Berlin" in page, "London" in page) == (True, True, False)
    new = "a new one, and long"
    for old, first, second, status in (
        ("not the old one", new, new, 403),
        (PASSWORD, new, "another new one", 409),
        (PASSWORD, "short", "short", 409),
        (PASSWORD, new, new, 303),
    ):
        answer = here.post("/account/password", {"old": old, "password": first, "again": second})
        assert answer.status_code == status, page_text(answer)
        assert elsewhere.get("/events").status_code == (303 if status == 303 else 200)
    tokens_set = {cookie.value for cookie in here.client.cookies.jar}
    assert old_token is not None
    assert accounts.find_by_session(site.conn, tokens.digest(old_token)) is None, "a token that was copied goes on"
    assert [
        accounts.find_by_session(site.conn, tokens.digest(token or "")) is None for token in tokens_set - {old_token}
    ] == [False]
    assert (can_sign_in(site, "olga@bidden.example", PASSWORD), can_sign_in(site, "olga@bidden.example", new)) == (
        False,
        True,
    )
    assert audit_log(site) == [("Olga <olga@bidden.example>", "set password", "done")]


def test_another_password_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set by an admin after the old one was verified: a user who knew only the old one does not replace it."""
    here, elsewhere = own_account(site)
    real = tokens.verify_password

    def look(password: str, stored: str | None) -> bool:
        found = real(password, stored)
        site.conn.execute("UPDATE accounts SET password_hash = 'set by an admin'")
        return found

    monkeypatch.setattr(tokens, "verify_password", look)
    new = "a new one, and long"
    answer = here.post("/account/password", {"old": PASSWORD, "password": new, "again": new})
    assert (answer.status_code, "has been changed meanwhile" in page_text(answer)) == (409, True)
    assert site.conn.execute("SELECT password_hash FROM accounts").fetchall() == [{"password_hash": "set by an admin"}]
    assert elsewhere.get("/events").status_code == 200
    assert audit_log(site) == [("Olga <olga@bidden.example>", "set password", "refused")]


def test_guesses_at_the_old_password(site: Site) -> None:
    """In a signed-in browser five guesses are allowed."""
    here, _ = own_account(site)
    form = {"password": "a new one, and long", "again": "a new one, and long"}
    answers = [here.post("/account/password", {"old": "guess", **form}).status_code for _ in range(5)]
    assert answers == [403] * 5
    assert here.post("/account/password", {"old": PASSWORD, **form}).status_code == 429


def test_ones_own_without_a_password(site: Site) -> None:
    """There is none to change, and none can be set."""
    browser = site.organiser()
    assert "You have none" in page_text(browser.get("/account"))
    form = {"old": "", "password": "a new one, and long", "again": "a new one, and long"}
    assert browser.post("/account/password", form).status_code == 403


def test_clients(site: Site) -> None:
    """A client is created, listed and revoked; its secrets are shown once."""
    ada = site.admin()
    olga = site.account("olga@bidden.example", chapters=[1])
    form = {"name": "Calendar", "account": olga, "scope": ["read", "invite"], "webhook": "https://example.org/told"}
    answer = ada.post("/clients", form)
    token, secret = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    assert (token[:7], secret[:6]) == ("bidden_", "whsec_")
    found = accounts.find_by_token(site.conn, tokens.digest(token))
    assert found is not None
    assert (found[0].id, found[1].name, sorted(found[1].scopes)) == (olga, "Calendar", ["invite", "read"])
    page = ada.get("/clients")
    assert "Calendar olga@bidden.example invite, read https://example.org/told" in page_text(page)
    assert (token in page.text, secret in page.text) == (False, False)
    for wrong, reason in (
        ({"scope": []}, "needs a scope"),
        ({"scope": ["dead-letters"]}, "is for admins"),
        ({"scope": ["\0"]}, "there is no scope"),
        ({"webhook": "http://example.org"}, "https://"),
        ({"name": " "}, "name must have"),
        ({"account": 999}, "there is no account 999"),
    ):
        refused_ = ada.post("/clients", {**form, **wrong})
        assert (refused_.status_code, reason in page_text(refused_)) == (409, True), page_text(refused_)
    assert ada.post("/clients", {**form, "account": "x"}).status_code == 422
    assert ada.post("/clients/999/revoke").status_code == 404
    assert ada.post(f"/clients/{found[1].id}/revoke").status_code == 303
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is None
    assert "revoked" in page_text(ada.get("/clients"))
    outcomes = [(action, outcome) for _, action, outcome in audit_log(site)]
    assert outcomes == [
        ("add client", "done"),
        *[("add client", "refused")] * 6,
        ("revoke client", "refused"),
        ("revoke client", "done"),
    ]
    assert token not in str(site.conn.execute("SELECT * FROM audit_log").fetchall())


def test_a_disabled_account_has_no_clients(site: Site) -> None:
    """Disabling the account locks its clients out."""
    ada = site.admin()
    olga = site.account("olga@bidden.example")
    answer = ada.post("/clients", {"name": "Calendar", "account": olga, "scope": ["read"]})
    (token,) = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    ada.post(f"/accounts/{olga}/disable")
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is None
    ada.post(f"/accounts/{olga}/enable")
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is None


@pytest.mark.parametrize("end", ["disable", "delete"])
def test_a_client_ends_with_its_maker(site: Site, end: str) -> None:
    """Whoever made it has seen its token: it ends when their account is disabled or deleted, whomever it acts for."""
    site.admin()
    maker, olga = site.account("max@bidden.example", "admin"), site.account("olga@bidden.example")
    answer = site.browser(maker).post("/clients", {"name": "Calendar", "account": olga, "scope": ["read"]})
    (token,) = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is not None
    if end == "disable":
        accounts.disable(site.conn, maker)
    else:
        site.conn.execute("DELETE FROM accounts WHERE id = %s", (maker,))
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is None


def test_a_client_expires(site: Site) -> None:
    """At the end of the day that was given, shown on the page; a past day and what is no day are refused."""
    ada = site.admin()
    form = {"name": "Calendar", "account": site.account("olga@bidden.example"), "scope": ["read"]}
    for wrong, reason in (
        ("2020-01-01", "must not be in the past"),
        ("soon", "must be a day"),
        ("9999-12-31", "a day"),
    ):
        answer = ada.post("/clients", {**form, "expires": wrong})
        assert (answer.status_code, reason in page_text(answer)) == (409, True)
    answer = ada.post("/clients", {**form, "expires": "2096-02-29"})
    (token,) = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is not None
    assert site.conn.execute("SELECT expires_at = '2096-03-01+00' AS ok FROM api_clients").fetchall() == [{"ok": True}]
    site.conn.execute("UPDATE api_clients SET expires_at = now()")
    assert accounts.find_by_token(site.conn, tokens.digest(token)) is None
    assert "expired" in page_text(ada.get("/clients"))


def test_audit_log(site: Site, scenario: Scenario) -> None:
    """The newest first, page by page, or of one event; an unknown event has no entries."""
    scenario.load(EVENT | {"id": 2, "name": "Other"})
    for number in range(205):
        with audited(site.conn, AuditEntry("Zoë <b>", "invite", event_id=1 + number % 2, detail=f"<i>{number}.")):
            pass
    ada = site.admin()
    first = ada.get("/trail")
    assert re.findall(r"&lt;i&gt;(\d+)\.", first.text) == [str(n) for n in range(204, 104, -1)]
    assert "Zoë &lt;b&gt;" in first.text
    (older,) = re.findall(r'href="(/trail\?before=\d+)"', first.text)
    second = ada.get(older)
    assert re.findall(r"&lt;i&gt;(\d+)\.", second.text) == [str(n) for n in range(104, 4, -1)]
    (oldest,) = re.findall(r'href="(/trail\?before=\d+)"', second.text)
    assert re.findall(r"&lt;i&gt;(\d+)\.", ada.get(oldest).text) == ["4", "3", "2", "1", "0"]
    of_one = ada.get("/trail?event=2")
    assert "event 1" not in page_text(of_one)
    assert re.findall(r'href="(/trail\?event=2&amp;before=\d+)"', of_one.text)
    for nothing in ("99", "0", "x", "-1", "9" * 30, "2 OR 1=1", "٢"):
        assert "No entries." in page_text(ada.get("/trail", params={"event": nothing}))
    for wrong in ("before=0", "before=x", f"before={2**63}"):
        assert ada.get(f"/trail?{wrong}").status_code == 422


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        *((kind, "refused") for kind in (RefusedError, NotFoundError, InputError, UsageError, SettingsError)),
        *((kind, "failed") for kind in (UnreachableError, MachineError, InstallError, psycopg.OperationalError)),
    ],
)
def test_refused_or_failed(site: Site, error: type[Exception], outcome: str) -> None:
    """Refused: nothing was done. Failed: an outage may have come half-way."""

    def break_off() -> None:
        with audited(site.conn, AuditEntry("Ada", "try")):
            raise error("because")

    with pytest.raises(error):
        break_off()
    assert audit_log(site) == [("Ada", "try", outcome)]


def test_an_entry_precedes_its_action(site: Site) -> None:
    """It is written before the action runs, and says whether that failed."""

    def divide() -> None:
        with audited(site.conn, AuditEntry("Ada", "divide")):
            assert "begun" in page_text(site.admin().get("/trail"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        divide()
    assert audit_log(site) == [("Ada", "divide", "failed")]
