"""Where the links in mails lead: an invitation is answered, a list is left.

The token in the address is all that is asked for. A GET changes nothing, because mail programs and virus scanners open
every link; what changes something is a form, or the one click of RFC 8058.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from db import links
from db.connect import Connection
from db.links import LinkedInvitation
from mail.dates import describe
from mail.sample import TOKEN as EXAMPLE
from web.auth.current_user import Database
from web.pages.rendering import message, page

router = APIRouter(include_in_schema=False)


@router.get("/invitation/{token}", name="invitation")
def show_invitation(token: str, conn: Database) -> HTMLResponse:
    """What one is invited to, and the question."""
    return _show("invitation", conn, token)


@router.post("/invitation/{token}")
def answer_invitation(request: Request, token: str, conn: Database, answer: Annotated[str, Form()] = "") -> Response:
    """Yes or no. After it the page is shown anew, so that a reload asks for nothing."""
    invitation = links.find(conn, token)
    if invitation is None:
        return _unknown(token)
    if answer not in ("yes", "no"):
        return message("Not understood", "The answer is yes or no. Go back and try again.", status=422)
    if not links.answer(conn, token, attending=answer == "yes"):
        return page("invitation", status=409, **_about(invitation, token))
    return RedirectResponse(request.url_for("invitation", token=token).path, status_code=303)


@router.get("/unsubscribe/{token}", name="unsubscribe")
def show_lists(token: str, conn: Database) -> HTMLResponse:
    """Which list it is, and the question."""
    return _show("unsubscribe", conn, token)


@router.post("/unsubscribe/{token}")
def leave_lists(
    request: Request,
    token: str,
    conn: Database,
    one_click: Annotated[str, Form(alias="List-Unsubscribe")] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Leaves the list, or joins it `again`. A mail program's one click is answered in words, not by a page."""
    if links.find(conn, token) is None:
        return PlainTextResponse("unknown link\n", status_code=404) if one_click else _unknown(token)
    if again and not one_click:
        links.join_lists_again(conn, token)
    else:
        links.leave_lists(conn, token)
    if one_click:
        return PlainTextResponse("unsubscribed\n")
    return RedirectResponse(request.url_for("unsubscribe", token=token).path, status_code=303)


def _show(template: str, conn: Connection, token: str) -> HTMLResponse:
    invitation = links.find(conn, token)
    return _unknown(token) if invitation is None else page(template, **_about(invitation, token))


def _about(invitation: LinkedInvitation, token: str) -> dict[str, Any]:
    event = invitation.event
    return {
        "invitation": invitation,
        "event": event,
        "chapters": " and ".join(event.chapter_names),
        "when": describe(event.starts_at, event.ends_at, event.time_zone),
        "token": token,
    }


def _unknown(token: str) -> HTMLResponse:
    if token == EXAMPLE:
        return message(
            "Only an example", "In a member's mail this link leads to her invitation, or off the list.", status=404
        )
    text = "This link is not known here. It may have been cut off in the mail: copy all of it into the address bar."
    return message("Unknown link", text, status=404)
