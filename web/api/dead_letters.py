"""Dead letters: listed, read, redriven and discarded. For clients of admins."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from schemas.text import as_text
from web import actions, dead_letters
from web.api.current_client import AuthenticatedClient, require_scope
from web.api.dead_letter_models import (
    DeadLetter,
    Discarded,
    DiscardRequest,
    Redriven,
    RedriveRequest,
    WholeDeadLetter,
)
from web.api.errors import documented
from web.api.models import Page
from web.api.parameters import PLAIN, next_page
from web.auth.api_clients import ApiScope
from web.dead_letters import MAX_PARTITION, PLACE_PATTERN
from web.dependencies import MAX_ID, Config, Database

router = APIRouter(tags=["dead letters"], dependencies=[require_scope(ApiScope.DEAD_LETTERS)])

Before = Annotated[str | None, Query(pattern=PLACE_PATTERN, description="The last place of the page before, as 0:17.")]


@router.get("/dead-letters", responses=documented())
def list_letters(request: Request, conn: Database, config: Config, before: Before = None) -> Page[DeadLetter]:
    """All dead letters: why they failed, and where they came from. The newest first."""
    found = dead_letters.newest(conn, config, before)
    items = [DeadLetter.model_validate(letter) for letter in found.letters]
    return Page(items=items, next=next_page(request, found.next is not None, before=found.next))


@router.get("/dead-letters/{partition}/{offset}", responses=documented(404))
def show_letter(
    conn: Database,
    config: Config,
    partition: Annotated[int, Path(ge=0, le=MAX_PARTITION, description="The dead letter's partition."), PLAIN],
    offset: Annotated[int, Path(ge=0, le=MAX_ID, description="Its offset there."), PLAIN],
) -> WholeDeadLetter:
    """A dead letter with its headers and bytes."""
    letter, summary = dead_letters.find(conn, config, partition, offset)
    return WholeDeadLetter(
        **DeadLetter.model_validate(summary).model_dump(),
        value=None if letter.value is None else base64.b64encode(letter.value).decode(),
        headers={name: None if content is None else as_text(content) for name, content in letter.headers},
    )


@router.post("/dead-letters/redrive", responses=documented(400, 404, 408, 409, 413, 415))
def redrive(client: AuthenticatedClient, conn: Database, config: Config, wanted: RedriveRequest) -> Redriven:
    """Put dead letters on their source topic again, as their originals were: after their cause was repaired.

    Those redriven before are skipped, unless `again` is set; one that was discarded is refused then.
    """
    places = dict.fromkeys((place.partition, place.offset) for place in wanted.letters)
    done = actions.redrive(conn, config, client.actor, list(places), again=wanted.again)
    return Redriven.model_validate(done)


@router.post("/dead-letters/discard", responses=documented(400, 404, 408, 413, 415))
def discard(client: AuthenticatedClient, conn: Database, config: Config, wanted: DiscardRequest) -> Discarded:
    """Set dead letters aside for good. They stay on their topic, and no longer wait for anybody. Safe to repeat."""
    places = dict.fromkeys((place.partition, place.offset) for place in wanted.letters)
    return Discarded(discarded=actions.discard(conn, config, client.actor, list(places)))
