"""Dead letters: read, and put on their source topic again. For clients of admins."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request

from db import batch_actions
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.dead_letters import DeadLetter, DeadLetterReader
from web import actions
from web.api import models
from web.api.caller import LARGEST, PLAIN, Calling, needs
from web.api.paging import next_page
from web.api.problems import documented
from web.auth.api_clients import ApiScope
from web.auth.current_user import Database
from web.dependencies import Config

router = APIRouter(tags=["dead letters"], dependencies=[needs(ApiScope.DEAD_LETTERS)])

_PAGE: Final = 50
_LONGEST: Final = 2000
_PARTITIONS: Final = 2**31 - 1
Before = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,9}:[0-9]{1,18}$", description="Where the page before ended, like 0:17.")
]


@router.get("/dead-letters", responses=documented())
def list_letters(request: Request, conn: Database, config: Config, before: Before = None) -> models.Page[models.Letter]:
    """Every letter: why, and where it came from. The newest first."""
    partition, _, offset = (before or "").partition(":")
    with kafka_errors_translated():
        box = DeadLetterReader(config, PAGE_TIMEOUT_SECONDS)
        shelf = box.newest(_PAGE, (int(partition), int(offset)) if before else None, _fields)
    redriven = batch_actions.redriven_dead_letters(conn, box.topic_id)
    items = [
        models.Letter(**letter, redriven_at=redriven.get((letter["partition"], letter["offset"])))
        for letter in shelf.items
    ]
    last = f"{items[-1].partition}:{items[-1].offset}" if items else None
    return models.Page(items=items, next=next_page(request, shelf.has_more, before=last))


@router.get("/dead-letters/{partition}/{offset}", responses=documented(404))
def show_letter(
    conn: Database,
    config: Config,
    partition: Annotated[int, Path(ge=0, le=_PARTITIONS, description="The letter's partition."), PLAIN],
    offset: Annotated[int, Path(ge=0, le=LARGEST, description="Its offset there."), PLAIN],
) -> models.WholeLetter:
    """One letter whole."""
    with kafka_errors_translated():
        box = DeadLetterReader(config, PAGE_TIMEOUT_SECONDS)
        letter = box.read(partition, offset)
    return models.WholeLetter(
        **_fields(letter),
        redriven_at=batch_actions.redriven_dead_letters(conn, box.topic_id).get(letter.place),
        value=None if letter.value is None else base64.b64encode(letter.value).decode(),
        headers={name: _text(content) for name, content in letter.headers},
    )


@router.post("/dead-letters/redrive", responses=documented(400, 404, 408, 409, 413, 415))
def redrive(caller: Calling, conn: Database, config: Config, wanted: models.RedriveRequest) -> models.Redriven:
    """Put letters on their source topic again, with the original key and bytes: after what ailed them was repaired.

    Those that were redriven before are left out, unless `again` is set.
    """
    places = dict.fromkeys((place.partition, place.offset) for place in wanted.letters)
    done = actions.redrive(conn, config, caller.actor, list(places), again=wanted.again)
    return models.Redriven.model_validate(done)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    words = {
        "reason": letter.info.reason,
        "source_topic": letter.info.topic,
        "at": letter.info.time,
        "key": _text(letter.key),
    }
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "source_partition": letter.info.partition,
        "source_offset": letter.info.offset,
        # Anybody may have written them, and as long as a message may be.
        **{name: text and text[:_LONGEST] for name, text in words.items()},
    }


def _text(content: bytes | None) -> str | None:
    """Bytes that are text, mostly; the others are escaped."""
    return None if content is None else content.decode("utf-8", "backslashreplace")
