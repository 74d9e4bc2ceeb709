"""The mail of an event, as it will arrive; and one of them to the viewer herself, to see it arrive."""

from __future__ import annotations

import asyncio
import secrets
import threading
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from config.settings import Settings
from db import accounts, events
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from db.site_queries import EventSummary
from mail import sample
from mail.envelope import Envelope
from mail.sender import send
from mail.smtp.sender import SmtpSender
from schemas.errors import BiddenError, RefusedError, UnreachableError
from schemas.send_results import Accepted, Refused
from schemas.vocabulary import GROUP_OF_ROLE, Role
from web.auth.current_user import Database, OwnEvent, Signed, Viewer
from web.dependencies import Config
from web.pages.rendering import page, query

router = APIRouter(include_in_schema=False)

#: The mail's own page: its styles stand in it, and it may do nothing. Our other pages may frame it.
_MAIL_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; base-uri 'none'; form-action 'none'; "
    "sandbox; frame-ancestors 'self'"
)
#: Within the window, which is that of all attempts: older ones are forgotten at any sign-in.
_MOST_TESTS: Final = 10
_WINDOW_SECONDS: Final = 15 * 60.0
#: For each answer of the mail server, and for all of the test.
_REPLY_SECONDS: Final = 5.0
_TEST_SECONDS: Final = 15.0
#: Each keeps its connection to the database while the mail server takes its time: the rest of them is for the others.
_sending: Final = threading.BoundedSemaphore(3)


@router.get("/events/{event}/mail/{role}")
def show_mail(
    viewer: Signed,
    event: OwnEvent,
    role: Role,
    conn: Database,
    config: Config,
    said: Annotated[str, Query(max_length=400)] = "",
) -> HTMLResponse:
    """The mail that members get in this role."""
    return _show(viewer, event, role, conn, config, said=said)


@router.get("/events/{event}/mail/{role}/html")
def show_html(viewer: Signed, event: OwnEvent, role: Role, conn: Database, config: Config) -> HTMLResponse:
    """The mail's HTML part as it is, for a frame."""
    return HTMLResponse(
        _example(viewer, event, role, conn, config).html, headers={"Content-Security-Policy": _MAIL_POLICY}
    )


@router.post("/events/{event}/mail/{role}/test")
def send_test(viewer: Signed, event: OwnEvent, role: Role, conn: Database, config: Config) -> Response:
    """The mail to the viewer's own address, and to no other."""
    key = f"test mail {viewer.account.id}"
    attempts, seconds_left = accounts.count_attempt(conn, key, _WINDOW_SECONDS)
    if attempts > _MOST_TESTS:
        minutes = int(seconds_left // 60) + 1
        problem = f"There were {_MOST_TESTS} test mails within a quarter of an hour. Wait for {minutes} min"
        return _show(viewer, event, role, conn, config, problem=problem, status=429)
    deed = AuditEntry(viewer.actor, "test mail", event_id=event.id, detail=f"as {role}")
    try:
        with audited(conn, deed):
            envelope = sample.to_send(
                events.details(conn, event.id),
                role,
                config.mail_from,
                config.base_url,
                name=viewer.account.name,
                email=viewer.account.email,
                at=datetime.now(UTC),
                unique=secrets.token_hex(8),
            )
            if not _sending.acquire(blocking=False):
                raise UnreachableError("other test mails wait for the mail server: try again when they are through")
            try:
                reply = asyncio.run(_hand_over(config, envelope))
            finally:
                _sending.release()
            deed.note(reply)
    except BiddenError as error:
        problem = f"The test mail was not sent: {error.detail}"
        status = 503 if isinstance(error, UnreachableError) else 422
        return _show(viewer, event, role, conn, config, problem=problem, status=status)
    words = query(said=f"sent to {viewer.account.email}; the mail server said {reply}"[:400])
    return RedirectResponse(f"/events/{event.id}/mail/{role}{words}", status_code=303)


async def _hand_over(settings: Settings, envelope: Envelope) -> str:
    """The mail server's consent. RefusedError or UnreachableError in its words, or in ours where it said nothing."""
    sender = SmtpSender(
        settings.require_smtp(), connections=1, timeout=min(_REPLY_SECONDS, settings.smtp_timeout_seconds), drain=0.1
    )
    try:
        async with asyncio.timeout(_TEST_SECONDS):
            await sender.check()
            outcome = await send(sender, envelope)
    except TimeoutError as error:
        raise UnreachableError("the mail server takes too long to answer") from error
    finally:
        await sender.close()
    if isinstance(outcome, Accepted):
        return outcome.reply
    if isinstance(outcome, Refused):
        raise RefusedError(f"the mail server refused it: {outcome.reply}")
    raise UnreachableError(outcome.reason)


def _show(
    viewer: Viewer,
    event: EventSummary,
    role: Role,
    conn: Connection,
    settings: Settings,
    *,
    said: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    return page(
        "mail",
        status=status,
        viewer=viewer,
        event=event,
        role=role,
        roles=event.kind.precedence,
        group=GROUP_OF_ROLE[role],
        mail=_example(viewer, event, role, conn, settings),
        said=said,
        problem=problem,
    )


def _example(viewer: Viewer, event: EventSummary, role: Role, conn: Connection, settings: Settings) -> sample.Shown:
    return sample.shown(
        events.details(conn, event.id),
        role,
        settings.mail_from,
        settings.base_url,
        name=viewer.account.name,
        at=datetime.now(UTC),
    )
