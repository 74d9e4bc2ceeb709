"""Dead letters: listed, shown to the byte, redriven and discarded. For admins."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from psycopg import Error as DatabaseError

from config.settings import Settings
from db.connect import Connection
from schemas.errors import BiddenError, RefusedError, UnreachableError, printable
from schemas.text import as_text, sentence
from web import actions, dead_letters
from web.auth.current_user import AdminUser, CurrentUser
from web.database import Pool
from web.dead_letters import MAX_HEADER_LENGTH, MAX_PARTITION, PAGE_SIZE, PLACE_PATTERN, parse_place
from web.dependencies import MAX_ID, Config, Database
from web.pages import questions
from web.pages.parameters import Notice
from web.pages.rendering import page, plural, redirect, render
from web.single_flight import SingleFlightCache

router = APIRouter(include_in_schema=False)

#: How many bytes of a dead letter a page shows.
_SHOWN_BYTES: Final = 64 * 1024
_BYTES_PER_LINE: Final = 16
_SHOWN_FAILURES: Final = 10
_WAITING_TTL_SECONDS: Final = 30.0

Partition = Annotated[int, Path(ge=0, le=MAX_PARTITION)]
Offset = Annotated[int, Path(ge=0, le=MAX_ID)]
Before = Annotated[str | None, Query(pattern=PLACE_PATTERN)]
SelectedPlace = Annotated[str, Form(pattern=PLACE_PATTERN)]


@router.get("/letters")
def show_dead_letters(
    user: AdminUser, conn: Database, config: Config, before: Before = None, notice: Notice = ""
) -> HTMLResponse:
    """The newest first."""
    return _list(user, conn, config, before=before, notice=notice)


class WaitingLetters(SingleFlightCache[None, int]):
    """How many dead letters wait for a person, for the navigation of all admins: read once in a while."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        def load(_: None) -> int:
            with pool.connection() as conn:
                return dead_letters.newest(conn, settings, None).waiting

        super().__init__(load, _WAITING_TTL_SECONDS, share=0.2)


@router.get("/letters/waiting")
def show_waiting(_: AdminUser, request: Request) -> HTMLResponse:
    """Fragment: the badge in the navigation; nothing while none wait, or nobody can tell."""
    waiting: WaitingLetters = request.app.state.waiting_letters
    try:
        count = waiting.get_without_waiting(None) or 0
    except (BiddenError, DatabaseError):
        count = 0
    return HTMLResponse(render("_waiting", count=count))


@router.get("/letters/{partition}/{offset}")
def show_dead_letter(
    user: AdminUser, conn: Database, config: Config, partition: Partition, offset: Offset
) -> HTMLResponse:
    """A dead letter with its headers and bytes, of which a very long one shows only the first."""
    letter, summary = dead_letters.find(conn, config, partition, offset)
    shown = None if letter.value is None else letter.value[:_SHOWN_BYTES]
    return page(
        "dead_letter",
        user=user,
        letter=summary,
        key=_printable(letter.key and letter.key[:_SHOWN_BYTES]),
        headers=[
            (printable(name[:MAX_HEADER_LENGTH]), _printable(content and content[:MAX_HEADER_LENGTH]))
            for name, content in letter.headers
        ],
        text=_printable(shown),
        dump=None if shown is None else hex_dump(shown),
        shown=_SHOWN_BYTES,
        is_ours=letter.info.topic == config.invitations_topic,
    )


@router.get("/letters/{partition}/{offset}/value")
def download(_: AdminUser, conn: Database, config: Config, partition: Partition, offset: Offset) -> Response:
    """The original bytes."""
    letter, _summary = dead_letters.find(conn, config, partition, offset)
    if letter.value is None:
        raise HTTPException(404, "This dead letter has no bytes")
    headers = {"Content-Disposition": f'attachment; filename="dead-letter-{partition}-{offset}.bin"'}
    return Response(letter.value, media_type="application/octet-stream", headers=headers)


@router.post("/letters/confirm")
def confirm(
    user: AdminUser,
    conn: Database,
    config: Config,
    do: Annotated[Literal["redrive", "redrive all", "discard"], Form()],
    letter: Annotated[list[SelectedPlace], Form(max_length=PAGE_SIZE)] = [],  # noqa: B006 - FastAPI copies it
    again: Annotated[bool, Form()] = False,
) -> Response:
    """The question before a redrive or a discard. Changes nothing: it is a form because the selection is one."""
    places = list(dict.fromkeys(letter))
    if do == "redrive all":
        waiting = dead_letters.newest(conn, config, None).waiting
        return questions.ask_redrive(user, (), waiting, all_letters=True, again=again)
    if not places:
        return _list(user, conn, config, problem="Select dead letters first.", status=422)
    if do == "discard":
        return questions.ask_discard(user, places)
    return questions.ask_redrive(user, places, len(places), all_letters=False, again=again)


@router.post("/letters/redrive")
def redrive(
    user: AdminUser,
    conn: Database,
    config: Config,
    letter: Annotated[list[SelectedPlace], Form(max_length=PAGE_SIZE)] = [],  # noqa: B006 - FastAPI copies it
    all_letters: Annotated[bool, Form(alias="all")] = False,
    again: Annotated[bool, Form()] = False,
) -> Response:
    """Redrives those selected, or all; those that were redriven before only with `again`."""
    places = list(dict.fromkeys(parse_place(place) for place in letter))
    if not (places or all_letters):
        return _list(user, conn, config, problem="Select dead letters first.", status=422)
    try:
        done = actions.redrive(conn, config, user.actor, None if all_letters else places, again=again)
    except RefusedError as error:
        return _list(user, conn, config, problem=sentence(error.detail), status=409)
    if done.failed:
        failures = "; ".join(done.failed[:_SHOWN_FAILURES])
        problem = f"{done}. {plural(len(done.failed), 'dead letter')} could not be redriven: {failures}."
        return _list(user, conn, config, problem=problem, status=503)
    return redirect("/letters", notice=str(done))


@router.post("/letters/discard")
def discard(
    user: AdminUser,
    conn: Database,
    config: Config,
    letter: Annotated[list[SelectedPlace], Form(max_length=PAGE_SIZE)] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Sets those selected aside for good."""
    places = list(dict.fromkeys(parse_place(place) for place in letter))
    if not places:
        return _list(user, conn, config, problem="Select dead letters first.", status=422)
    done = actions.discard(conn, config, user.actor, places)
    return redirect("/letters", notice=f"{plural(done, 'dead letter')} discarded")


def _list(
    user: CurrentUser,
    conn: Connection,
    settings: Settings,
    *,
    before: str | None = None,
    notice: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """The list, or why it cannot be read."""
    found = None
    try:
        found = dead_letters.newest(conn, settings, before)
    except BiddenError as error:
        problem = problem or sentence(error.detail)
        status = 503 if isinstance(error, UnreachableError) else max(status, 422)
    return page(
        "dead_letters",
        status=status,
        user=user,
        topic=settings.dead_letter_topic,
        found=found,
        is_first=before is None,
        notice=notice,
        problem=problem,
    )


def hex_dump(content: bytes) -> str:
    """Lines of sixteen bytes: their offset, in hexadecimal, and as ASCII. Pure."""
    lines = []
    for start in range(0, len(content), _BYTES_PER_LINE):
        row = content[start : start + _BYTES_PER_LINE]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<{3 * _BYTES_PER_LINE - 1}}  {ascii_text}")
    return "\n".join(lines)


def _printable(content: bytes | None) -> str | None:
    return None if content is None else printable(as_text(content))
