"""A database that `python -m bench scale` measures, and what a case is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property

from starlette.testclient import TestClient

from config.settings import Settings
from db import accounts
from db.accounts import AccountRole
from db.connect import Connection, connect
from web.app import build
from web.auth import tokens
from web.auth.api_clients import create_client


@dataclass
class Database:
    """A database that is measured, with what the cases share."""

    url: str
    members: int
    notes: dict[str, float] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def conn(self) -> Connection:
        """A connection in autocommit mode."""
        return self._open.enter_context(connect(self.url, application="bidden-bench", autocommit=True))

    @cached_property
    def site(self) -> TestClient:
        """The site, signed in as an admin, in this process; API requests have a client's token."""
        settings = Settings.model_validate({"database_url": self.url, "base_url": "http://testserver"})
        self._app = build(settings)
        client = self._open.enter_context(TestClient(self._app, raise_server_exceptions=False))
        account = accounts.add(self.conn, email="ada@bidden.example", name="Ada", role=AccountRole.ADMIN)
        self.token = tokens.new_token()
        accounts.add_session(self.conn, account, tokens.digest(self.token))
        client.cookies.set("bidden", self.token)
        made = create_client(self.conn, "Ada", name="bench", account_id=account, scopes=["read"])
        client.headers["Authorization"] = f"Bearer {made.token}"
        return client

    def flush(self) -> None:
        """Let the sessions report what they have read: this one, and those of the site."""
        with ExitStack() as stack:
            sessions = [self.conn]
            if "site" in self.__dict__:
                pool = self._app.state.pool
                size = pool.get_stats()["pool_size"]
                sessions += [stack.enter_context(pool.connection()) for _ in range(size)]
            for conn in sessions:
                conn.execute("SELECT pg_stat_force_next_flush()")

    def batch(self, event: int) -> int:
        """The newest batch of an event."""
        row = self.conn.execute(
            "SELECT coalesce(max(id), 0) AS id FROM batches WHERE event_id = %s", (event,)
        ).fetchone()
        assert row is not None
        return int(row["id"])

    def close(self) -> None:
        """Ends connections and site."""
        self._open.close()


#: Yields the work, which is timed unless it returns the figure itself, in milliseconds or what its name says.
Prepare = Callable[[Database], AbstractContextManager[Callable[[], object]]]


@dataclass(frozen=True, slots=True)
class Case:
    """One figure. `source`: the database has its history alone, or also 5 campaigns planned and due, or published."""

    source: str
    part: str
    name: str
    prepare: Prepare
