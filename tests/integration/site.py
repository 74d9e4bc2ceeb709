"""The web application on a test's database, and browsers that are signed in to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from config.settings import Settings
from db import accounts
from db.accounts import AccountRole
from db.connect import Connection
from web.app import build
from web.auth import tokens

PASSWORD = "correct horse battery"

#: Hashing is slow on purpose, and most tests use the same password.
_hashed = cache(tokens.hash_password)


class Browser:
    """A browser with a session, unless `token` is None. It follows no redirects."""

    def __init__(self, client: TestClient, token: str | None) -> None:
        self.client = client
        self.token = token

    def get(self, path: str, **options: Any) -> Response:
        """Request a page."""
        return self.client.get(path, **options)

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> Response:
        """Send a form with the session's CSRF token, as the pages do."""
        csrf = {"csrf": tokens.csrf_token(self.token)} if self.token else {}
        return self.client.post(path, data={**csrf, **(data or {})}, **options)


class Site:
    """Makes accounts and browsers."""

    def __init__(self, app: FastAPI, conn: Connection, stack: ExitStack) -> None:
        self.app = app
        self.conn = conn
        self._stack = stack

    def account(
        self, email: str, role: str = "organiser", chapters: Sequence[int] = (), password: str | None = None
    ) -> int:
        """Add an account; returns its id. Most tests need no password, and hashing one is slow."""
        return accounts.add(
            self.conn,
            email=email,
            name=email.partition("@")[0].capitalize(),
            role=AccountRole(role),
            chapters=chapters,
            password_hash=None if password is None else _hashed(password),
        )

    def browser(self, account_id: int | None = None) -> Browser:
        """Another browser, signed in if an account's id is given."""
        client = self._stack.enter_context(TestClient(self.app, follow_redirects=False))
        token = None
        if account_id is not None:
            token = tokens.new_token()
            accounts.begin_session(self.conn, account_id, tokens.digest(token))
            client.cookies.set("bidden", token)
        return Browser(client, token)

    def admin(self) -> Browser:
        """A browser of an admin."""
        return self.browser(self.account("ada@bidden.example", "admin"))

    def organiser(self, *chapters: int) -> Browser:
        """A browser of an organiser of these chapters."""
        return self.browser(self.account("olga@bidden.example", chapters=chapters))


@contextmanager
def open_site(database_url: str, conn: Connection, **settings: Any) -> Iterator[Site]:
    """The web application on this database."""
    app = build(Settings(**{"database_url": database_url, "base_url": "http://testserver", **settings}))
    with ExitStack() as stack:
        # The first client starts the application, and with it the pool of connections.
        stack.enter_context(TestClient(app))
        yield Site(app, conn, stack)


def words(response: Response) -> str:
    """The text of a page, without tags, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", response.text).split())
