"""The API client that calls, as dependencies of routes: `AuthenticatedClient`, `require_scope`, `EventInScope`, …

A client acts for its account, within its scopes. The API ignores cookies, so no other site can make a browser call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from db import accounts
from db.accounts import Account, ApiClient
from db.site_queries import EventSummary
from web import scope
from web.api.parameters import BatchId, PathEvent
from web.auth import tokens
from web.auth.api_clients import ApiScope
from web.dependencies import Database
from web.scope import BatchWithEvent

BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A client's token, as `bidden client add` printed it. Its scopes decide which routes it may call.",
)
_MAX_ACTOR_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class CurrentClient:
    """The client whose token the request has, and the account that it acts for."""

    account: Account
    registered: ApiClient

    @property
    def actor(self) -> str:
        """The name in the audit log, and as the initiator of a batch. The client's own name is never cut."""
        suffix = f" by {self.registered.name}"
        return str(self.account)[: _MAX_ACTOR_LENGTH - len(suffix)] + suffix


def current_client(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)], conn: Database
) -> CurrentClient:
    """The client; 401 without a valid token."""
    if credentials is None:
        raise _unauthorized("A token is needed: Authorization: Bearer TOKEN", "Bearer")
    found = accounts.find_by_token(conn, tokens.digest(credentials.credentials))
    if found is None:
        raise _unauthorized("This token is unknown, has expired, or was revoked", 'Bearer error="invalid_token"')
    return CurrentClient(*found)


AuthenticatedClient = Annotated[CurrentClient, Depends(current_client)]


def _unauthorized(detail: str, challenge: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": challenge})


def require_scope(needed: ApiScope) -> Any:
    """A route's dependency: 403 unless the client has this scope, and its account may still use it.

    422 for a query parameter that the route does not have: a mistyped filter must not return everything.
    """

    def check(request: Request, client: AuthenticatedClient) -> None:
        check_scope(client, needed)
        _require_known_parameters(request)

    check.needed_scope = needed  # type: ignore[attr-defined] # for `web.auth.rights`
    return Security(check, scopes=[needed.value])


def check_scope(client: CurrentClient, needed: ApiScope) -> None:
    """403 unless the client has this scope, and its account may still use it."""
    if needed not in client.registered.scopes:
        challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
        raise HTTPException(
            403, f"This client does not have the scope {needed}", headers={"WWW-Authenticate": challenge}
        )
    if needed is ApiScope.DEAD_LETTERS and not client.account.is_admin:
        raise HTTPException(403, "Dead letters are for admins, and this client's account is no longer one")


def _require_known_parameters(request: Request) -> None:
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = {parameter["name"] for parameter in operation["parameters"]} if "parameters" in operation else set()
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise RequestValidationError(
            [{"loc": ("query", name), "msg": "there is no such parameter"} for name in unknown]
        )


def event_in_scope(named: PathEvent, client: AuthenticatedClient, conn: Database) -> EventSummary:
    """The event of the path; 404 unless the client's account may see it."""
    return scope.require_event(conn, named, client.account)


EventInScope = Annotated[EventSummary, Depends(event_in_scope)]


def batch_in_scope(batch_id: BatchId, client: AuthenticatedClient, conn: Database) -> BatchWithEvent:
    """The batch of the path; 404 unless the client's account may see it."""
    return scope.require_batch(conn, batch_id, client.account)


BatchInScope = Annotated[BatchWithEvent, Depends(batch_in_scope)]
