"""The pages behind the links in mails: answer an invitation, leave a list.

The token in the address is the only credential. A GET changes nothing, because mail programs and virus scanners follow
every link; changes need a form, or the one-click request of RFC 8058.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from db import links
from db.connect import Connection
from db.links import LinkedInvitation
from mail.dates import describe
from mail.sample import TOKEN as EXAMPLE_TOKEN
from web.dependencies import Database
from web.pages.rendering import message_page, page

router = APIRouter(include_in_schema=False)

#: The values of the forms' buttons.
THIS_LIST: Final = "list"
EVERYTHING: Final = "everything"


@router.get("/invitation/{token}", name="invitation")
def show_invitation(token: str, conn: Database) -> HTMLResponse:
    """The event, and whether the member will come."""
    return _show("invitation", conn, token)


@router.post("/invitation/{token}")
def answer_invitation(request: Request, token: str, conn: Database, answer: Annotated[str, Form()] = "") -> Response:
    """Records yes or no, and redirects, so that a reload sends nothing again."""
    invitation = links.find(conn, token)
    if invitation is None:
        return _unknown(token)
    if answer not in ("yes", "no"):
        return message_page("Invalid input", "The answer must be yes or no. Go back and try again.", status=422)
    if not links.answer(conn, token, attending=answer == "yes"):
        return page("invitation", status=409, **_about(invitation, token))
    return RedirectResponse(request.url_for("invitation", token=token).path, status_code=303)


@router.get("/unsubscribe/{token}", name="unsubscribe")
def show_lists(token: str, conn: Database) -> HTMLResponse:
    """The list, and whether to leave it."""
    return _show("unsubscribe", conn, token)


@router.post("/unsubscribe/{token}")
def leave_lists(
    request: Request,
    token: str,
    conn: Database,
    one_click: Annotated[str, Form(alias="List-Unsubscribe")] = "",
    leave: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Leaves this list or `everything`, or takes that back (`again`).

    A one-click request of a mail program leaves everything: it is about the sender, and all mails have one. It gets a
    plain-text response.
    """
    invitation = links.find(conn, token)
    if invitation is None:
        return PlainTextResponse("unknown link\n", status_code=404) if one_click else _unknown(token)
    if again and not one_click:
        links.join_lists_again(conn, invitation, lists=again != EVERYTHING, everything=again != THIS_LIST)
    else:
        links.leave_lists(conn, token, everything=bool(one_click) or leave == EVERYTHING)
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
    if token == EXAMPLE_TOKEN:
        return message_page(
            "Only an example",
            "In a member's mail this link leads to their invitation, or to leaving the list.",
            status=404,
        )
    text = (
        "This link is unknown. Your mail program may have cut it off: copy the whole link into the address bar."
        " Or its event is over since long ago: to leave a list, use the link in the newest mail that you have."
    )
    return message_page("Unknown link", text, status=404)
