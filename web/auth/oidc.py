"""Signing in by OpenID Connect: to the provider and back. Only where the settings name one.

The state that comes back is good for one answer, for ten minutes, and only in the browser that was sent away with it.
"""

from __future__ import annotations

import hmac
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from config.settings import Settings
from db import accounts, sign_in_requests
from db.accounts import Account
from db.sign_in_requests import SignInRequest
from schemas.errors import RefusedError
from schemas.text import is_storable
from web.auth import tokens
from web.auth.current_user import drop_cookie, keep_cookie
from web.auth.oidc_provider import Provider, ProviderError
from web.auth.sign_in import address_of, begin_session, own_path, sign_in_form
from web.database import Pool

log = structlog.get_logger()

_SECONDS: Final = 600
#: Beginnings from one address within the window: nobody fills the table.
_PER_ADDRESS: Final = 60
_WINDOW_SECONDS: Final = 15 * 60.0

Given = Annotated[str, Query(max_length=4096)]


def routes(settings: Settings) -> APIRouter:
    """Those for the provider of these settings. None of them keeps a connection while it waits for the provider."""
    router = APIRouter(include_in_schema=False)
    provider = Provider(settings)

    @router.get("/sign-in/provider")
    def go(request: Request, next_path: Annotated[str, Query(alias="next", max_length=2000)] = "/") -> Response:
        """To the provider."""
        pool: Pool = request.app.state.pool
        state, nonce, verifier = (tokens.new_token() for _ in range(3))
        key = f"provider {address_of(request)}"
        with pool.connection() as conn:
            attempts, _ = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
        if attempts > _PER_ADDRESS:
            log.warning("too many sign-ins begun", address=address_of(request))
            return sign_in_form(request, next_path=next_path, problem="throttled", status=429)
        try:
            address = provider.sign_in_address(state=state, nonce=nonce, verifier=verifier)
        except ProviderError as error:
            log.warning("the sign-in provider is of no use", cause=str(error))
            return sign_in_form(request, next_path=next_path, problem="provider", status=503)
        with pool.connection() as conn:
            begun = SignInRequest(nonce, verifier, own_path(next_path))
            sign_in_requests.begin(conn, tokens.digest(state), begun, _SECONDS)
        response = RedirectResponse(address, status_code=303)
        keep_cookie(request, response, _cookie_name(request), state, _SECONDS)
        return response

    @router.get("/sign-in/callback")
    def come_back(request: Request, state: Given = "", code: Given = "", error: Given = "") -> Response:
        """From the provider: a session, or the sign-in page that says why not."""
        response = _answer(request, provider, state, code, error)
        drop_cookie(request, response, _cookie_name(request))
        return response

    return router


def _answer(request: Request, provider: Provider, state: str, code: str, error: str) -> Response:
    pool: Pool = request.app.state.pool
    kept = request.cookies.get(_cookie_name(request), "")
    request_made = None
    if state and hmac.compare_digest(kept.encode(), state.encode("utf-8", "replace")):
        with pool.connection() as conn:
            request_made = sign_in_requests.take(conn, tokens.digest(kept))
    if request_made is None:
        log.warning("a sign-in by the provider did not begin in this browser, or not lately")
        return sign_in_form(request, next_path="/", problem="provider", status=403)
    next_path = request_made.next_path
    if error or not code:
        log.warning("a sign-in by the provider came to nothing", cause="it says no")
        return sign_in_form(request, next_path=next_path, problem="provider", status=403)
    try:
        identity = provider.identify(code=code, nonce=request_made.nonce, verifier=request_made.verifier)
    except ProviderError as trouble:
        log.warning("a sign-in by the provider came to nothing", cause=str(trouble))
        return sign_in_form(request, next_path=next_path, problem="provider", status=403)
    with pool.connection() as conn:
        found = accounts.to_sign_in(conn, identity.email) if is_storable(identity.email) else None
        if found is None or not identity.is_verified:
            log.warning("the provider let somebody in who has no account", is_verified=identity.is_verified)
            return sign_in_form(request, next_path=next_path, problem="no_account", status=403)
        account: Account = found[0]
        try:
            return begin_session(request, conn, account, next_path, "OpenID Connect")
        except RefusedError:
            return sign_in_form(request, next_path=next_path, problem="no_account", status=403)


def _cookie_name(request: Request) -> str:
    return "__Host-bidden-sign-in" if request.app.state.https else "bidden-sign-in"
