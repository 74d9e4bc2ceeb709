"""API clients for tests, as `bidden client add` creates them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from tests.integration.site import Site
from web.auth.api_clients import ApiScope, create_client

PATH = "/api/v1"
EVERYTHING: Sequence[str] = (ApiScope.READ, ApiScope.INVITE, ApiScope.OPERATE)


class Program:
    """A program with a client's token. It keeps no cookies and does not follow redirects."""

    def __init__(self, http: TestClient, client_id: int, token: str, webhook_secret: str | None) -> None:
        self._http = http
        self.id = client_id
        self.token = token
        self.webhook_secret = webhook_secret

    def call(self, method: str, path: str, **options: Any) -> Response:
        """Send any request to the API."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        path = path if path.startswith(PATH) else PATH + path
        return self._http.request(method, path, headers=headers, **options)

    def get(self, path: str, status: int = 200) -> Any:
        """GET; returns the JSON."""
        response = self.call("GET", path)
        assert response.status_code == status, response.text
        return response.json()

    def post(self, path: str, json: Any = None, status: int = 200, **options: Any) -> Any:
        """POST; returns the JSON."""
        response = self.call("POST", path, **({} if json is None else {"json": json}), **options)
        assert response.status_code == status, response.text
        return response.json()

    def invite(self, event: int = 1, audience: str = "everyone", key: str = "k1", status: int = 201) -> Any:
        """Start a batch."""
        headers = {"Idempotency-Key": key}
        return self.post(f"/events/{event}/batches", {"audience": audience}, status, headers=headers)


def program(
    site: Site,
    account_id: int,
    scopes: Sequence[str] = EVERYTHING,
    webhook_url: str | None = None,
    name: str = "planner",
) -> Program:
    """A client of the account."""
    made = create_client(
        site.conn, "Ada", name=name, account_id=account_id, scopes=scopes, webhook_url=webhook_url, allow_private=True
    )
    # Tests check only the audit log of what follows.
    site.conn.execute("DELETE FROM audit_log WHERE action = 'add client'")
    return Program(site.browser().client, made.id, made.token, made.webhook_secret)


def organisers(site: Site, *chapters: int, **options: Any) -> Program:
    """A client of an organiser of these chapters."""
    return program(site, site.account("olga@bidden.example", chapters=chapters), **options)
