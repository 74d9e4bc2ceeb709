"""Previews of an event's mails, and a test mail to the user."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from config.settings import Settings
from db import accounts, events
from db.accounts import Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from db.site_queries import EventSummary
from mail import sample
from schemas.errors import BiddenError, UnreachableError
from schemas.vocabulary import GROUP_OF_ROLE, Role
from web import own_mail
from web.auth.current_user import CurrentUser, EventInScope, SignedInUser
from web.dependencies import Config, Database
from web.pages.parameters import Notice
from web.pages.rendering import page, redirect

router = APIRouter(include_in_schema=False)

#: For the HTML of a mail: inline styles, no scripts or forms, and only our own pages may frame it.
_MAIL_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; base-uri 'none'; form-action 'none'; "
    "sandbox; frame-ancestors 'self'"
)
#: Test mails of one account within the window. It is the window of all attempts: any sign-in forgets older ones.
_MAX_TESTS: Final = 10
_WINDOW_SECONDS: Final = 15 * 60.0


@router.get("/events/{event}/mail/{role}")
def show_mail(
    user: SignedInUser,
    event: EventInScope,
    role: Role,
    conn: Database,
    config: Config,
    notice: Notice = "",
) -> HTMLResponse:
    """The mail that members get in this role."""
    return _show(user, event, role, conn, config, notice=notice)


@router.get("/events/{event}/mail/{role}/html")
def show_html(user: SignedInUser, event: EventInScope, role: Role, conn: Database, config: Config) -> HTMLResponse:
    """The HTML part of the mail, for a frame."""
    return HTMLResponse(
        _example(user, event, role, conn, config).html, headers={"Content-Security-Policy": _MAIL_POLICY}
    )


@router.post("/events/{event}/mail/{role}/test")
def send_test(user: SignedInUser, event: EventInScope, role: Role, conn: Database, config: Config) -> Response:
    """Sends the mail to the user's own address."""
    key = f"test mail {user.account.id}"
    attempts, seconds_left = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    if attempts > _MAX_TESTS:
        minutes = int(seconds_left // 60) + 1
        problem = f"You sent {_MAX_TESTS} test mails within 15 minutes. Wait {minutes} min"
        return _show(user, event, role, conn, config, problem=problem, status=429)
    try:
        with audited(conn, AuditEntry(user.actor, "test mail", event_id=event.id, detail=f"as {role}")) as entry:
            reply = _deliver_test(user.account, event, role, conn, config)
            entry.note(reply)
    except BiddenError as error:
        problem = f"The test mail was not sent: {error.detail}"
        status = 503 if isinstance(error, UnreachableError) else 422
        return _show(user, event, role, conn, config, problem=problem, status=status)
    notice = f"sent to {user.account.email}; the mail server replied {reply}"
    return redirect(f"/events/{event.id}/mail/{role}", notice=notice)


def _deliver_test(account: Account, event: EventSummary, role: Role, conn: Connection, settings: Settings) -> str:
    """The mail server's reply. UnreachableError also if too many mails are being sent."""
    envelope = sample.to_send(
        events.details(conn, event.id),
        role,
        settings.mail_from,
        settings.base_url,
        name=account.name,
        email=account.email,
        at=datetime.now(UTC),
        unique=secrets.token_hex(8),
    )
    with own_mail.turn():
        return own_mail.deliver(settings, envelope)


def _show(
    user: CurrentUser,
    event: EventSummary,
    role: Role,
    conn: Connection,
    settings: Settings,
    *,
    notice: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    return page(
        "mail_preview",
        status=status,
        user=user,
        event=event,
        role=role,
        roles=event.kind.precedence,
        group=GROUP_OF_ROLE[role],
        mail=_example(user, event, role, conn, settings),
        notice=notice,
        problem=problem,
    )


def _example(user: CurrentUser, event: EventSummary, role: Role, conn: Connection, settings: Settings) -> sample.Shown:
    return sample.shown(
        events.details(conn, event.id),
        role,
        settings.mail_from,
        settings.base_url,
        name=user.account.name,
        at=datetime.now(UTC),
    )
