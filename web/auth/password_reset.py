"""A forgotten password: a link by mail, which sets a new one, once and within an hour.

Nobody learns from it who has an account: the answer is the same, and all that depends on an account happens after it.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Final

import psycopg
import structlog
from fastapi import APIRouter, BackgroundTasks, Depends, Form, Request
from fastapi.responses import HTMLResponse, Response

from config.settings import Settings
from db import accounts, audit_log, password_resets
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from mail import password_reset as mail
from schemas.errors import BiddenError, RefusedError
from schemas.mail_address import ascii_lower
from schemas.text import is_storable
from web import own_mail
from web.auth import tokens
from web.auth.current_user import require_same_site
from web.auth.throttle import Attempt, client_address
from web.database import Pool
from web.dependencies import Config, Database
from web.pages.parameters import FormText
from web.pages.rendering import message_page, page, redirect

log = structlog.get_logger()
router = APIRouter(include_in_schema=False)

#: How long a mail waits for those that are being sent.
_TURN_SECONDS: Final = 60.0


@router.get("/password")
def show_request(config: Config) -> HTMLResponse:
    """The form that asks for a link."""
    return _request_page(config)


@router.post("/password", dependencies=[Depends(require_same_site)])
def request_link(
    request: Request,
    config: Config,
    conn: Database,
    background: BackgroundTasks,
    email: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """Mails a link to the account of this address, if there is one that has a password."""
    email = ascii_lower(email.strip())
    if not own_mail.can_mail_links(config) or not is_storable(email) or len(email) > 320:
        return _request_page(config, is_asked=True)
    address = client_address(request)
    wait = Attempt(email, address, "reset ").seconds_to_wait(conn)
    if wait:
        log.warning("request for a new password throttled", address=address)
        response = _request_page(config, is_throttled=True, status=429)
        response.headers["Retry-After"] = str(int(wait) + 1)
        return response
    background.add_task(_mail_link, request.app.state.pool, config, email, address)
    return _request_page(config, is_asked=True)


@router.get("/password/{token}")
def show_new_password(token: str, conn: Database, config: Config) -> HTMLResponse:
    """The form for the new password. A GET changes nothing: mail programs follow every link."""
    return _new_password_page(conn, config, token)


@router.post("/password/{token}", dependencies=[Depends(require_same_site)])
def set_new_password(
    request: Request, token: str, conn: Database, config: Config, password: FormText = "", again: FormText = ""
) -> Response:
    """Sets the password, ends the account's sessions, and leads to the sign-in."""
    account = password_resets.find(conn, tokens.digest(token))
    if account is None:
        return _expired(config)
    if password != again:
        return _new_password_page(conn, config, token, problem="the two new passwords differ")
    try:
        password_hash = tokens.hash_password(password)
    except RefusedError as error:
        return _new_password_page(conn, config, token, problem=error.detail)
    try:
        entry = AuditEntry(str(account), "set password", detail=f"by a link in a mail, from {client_address(request)}")
        with audited(conn, entry):
            password_resets.use(conn, tokens.digest(token), password_hash)
    except RefusedError:
        return _expired(config)
    return redirect("/sign-in", notice="Your new password is set. Sign in with it.")


def _mail_link(pool: Pool, settings: Settings, email: str, address: str) -> None:
    """Sends the link, and records that. Whoever asked has their answer already."""
    try:
        with pool.connection() as conn:
            if accounts.find_credentials(conn, email) is None:
                # Within the limits of attempts, so that nobody can fill the audit log. A stranger's text is not kept.
                audit_log.record(conn, "somebody", "ask for a new password", f"no such account, from {address}")
                return
        with own_mail.turn(_TURN_SECONDS), pool.connection() as conn:
            _mail_link_to_account(conn, settings, email, address)
    except (BiddenError, psycopg.Error) as error:
        # What a mail server replies may name the address: it is in the audit log only.
        log.warning("no mail with a link for a new password was sent", cause=type(error).__name__)


def _mail_link_to_account(conn: Connection, settings: Settings, email: str, address: str) -> None:
    credentials = accounts.find_credentials(conn, email)
    if credentials is None:
        return
    account = credentials.account
    token = tokens.new_token()
    with audited(conn, AuditEntry(str(account), "ask for a new password", detail=f"from {address}")) as entry:
        if credentials.password_hash is None:
            raise RefusedError("the account signs in by OpenID Connect only")
        if not password_resets.add(conn, account.id, tokens.digest(token)):
            raise RefusedError(f"{password_resets.MOST} links were mailed within the hour")
        envelope = mail.compose(
            settings.mail_from,
            settings.base_url,
            name=account.name,
            email=account.email,
            token=token,
            at=datetime.now(UTC),
            unique=secrets.token_hex(8),
        )
        entry.note(own_mail.deliver(settings, envelope))


def _request_page(
    settings: Settings, *, status: int = 200, is_asked: bool = False, is_throttled: bool = False
) -> HTMLResponse:
    if not own_mail.can_mail_links(settings):
        text = "This site mails no links for passwords. Ask an admin of your site for a new one."
        return message_page("Not here", text, status=404, home=True)
    return page(
        "forgotten_password",
        status=status,
        is_asked=is_asked,
        is_throttled=is_throttled,
        provider=settings.oidc_name if settings.oidc_issuer else None,
    )


def _new_password_page(conn: Connection, settings: Settings, token: str, *, problem: str | None = None) -> HTMLResponse:
    account = password_resets.find(conn, tokens.digest(token))
    if account is None:
        return _expired(settings)
    return page(
        "new_password",
        status=200 if problem is None else 409,
        token=token,
        email=account.email,
        min_length=tokens.MIN_PASSWORD_LENGTH,
        problem=problem,
    )


def _expired(settings: Settings) -> HTMLResponse:
    return page("new_password", status=404, token=None, can_ask=own_mail.can_mail_links(settings))
