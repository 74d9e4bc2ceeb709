"""A site for tests: the application on the test's database, and browsers signed in to it."""

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
    """A user's browser; signed in if it has a token. Does not follow redirects."""

    def __init__(self, client: TestClient, token: str | None) -> None:
        self.client = client
        self.token = token

    def get(self, path: str, **options: Any) -> Response:
        """GET a page."""
        return self.client.get(path, **options)

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> Response:
        """POST a form like a page of the site: with the session's CSRF token."""
        csrf = {"csrf": tokens.csrf_token(self.token)} if self.token else {}
        return self.client.post(path, data={**csrf, **(data or {})}, **options)


class Site:
    """The running application, which creates accounts and browsers."""

    def __init__(self, app: FastAPI, conn: Connection, stack: ExitStack) -> None:
        self.app = app
        self.conn = conn
        self._stack = stack

    def account(
        self, email: str, role: str = "organiser", chapters: Sequence[int] = (), password: str | None = None
    ) -> int:
        """Adds an account; returns its id. Hashing is slow, and most tests need no password."""
        return accounts.add(
            self.conn,
            email=email,
            name=email.partition("@")[0].capitalize(),
            role=AccountRole(role),
            chapters=chapters,
            password_hash=None if password is None else _hashed(password),
        )

    def browser(self, account_id: int | None = None) -> Browser:
        """A new browser; signed in to the account if one is given."""
        client = self._stack.enter_context(TestClient(self.app, follow_redirects=False))
        token = None
        if account_id is not None:
            token = tokens.new_token()
            accounts.add_session(self.conn, account_id, tokens.digest(token))
            client.cookies.set("bidden", token)
        return Browser(client, token)

    def admin(self) -> Browser:
        """The browser of a new admin."""
        return self.browser(self.account("ada@bidden.example", "admin"))

    def organiser(self, *chapters: int) -> Browser:
        """The browser of a new organiser of these chapters."""
        return self.browser(self.account("olga@bidden.example", chapters=chapters))


@contextmanager
def open_site(database_url: str, conn: Connection, **settings: Any) -> Iterator[Site]:
    """A running site on this database."""
    app = build(Settings(**{"database_url": database_url, "base_url": "http://testserver", **settings}))
    with ExitStack() as stack:
        # The first client runs the lifespan, and so opens the connection pool.
        stack.enter_context(TestClient(app))
        yield Site(app, conn, stack)


def page_text(response: Response) -> str:
    """The text of a page, without tags, on one line."""
    text = re.sub(r"</?bdi>", "", response.text)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())
