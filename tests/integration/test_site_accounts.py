"""Accounts: made and changed by commands and on pages, API clients, and the trail of all that."""

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
from tests.fuzzing import Said, fingerprint, run
from tests.integration.importing import EVENT
from tests.integration.site import PASSWORD, Browser, Site, open_site, words
from tests.integration.world import World
from web.auth import tokens

CHAPTER_2 = {"type": "chapter", "id": 2, "name": "Berlin", "email": "b@example.org", "time_zone": "Europe/Berlin"}


@pytest.fixture
def site(world: World, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with chapters 1 (London) and 2 (Berlin); commands have the same database."""
    world.build(students=[1]).load(CHAPTER_2)
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    with open_site(database_url, world.conn) as site:
        yield site


def command(*arguments: str, stdin: str = "") -> Any:
    """What `bidden account …` prints as JSON."""
    said = run("account", *arguments, "--json", stdin=stdin.encode())
    assert said.code == 0, said
    return json.loads(said.out)


def refused(site: Site, *arguments: str, stdin: bytes = b"", error: str = "refused") -> Said:
    """A command that ends with 2 and has written nothing, the trail included."""
    before = fingerprint(site.conn)
    said = run("account", *arguments, "--json", stdin=stdin)
    said.check()
    assert (said.code, said.error["error"]) == (2, error), said
    assert fingerprint(site.conn) == before
    return said


def gets_in(site: Site, email: str, password: str) -> bool:
    """Whether one can sign in so."""
    site.conn.execute("DELETE FROM sign_in_attempts")
    answer = site.browser().client.post("/sign-in", data={"email": email, "password": password})
    assert answer.status_code in (303, 403)
    return answer.status_code == 303


def trail(site: Site) -> list[tuple[str, str, str]]:
    """Who did what, and what came of it, without what signing in leaves."""
    rows = site.conn.execute("SELECT actor, action, outcome FROM trail WHERE action <> 'sign in' ORDER BY id")
    return [tuple(row.values()) for row in rows]


def state(site: Site, email: str) -> dict[str, Any]:
    """The account as the list has it."""
    (row,) = [row for row in accounts.every(site.conn) if row["email"] == email]
    return row


# Commands.


def test_the_first_admin(site: Site) -> None:
    """Without a terminal a password is made, and shown once; with it she gets in."""
    made = command("add", "Ada@Bidden.example", "--name", "Ada", "--role", "admin")
    assert (made["email"], made["role"], made["chapters"], made["has_password"]) == (
        "ada@bidden.example",
        "admin",
        [],
        True,
    )
    assert re.fullmatch(r"([a-z2-9]{4}-){4}[a-z2-9]{4}", made["password"])
    assert gets_in(site, "ada@bidden.example", made["password"])
    (listed,) = [json.loads(line) for line in run("account", "list", "--json").out.splitlines()]
    assert (listed["email"], listed["seen_at"] is None, "password" in listed) == ("ada@bidden.example", False, False)
    table = run("account", "list").out
    assert "ada@bidden.example" in table
    assert trail(site) == [("command line", "add account", "done")]
    said = run("account", "password", "ada@bidden.example")
    assert "shown this once" in said.out


def test_a_password_that_is_piped(site: Site) -> None:
    """It is taken as it is, spaces too, and not shown."""
    made = command("add", "a@b.example", "--name", "A", "--role", "admin", "--password-stdin", stdin=f" {PASSWORD} \n")
    assert "password" not in made
    assert gets_in(site, "a@b.example", f" {PASSWORD} ")
    changed = command("password", "a@b.example", "--password-stdin", stdin="another good one\r\n")
    assert "password" not in changed
    assert not gets_in(site, "a@b.example", f" {PASSWORD} ")
    assert gets_in(site, "a@b.example", "another good one")


def test_without_a_password(site: Site) -> None:
    """For who signs in with the provider: no password fits."""
    made = command("add", "a@b.example", "--name", "A", "--role", "organiser", "--no-password")
    assert (made["has_password"], "password" in made) == (False, False)
    assert not gets_in(site, "a@b.example", "")


def test_changed_by_commands(site: Site) -> None:
    """What is not given stays; a change holds for sessions that are there; disabled is out at once."""
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
    assert [action for _, action, _ in trail(site)] == [
        "add account", "add account", "change account", "change account", "change account", "change account",
        "disable account", "enable account",
    ]  # fmt: skip


def test_a_new_password_ends_sessions(site: Site) -> None:
    """Whoever knew the old one is out."""
    command("add", "o@b.example", "--name", "Olga", "--role", "organiser", "--no-password")
    olga = site.browser(state(site, "o@b.example")["id"])
    assert olga.get("/events").status_code == 200
    assert command("password", "o@b.example")["has_password"]
    assert olga.get("/events").status_code == 303


NO_ADDRESSES = [
    "", "ada", "@b.example", "a@", "a b@c.example", "a@b@c", "x" * 310 + "@example.org", "<a@b.example>",
    "\udcff@b.example", "\x1b[2J@b.example",
]  # fmt: skip


def test_addresses_that_are_none(site: Site) -> None:
    """Refused by the field."""
    for email in NO_ADDRESSES:
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


def made_password(answer: Response) -> str:
    """The one that a page shows."""
    assert answer.status_code == 200, words(answer)
    (password,) = re.findall(r"<pre>([a-z2-9-]+)</pre>", answer.text)
    return str(password)


def test_an_account_by_pages(site: Site) -> None:
    """Added with a password that is shown once, changed, given a new password, disabled, enabled."""
    ada = site.admin()
    typed = {"email": "New@B.example", "name": "Nele", "role": "organiser", "how": "made", "chapter": ["1", "2"]}
    first = made_password(ada.post("/accounts", typed))
    assert gets_in(site, "new@b.example", first)
    row = state(site, "new@b.example")
    assert (row["name"], row["chapters"]) == ("Nele", [1, 2])
    assert "Nele new@b.example organiser London, Berlin" in words(ada.get("/accounts"))
    here = f"/accounts/{row['id']}"
    assert "Nele" in words(ada.get(here))
    assert first not in ada.get(here).text
    changed = ada.post(here, {"name": "Nele N.", "role": "organiser", "chapter": ["2"]})
    assert (changed.status_code, state(site, "new@b.example")["chapters"]) == (303, [2])
    nele = site.browser(row["id"])
    second = made_password(ada.post(f"{here}/password", {"how": "made"}))
    assert (gets_in(site, "new@b.example", first), gets_in(site, "new@b.example", second)) == (False, True)
    assert nele.get("/events").status_code == 303
    assert ada.post(f"{here}/password", {"how": "typed", "password": "typed by hand"}).status_code == 303
    assert gets_in(site, "new@b.example", "typed by hand")
    assert ada.post(f"{here}/disable").status_code == 303
    assert "disabled" in words(ada.get("/accounts"))
    assert not gets_in(site, "new@b.example", "typed by hand")
    assert ada.post(f"{here}/enable").status_code == 303
    assert gets_in(site, "new@b.example", "typed by hand")
    by = "Ada <ada@bidden.example>"
    done = ["add account", "change account", "set password", "set password", "disable account", "enable account"]
    assert trail(site) == [(by, action, "done") for action in done]
    assert first not in str(site.conn.execute("SELECT * FROM trail").fetchall())


def test_refused_on_pages(site: Site) -> None:
    """The form again, with what was typed and the reason; refusals stand in the trail. The last admin stays."""
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
        assert (answer.status_code, reason in words(answer)) == (409, True), words(answer)
    for wrong in ({"role": "king"}, {"chapter": ["x"]}, {"how": "guessed"}, {"name": "x" * 1001}):
        assert ada.post("/accounts", {**good, **wrong}).status_code == 422
    assert [row["email"] for row in accounts.every(site.conn)] == ["ada@bidden.example"]
    own = f"/accounts/{state(site, 'ada@bidden.example')['id']}"
    for address, form in ((f"{own}/disable", {}), (own, {"name": "Ada", "role": "organiser"})):
        answer = ada.post(address, form)
        assert (answer.status_code, "no admin would be left" in words(answer)) == (409, True)
    assert ada.post(f"{own}/password", {"how": "none"}).status_code == 422
    assert ada.post(f"{own}/password", {"how": "typed", "password": "short"}).status_code == 409
    for address in ("/accounts/999", "/accounts/0", "/accounts/x", f"/accounts/{2**63}"):
        assert ada.get(address).status_code == 404
    assert ada.post("/accounts/999/disable").status_code == 404
    assert {outcome for _, _, outcome in trail(site)} == {"refused"}


def own_account(site: Site) -> tuple[Browser, Browser]:
    """Two browsers with Olga at them, who has a password."""
    olga = site.account("olga@bidden.example", chapters=[2], password=PASSWORD)
    return site.browser(olga), site.browser(olga)


def test_ones_own_account(site: Site) -> None:
    """Everybody sees who she is here, and changes her password with the old one; other sessions end, this one stays."""
    here, elsewhere = own_account(site)
    page = words(here.get("/account"))
    assert ("olga@bidden.example" in page, "Berlin" in page, "London" in page) == (True, True, False)
    new = "a new one, and long"
    for old, first, second, status in (
        ("not the old one", new, new, 403),
        (PASSWORD, new, "another new one", 409),
        (PASSWORD, "short", "short", 409),
        (PASSWORD, new, new, 303),
    ):
        answer = here.post("/account/password", {"old": old, "password": first, "again": second})
        assert answer.status_code == status, words(answer)
        assert elsewhere.get("/events").status_code == (303 if status == 303 else 200)
    assert here.get("/events").status_code == 200
    assert (gets_in(site, "olga@bidden.example", PASSWORD), gets_in(site, "olga@bidden.example", new)) == (False, True)
    assert trail(site) == [("Olga <olga@bidden.example>", "set password", "done")]


def test_another_password_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set by an admin after the old one was looked at: it is not replaced by who knew only the old one."""
    here, elsewhere = own_account(site)
    real = tokens.is_password

    def look(password: str, stored: str | None) -> bool:
        found = real(password, stored)
        site.conn.execute("UPDATE accounts SET password_hash = 'set by an admin'")
        return found

    monkeypatch.setattr(tokens, "is_password", look)
    new = "a new one, and long"
    answer = here.post("/account/password", {"old": PASSWORD, "password": new, "again": new})
    assert (answer.status_code, "has been changed meanwhile" in words(answer)) == (409, True)
    assert site.conn.execute("SELECT password_hash FROM accounts").fetchall() == [{"password_hash": "set by an admin"}]
    assert elsewhere.get("/events").status_code == 200
    assert trail(site) == [("Olga <olga@bidden.example>", "set password", "refused")]


def test_guesses_at_the_old_password(site: Site) -> None:
    """Whoever finds a browser signed in guesses five times."""
    here, _ = own_account(site)
    form = {"password": "a new one, and long", "again": "a new one, and long"}
    answers = [here.post("/account/password", {"old": "guess", **form}).status_code for _ in range(5)]
    assert answers == [403] * 5
    assert here.post("/account/password", {"old": PASSWORD, **form}).status_code == 429


def test_ones_own_without_a_password(site: Site) -> None:
    """There is nothing to change, and none can be set."""
    browser = site.organiser()
    assert "You have none" in words(browser.get("/account"))
    form = {"old": "", "password": "a new one, and long", "again": "a new one, and long"}
    assert browser.post("/account/password", form).status_code == 403


def test_clients(site: Site) -> None:
    """A program is allowed in, seen, and shut out; its secrets are shown once."""
    ada = site.admin()
    olga = site.account("olga@bidden.example", chapters=[1])
    form = {"name": "Calendar", "account": olga, "scope": ["read", "invite"], "webhook": "https://example.org/told"}
    answer = ada.post("/clients", form)
    token, secret = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    assert (token[:7], secret[:6]) == ("bidden_", "whsec_")
    found = accounts.of_token(site.conn, tokens.digest(token))
    assert found is not None
    assert (found[0].id, found[1].name, sorted(found[1].scopes)) == (olga, "Calendar", ["invite", "read"])
    page = ada.get("/clients")
    assert "Calendar olga@bidden.example invite, read https://example.org/told" in words(page)
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
        assert (refused_.status_code, reason in words(refused_)) == (409, True), words(refused_)
    assert ada.post("/clients", {**form, "account": "x"}).status_code == 422
    assert ada.post("/clients/999/revoke").status_code == 404
    assert ada.post(f"/clients/{found[1].id}/revoke").status_code == 303
    assert accounts.of_token(site.conn, tokens.digest(token)) is None
    assert "revoked" in words(ada.get("/clients"))
    outcomes = [(action, outcome) for _, action, outcome in trail(site)]
    assert outcomes == [
        ("add client", "done"),
        *[("add client", "refused")] * 6,
        ("revoke client", "refused"),
        ("revoke client", "done"),
    ]
    assert token not in str(site.conn.execute("SELECT * FROM trail").fetchall())


def test_a_disabled_account_has_no_clients(site: Site) -> None:
    """Its programs are out with it."""
    ada = site.admin()
    olga = site.account("olga@bidden.example")
    answer = ada.post("/clients", {"name": "Calendar", "account": olga, "scope": ["read"]})
    (token,) = re.findall(r"<pre>([^<]+)</pre>", answer.text)
    ada.post(f"/accounts/{olga}/disable")
    assert accounts.of_token(site.conn, tokens.digest(token)) is None


def test_trail(site: Site, world: World) -> None:
    """The newest first, a page at a time, or of one event; what an event is not finds nothing."""
    world.load(EVENT | {"id": 2, "name": "Other"})
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
    assert "event 1" not in words(of_one)
    assert re.findall(r'href="(/trail\?event=2&amp;before=\d+)"', of_one.text)
    for nothing in ("99", "0", "x", "-1", "9" * 30, "2 OR 1=1", "٢"):
        assert "Nothing." in words(ada.get("/trail", params={"event": nothing}))
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
    """Refused is what was decided before anything was done. An outage may come half-way."""

    def break_off() -> None:
        with audited(site.conn, AuditEntry("Ada", "try")):
            raise error("because")

    with pytest.raises(error):
        break_off()
    assert trail(site) == [("Ada", "try", outcome)]


def test_what_was_begun_is_known(site: Site) -> None:
    """An entry is there before its deed; what broke says so."""

    def divide() -> None:
        with audited(site.conn, AuditEntry("Ada", "divide")):
            assert "begun" in words(site.admin().get("/trail"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        divide()
    assert trail(site) == [("Ada", "divide", "failed")]
