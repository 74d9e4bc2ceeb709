"""A database that is there and does not do what it is asked: pages and the API say so in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from httpx2 import Response

from db import site_queries
from db.connect import Connection, connect, session
from tests.integration.calling import program
from tests.integration.site import PASSWORD, Site, open_site, words
from web import database

READ_ONLY = "The database is read-only now. Try again in a minute."
NOT_MIGRATED = "The database schema is out of date: run `bidden migrate`."
TOO_LONG = "The database took too long for this. Try again in a minute."


@pytest.fixture
def site(conn: Connection, database_url: str) -> Iterator[Site]:
    """A site that is empty."""
    with open_site(database_url, conn) as site:
        yield site


def assert_said(answer: Response, sentence: str, status: int = 503) -> None:
    """On a page or by the API."""
    text = answer.json()["detail"] if "json" in answer.headers["content-type"] else words(answer)
    assert (answer.status_code, sentence in text) == (status, True), text
    assert ("retry-after" in answer.headers) == (status == 503)


def test_read_only(conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby took over: what is only looked at is there, what changes something is put off."""

    def read_only(*arguments: Any, **options: Any) -> dict[str, Any]:
        how = session(*arguments, **options)
        return {**how, "options": f"{how['options']} -c default_transaction_read_only=on"}

    monkeypatch.setattr("web.database.session", read_only)
    with open_site(database_url, conn) as site:
        ada = site.browser(site.account("ada@bidden.example", "admin", password=PASSWORD))
        client = program(site, 1)
        form = {"email": "ada@bidden.example", "password": PASSWORD}
        assert_said(site.browser().client.post("/sign-in", data=form), READ_ONLY)
        assert_said(ada.post("/accounts/1/enable"), READ_ONLY)
        assert ada.get("/events").status_code == 200
        # That it was used is written down.
        assert_said(client.call("GET", "/events"), READ_ONLY)


@pytest.mark.parametrize(
    "change", ["ALTER TABLE accounts RENAME TO people", "ALTER TABLE accounts RENAME disabled_at TO gone_at"]
)
def test_not_migrated(site: Site, change: LiteralString) -> None:
    """A table or a column is not there yet, or no longer."""
    ada = site.admin()
    client = program(site, 1)
    site.conn.execute(change)
    assert_said(ada.get("/events"), NOT_MIGRATED)
    assert_said(ada.get("/events"), NOT_MIGRATED)
    assert_said(client.call("GET", "/events"), NOT_MIGRATED)


def test_out_of_range(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PostgreSQL cannot hold, and nothing before it has refused."""

    def refuse(*_: object, **__: object) -> None:
        raise psycopg.errors.NumericValueOutOfRange("bigint out of range")

    monkeypatch.setattr(site_queries, "events", refuse)
    ada = site.admin()
    assert_said(ada.get("/events"), "a value is out of range", status=422)
    assert_said(program(site, 1).call("GET", "/events"), "a value is out of range", status=422)


def test_a_statement_that_takes_too_long(conn: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, and gives back its connection and its thread."""
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 1)
    with open_site(database_url, conn) as site, connect(database_url) as other:
        ada, client = site.admin(), program(site, 1)
        other.execute("LOCK TABLE events")
        assert_said(ada.get("/events"), TOO_LONG)
        assert_said(client.call("GET", "/events"), TOO_LONG)
        other.rollback()
        assert ada.get("/events").status_code == 200
