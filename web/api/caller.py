"""Who calls: a client with a token, acting for its account, and only within its scopes.

What the account may not see is answered as if it were not there (404), as on the pages. No cookie is looked at, so no
other site can have a browser call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, HTTPException, Path, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BeforeValidator

from db import accounts, site_queries
from db.accounts import Account, Client
from db.site_queries import EventSummary
from web.auth import tokens
from web.auth.api_clients import Scope
from web.auth.current_user import Database, OwnedBatch

_BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A client's token, as `bidden client add` gave it. Its scopes say which routes it may call.",
)
_LONGEST_ACTOR: Final = 200
LARGEST: Final = 2**63 - 1
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")


def plain(value: Any) -> Any:
    """A number in plain digits: neither 1.0 nor 1_0 nor digits of other scripts."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number in plain digits")
    return value


PLAIN: Final = BeforeValidator(plain)
EventId = Annotated[int, Path(alias="event", ge=1, le=LARGEST, description="The event's id."), PLAIN]
BatchId = Annotated[int, Path(alias="batch", ge=1, le=LARGEST, description="The batch's id."), PLAIN]
MemberId = Annotated[int, Path(alias="member", ge=1, le=LARGEST, description="The member's id."), PLAIN]


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, and the account that it acts for."""

    account: Account
    client: Client

    @property
    def actor(self) -> str:
        """As the initiator of a batch, and in the trail: the client is always named whole."""
        tail = f" by {self.client.name}"
        return str(self.account)[: _LONGEST_ACTOR - len(tail)] + tail


def calling(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)], conn: Database) -> Caller:
    """The caller. 401 without a token that holds."""
    if given is None:
        raise _unauthorized("A token is needed: Authorization: Bearer TOKEN", "Bearer")
    found = accounts.of_token(conn, tokens.digest(given.credentials))
    if found is None:
        raise _unauthorized("This token is unknown, or was revoked", 'Bearer error="invalid_token"')
    return Caller(*found)


Calling = Annotated[Caller, Depends(calling)]


def _unauthorized(detail: str, challenge: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": challenge})


def needs(scope: Scope) -> Any:
    """For a route: the client has this scope, and its account may still use it. 403 names what is missing.

    422 for a parameter that the route does not know: a filter with a slip in it must not answer for everything.
    """

    def check(request: Request, caller: Calling) -> None:
        if scope not in caller.client.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise HTTPException(403, f"This client has not the scope {scope}", headers={"WWW-Authenticate": challenge})
        if scope is Scope.DEAD_LETTERS and not caller.account.is_admin:
            raise HTTPException(403, "Dead letters are for admins, and this client's account is no longer one")
        _require_known(request)

    return Security(check, scopes=[scope.value])


def _require_known(request: Request) -> None:
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = {parameter["name"] for parameter in operation["parameters"]} if "parameters" in operation else set()
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        mistakes = [{"loc": ("query", name), "msg": "there is no such parameter here"} for name in unknown]
        raise RequestValidationError(mistakes)


def own_event(event_id: EventId, caller: Calling, conn: Database) -> EventSummary:
    """The event of the address, if it is one of the account's."""
    event = site_queries.event(conn, event_id, caller.account.scope)
    if event is None:
        raise HTTPException(404, "There is no such event, or it is not one of this account's chapters")
    return event


OwnEvent = Annotated[EventSummary, Depends(own_event)]


def own_batch(batch_id: BatchId, caller: Calling, conn: Database) -> OwnedBatch:
    """The batch of the address, if its event is one of the account's."""
    event = site_queries.event_of_batch(conn, batch_id, caller.account.scope)
    if event is None:
        raise HTTPException(404, "There is no such batch, or it is not of this account's chapters")
    return OwnedBatch(batch_id, event)


OwnBatch = Annotated[OwnedBatch, Depends(own_batch)]
