"""Addresses in which a person typed what their own system calls an event: they lead to those with its id."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from db import events
from schemas.text import storable
from web import scope
from web.auth.current_user import SignedInUser
from web.dependencies import Database

router = APIRouter(include_in_schema=False)


@router.get("/events/{named:path}")
def show_event_of_ref(request: Request, named: str, user: SignedInUser, conn: Database) -> Response:
    """To the event, or to the page of it that the address goes on to. The last of all routes below /events."""
    found = events.find_longest(conn, storable(named))
    if found is None:
        raise HTTPException(404, scope.NO_EVENT)
    event = scope.require_event(conn, found.id, user.account)
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/events/{event.id}{quote(named[len(found.ref) :])}{query}", status_code=303)
