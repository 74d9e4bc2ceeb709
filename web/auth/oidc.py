"""Sign-in by OpenID Connect: to the provider and back. Only where the settings name a provider.

The state is good for one callback, for ten minutes, and only in the browser that was redirected with it: a cookie holds
it, the database its digest. All `bidden serve` processes share that table.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Concatenate, Final, ParamSpec, TypeVar

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from config.settings import Settings
from db import accounts, sign_in_requests
from db.accounts import Account
from db.connect import Connection
from db.sign_in_requests import SignInRequest
from schemas.errors import RefusedError
from schemas.mail_address import ascii_lower
from schemas.text import is_storable
from web.auth import tokens
from web.auth.current_user import delete_cookie, own_cookie, set_cookie
from web.auth.oidc_provider import Identity, Provider, ProviderError
from web.auth.sign_in import local_path, sign_in_page, start_session
from web.auth.throttle import client_address
from web.database import Pool

log = structlog.get_logger()

_STATE_SECONDS: Final = 600
#: Sign-ins that one address may begin within the window: a limit on the rows of the table.
_PER_ADDRESS: Final = 60
_WINDOW_SECONDS: Final = 15 * 60.0

Given = Annotated[str, Query(max_length=4096)]
P = ParamSpec("P")
T = TypeVar("T")


def routes(settings: Settings) -> APIRouter:
    """Routes for the provider of these settings. Neither holds a connection while it waits for the provider."""
    router = APIRouter(include_in_schema=False)
    provider = Provider(settings)

    @router.get("/sign-in/provider")
    async def redirect_to_provider(
        request: Request, next_path: Annotated[str, Query(alias="next", max_length=2000)] = "/"
    ) -> Response:
        """To the provider."""
        return await _redirect(request, provider, next_path)

    @router.get("/sign-in/callback")
    async def callback(request: Request, state: Given = "", code: Given = "", error: Given = "") -> Response:
        """From the provider: a session, or the sign-in page with the reason why not."""
        response = await _complete(request, provider, state, code, error)
        delete_cookie(request, response, _cookie_name(request))
        return response

    return router


async def _redirect(request: Request, provider: Provider, next_path: str) -> Response:
    address = client_address(request)
    attempts, _ = await _in_database(request, accounts.count_attempt, f"provider {address}", _WINDOW_SECONDS)
    if attempts > _PER_ADDRESS:
        log.warning("sign-in by the provider throttled", address=address)
        return sign_in_page(request, next_path=next_path, problem="throttled", status=429)
    try:
        authorization = await provider.authorization_request()
    except ProviderError as error:
        log.warning("the sign-in provider is unusable", cause=str(error))
        return sign_in_page(request, next_path=next_path, problem="provider", status=503)
    pending = SignInRequest(authorization.nonce, authorization.verifier, local_path(next_path))
    await _in_database(request, sign_in_requests.add, tokens.digest(authorization.state), pending, _STATE_SECONDS)
    response = RedirectResponse(authorization.url, status_code=303)
    set_cookie(request, response, _cookie_name(request), authorization.state, _STATE_SECONDS)
    return response


async def _complete(request: Request, provider: Provider, state: str, code: str, error: str) -> Response:
    cookie = request.cookies.get(_cookie_name(request), "")
    pending = None
    # Compared first: a callback in another browser must not use up the state of its owner.
    if state and hmac.compare_digest(cookie.encode(), state.encode("utf-8", "replace")):
        pending = await _in_database(request, sign_in_requests.consume, tokens.digest(cookie))
    if pending is None:
        return _failed(request, "/", "no request is pending in this browser")
    if error or not code:
        return _failed(request, pending.next_path, "it refuses")
    try:
        identity = await provider.identify(code=code, nonce=pending.nonce, verifier=pending.verifier)
    except ProviderError as failure:
        return _failed(request, pending.next_path, str(failure))
    return await _in_database(request, _sign_in, request, identity, pending.next_path)


def _failed(request: Request, next_path: str, cause: str) -> Response:
    log.warning("sign-in by the provider failed", cause=cause)
    return sign_in_page(request, next_path=next_path, problem="provider", status=403)


def _sign_in(conn: Connection, request: Request, identity: Identity, next_path: str) -> Response:
    account = _find_account(conn, identity)
    if account is None:
        log.warning("the provider's user has no account here", is_verified=identity.is_verified)
        return sign_in_page(request, next_path=next_path, problem="no_account", status=403)
    try:
        return start_session(request, conn, account, next_path, "OpenID Connect")
    except RefusedError:
        return sign_in_page(request, next_path=next_path, problem="no_account", status=403)


def _find_account(conn: Connection, identity: Identity) -> Account | None:
    """By the provider's subject; at the first sign-in by the verified address, which binds the account to it."""
    found = sign_in_requests.find_by_identity(conn, identity.issuer, identity.subject)
    if found is not None or not identity.is_verified or not is_storable(identity.email):
        return found
    if not sign_in_requests.bind_identity(conn, ascii_lower(identity.email), identity.issuer, identity.subject):
        return None
    return sign_in_requests.find_by_identity(conn, identity.issuer, identity.subject)


async def _in_database(
    request: Request, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Calls a function with a connection of the pool, in a thread: the event loop must not wait for the database."""
    pool: Pool = request.app.state.pool

    def call() -> T:
        with pool.connection() as conn:
            return function(conn, *args, **kwargs)

    return await run_in_threadpool(call)


def _cookie_name(request: Request) -> str:
    return own_cookie(request, "bidden-sign-in")
