"""A database that answers with errors: pages and the API explain them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from httpx2 import Response

from db import site_queries
from db.connect import Connection, can_write, connect
from tests.databases import with_options
from tests.integration.calling import program
from tests.integration.site import PASSWORD, Site, open_site, page_text
from web import database, health

READ_ONLY = "The database is read-only now. Try again in a minute."
READ_ONLY_SESSIONS = "-c default_transaction_read_only=on"
NOT_MIGRATED = "The database schema is out of date: run `bidden migrate`."
TOO_LONG = "The database took too long for this. Try again in a minute."


@pytest.fixture
def site(conn: Connection, database_url: str) -> Iterator[Site]:
    """A site without a directory."""
    with open_site(database_url, conn) as site:
        yield site


def assert_error(answer: Response, sentence: str, status: int = 503) -> None:
    """An error page, or a problem of the API."""
    text = answer.json()["detail"] if "json" in answer.headers["content-type"] else page_text(answer)
    assert (answer.status_code, sentence in text) == (status, True), text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_read_only(conn: Connection, database_url: str) -> None:
    """After a failover to a read-only standby pages can be read, and changes get 503."""

    with open_site(with_options(database_url, READ_ONLY_SESSIONS), conn) as site:
        ada = site.browser(site.account("ada@bidden.example", "admin", password=PASSWORD))
        client = program(site, 1)
        form = {"email": "ada@bidden.example", "password": PASSWORD}
        assert_error(site.browser().client.post("/sign-in", data=form), READ_ONLY)
        assert_error(ada.post("/accounts/1/enable"), READ_ONLY)
        assert ada.get("/events").status_code == 200
        # Even a GET updates when the token was last used.
        assert_error(client.call("GET", "/events"), READ_ONLY)


@pytest.mark.parametrize(
    "change", ["ALTER TABLE accounts RENAME TO people", "ALTER TABLE accounts RENAME disabled_at TO gone_at"]
)
def test_not_migrated(site: Site, change: LiteralString) -> None:
    """A missing table or column."""
    ada = site.admin()
    client = program(site, 1)
    site.conn.execute(change)
    assert_error(ada.get("/events"), NOT_MIGRATED)
    assert_error(ada.get("/events"), NOT_MIGRATED)
    assert_error(client.call("GET", "/events"), NOT_MIGRATED)


def test_out_of_range(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that passed validation, but PostgreSQL refuses."""

    def refuse(*_: object, **__: object) -> None:
        raise psycopg.errors.NumericValueOutOfRange("bigint out of range")

    monkeypatch.setattr(site_queries, "events", refuse)
    ada = site.admin()
    assert_error(ada.get("/events"), "A value is out of range", status=422)
    assert_error(program(site, 1).call("GET", "/events"), "A value is out of range", status=422)


def test_statement_timeout(conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow statement is cancelled, and its connection returned to the pool."""
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 1)
    with open_site(database_url, conn) as site, connect(database_url) as other:
        ada, client = site.admin(), program(site, 1)
        other.execute("LOCK TABLE events")
        assert_error(ada.get("/events"), TOO_LONG)
        assert_error(client.call("GET", "/events"), TOO_LONG)
        other.rollback()
        assert ada.get("/events").status_code == 200


class _Demoted:
    """Sessions that are open become read-only at once, as on a server that was demoted; new ones can write.

    By a function in place of the setting: the setting is one of the whole server, which other tests use, too.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unfit: set[int] = set()
        self.checked: list[int] = []

        def pretend(conn: Connection) -> bool:
            pid = conn.info.backend_pid
            self.checked.append(pid)
            if pid in self.unfit:
                conn.execute("SET default_transaction_read_only = on")
            return can_write(conn)

        monkeypatch.setattr(database, "can_write", pretend)
        monkeypatch.setattr(health, "can_write", pretend)

    def demote(self) -> None:
        """All that were seen so far."""
        self.unfit |= set(self.checked)


def test_sessions_that_became_read_only_are_replaced(
    conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FM-41: after a failover the pool's old sessions cannot write; the next request closes them and can."""
    demoted = _Demoted(monkeypatch)
    monkeypatch.setattr(database, "_READ_ONLY_SECONDS", 0.0)
    with open_site(database_url, conn) as site:
        ada = site.browser(site.account("ada@bidden.example", "admin", password=PASSWORD))
        form = {"email": "ada@bidden.example", "password": PASSWORD}
        demoted.demote()
        assert demoted.unfit
        assert site.browser().client.post("/sign-in", data=form).status_code < 400
        assert ada.post("/accounts/1/enable").status_code < 400
        assert ada.get("/healthz").status_code == 200
        assert not demoted.unfit & set(demoted.checked[-3:])


def test_health(conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-41: 200 only while the site can change the database; 503 within seconds, and why, while it cannot."""
    with open_site(database_url, conn) as site:
        browser = site.browser().client
        assert (browser.get("/healthz").status_code, browser.get("/healthz").text) == (200, "ok\n")
        silence = threading.Event()
        monkeypatch.setattr(health, "_SECONDS", 0.3)
        monkeypatch.setattr(health, "can_write", lambda _: silence.wait(20))
        answer = browser.get("/healthz")
        assert (answer.status_code, answer.text) == (503, "the database does not answer\n")
        silence.set()
        monkeypatch.undo()
    with open_site(with_options(database_url, READ_ONLY_SESSIONS), conn) as site:
        answer = site.browser().client.get("/healthz")
        assert (answer.status_code, answer.text) == (503, "the database is read-only\n")
