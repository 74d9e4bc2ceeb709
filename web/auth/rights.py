"""Rights before bodies: what a route asks of its caller is asked before a byte of the request's body is read.

FastAPI reads a form or JSON before it runs any dependency, and `signed_in` reads forms for their token. So the
middleware of bodies calls `require_rights` when somebody is about to read. The dependencies ask again: they alone
decide, and a route without a body has only them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import psycopg
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from starlette.types import Scope

from db.accounts import Account
from db.connect import Connection
from schemas.errors import BiddenError
from schemas.event_fields import parse_event_name
from web import scope as event_scope
from web.api import current_client as api
from web.auth import current_user as pages
from web.database import Pool

#: The dependencies that take an event or a batch from the path, the parameter, and the question.
_IN_SCOPE: Final[dict[Any, tuple[str, Callable[[Connection, Any, Account], object]]]] = {
    pages.event_in_scope: ("event", event_scope.require_event),
    pages.batch_in_scope: ("batch", event_scope.require_batch),
    api.event_in_scope: ("event", event_scope.require_event),
    api.batch_in_scope: ("batch", event_scope.require_batch),
}


async def require_rights(scope: Scope) -> None:
    """Raises what the route's dependencies would raise: sign-in, 401, 403, 404."""
    dependant = getattr(scope.get("route"), "dependant", None)
    if dependant is None:
        return
    calls = set(_calls(dependant))
    request = Request(scope)
    # Where the database does not answer nothing is known: the dependencies' errors say why, and are worded for people.
    with suppress(psycopg.Error, BiddenError):
        if pages.session_account in calls:
            await run_in_threadpool(_of_page, request, calls)
        elif api.current_client in calls:
            await _of_api(request, calls)


def _of_page(request: Request, calls: set[Any]) -> None:
    pages.require_same_site(request)
    account = pages.session_account(request)
    if pages.require_admin in calls:
        pages.require_admin_account(account)
    _in_scope(request, calls, account)


async def _of_api(request: Request, calls: set[Any]) -> None:
    credentials = await api.BEARER(request)

    def check() -> None:
        pool: Pool = request.app.state.pool
        with pool.connection() as conn:
            client = api.current_client(credentials, conn)
        for call in calls:
            needed = getattr(call, "needed_scope", None)
            if needed is not None:
                api.check_scope(client, needed)
        _in_scope(request, calls, client.account)

    await run_in_threadpool(check)


def _in_scope(request: Request, calls: set[Any], account: Account) -> None:
    for call, (name, require) in _IN_SCOPE.items():
        if call not in calls:
            continue
        # What names nothing is refused by the dependency.
        with suppress(ValueError):
            named = parse_event_name(str(request.path_params.get(name, "")))
            if isinstance(named, int) or name == "event":
                pool: Pool = request.app.state.pool
                with pool.connection() as conn:
                    require(conn, named, account)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield from _calls(dependency)
        yield dependency.call
