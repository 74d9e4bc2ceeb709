"""Dead letters: listed, shown to the byte, and put on their topic again. For admins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Path, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from config.settings import Settings
from db import batch_actions
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from monitoring.kafka import PAGE_TIMEOUT_SECONDS, kafka_errors_translated
from producers.dead_letters import DeadLetter, DeadLetterReader
from schemas.errors import BiddenError, RefusedError, UnreachableError, printable
from schemas.text import sentence
from web.actions import PutBack, put_back
from web.auth.current_user import Admin, Database, Viewer
from web.dependencies import Config
from web.pages.rendering import page, plural, query

router = APIRouter(include_in_schema=False)

_PLACE: Final = r"^[0-9]{1,9}:[0-9]{1,18}$"
_PAGE: Final = 50
#: How much of a letter's bytes a page shows.
_SHOWN: Final = 64 * 1024
_ROW: Final = 16
#: How much of a header, which anybody may have written, and of a reason.
_LONGEST: Final = 2000
_NAMED: Final = 10

Partition = Annotated[int, Path(ge=0, lt=2**31)]
Offset = Annotated[int, Path(ge=0, lt=2**63)]
Place = Annotated[str, Query(pattern=_PLACE)]
Checked = Annotated[str, Form(pattern=_PLACE)]


@dataclass(frozen=True, slots=True)
class Line:
    """A letter in short."""

    place: tuple[int, int]
    reason: str
    source: str
    at: datetime | None
    key: str
    size: int | None

    @property
    def name(self) -> str:
        """As the command line names it: `0:17`."""
        return f"{self.place[0]}:{self.place[1]}"


@router.get("/letters")
def show_letters(
    viewer: Admin,
    conn: Database,
    config: Config,
    before: Place | None = None,
    said: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:
    """The newest first; those redriven are marked."""
    return _list(viewer, conn, config, before=before, said=said)


@router.get("/letters/{partition}/{offset}")
def show_letter(viewer: Admin, conn: Database, config: Config, partition: Partition, offset: Offset) -> HTMLResponse:
    """One letter whole, but for the end of a very long one."""
    with kafka_errors_translated():
        box = DeadLetterReader(config, PAGE_TIMEOUT_SECONDS)
        letter = box.read(partition, offset)
        redriven = batch_actions.redriven_dead_letters(conn, box.topic_id).get(letter.place)
    value = letter.value
    return page(
        "letter",
        viewer=viewer,
        line=summary(letter),
        redriven_at=redriven,
        key=_text(letter.key and letter.key[:_SHOWN]),
        headers=[
            (printable(name[:_LONGEST]), _text(content and content[:_LONGEST])) for name, content in letter.headers
        ],
        size=None if value is None else len(value),
        text=None if value is None else _text(value[:_SHOWN]),
        dump=None if value is None else hex_dump(value[:_SHOWN]),
        shown=_SHOWN,
        is_ours=letter.info.topic == config.invitations_topic,
    )


@router.get("/letters/{partition}/{offset}/value")
def download(_: Admin, config: Config, partition: Partition, offset: Offset) -> Response:
    """The very bytes."""
    with kafka_errors_translated():
        letter = DeadLetterReader(config, PAGE_TIMEOUT_SECONDS).read(partition, offset)
    if letter.value is None:
        raise HTTPException(404, "This letter has no bytes")
    headers = {"Content-Disposition": f'attachment; filename="letter-{partition}-{offset}.bin"'}
    return Response(letter.value, media_type="application/octet-stream", headers=headers)


@router.post("/letters/redrive")
def redrive(
    viewer: Admin,
    conn: Database,
    config: Config,
    letter: Annotated[list[Checked], Form(max_length=_PAGE)] = [],  # noqa: B006 - FastAPI copies it
    everything: Annotated[bool, Form(alias="all")] = False,
    again: Annotated[bool, Form()] = False,
) -> Response:
    """Puts letters on their topic again: those chosen, or all; those put back before only if `again` is said."""
    places = list(dict.fromkeys(_place(text) for text in letter))
    if not (places or everything):
        return _list(viewer, conn, config, problem="Choose letters first.", status=422)
    # Of the places only so many that the trail stays readable.
    named = ", ".join(letter[:_NAMED]) + (f" and {len(places) - _NAMED} more" if len(places) > _NAMED else "")
    detail = ("all" if everything else named) + (", again" if again else "")
    try:
        with audited(conn, AuditEntry(viewer.actor, "redrive", detail=detail)) as deed, kafka_errors_translated():
            done = put_back(conn, config, deed, None if everything else places, again=again)
            told = _told(done)
            deed.note(told + (f"; {len(done.failed)} failed" if done.failed else ""))
    except RefusedError as error:
        return _list(viewer, conn, config, problem=sentence(error.detail), status=409)
    if done.failed:
        shown = "; ".join(done.failed[:_NAMED])
        problem = f"{told}. {plural(len(done.failed), 'letter')} could not be put back: {shown}."
        return _list(viewer, conn, config, problem=problem, status=503)
    return RedirectResponse("/letters" + query(said=told), status_code=303)


def _told(done: PutBack) -> str:
    words = [f"put back {plural(done.redriven, 'letter')}"]
    if done.before:
        words.append(f"{done.before:,} had been put back before")
    if done.elsewhere:
        words.append(f"{done.elsewhere:,} came from another topic and stay here")
    return "; ".join(words)


def _list(
    viewer: Viewer,
    conn: Connection,
    settings: Settings,
    *,
    before: str | None = None,
    said: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """The list; what keeps it from being read stands in its place."""
    values: dict[str, Any] = {"shelf": None, "redriven": {}, "waiting": 0, "next": ""}
    try:
        with kafka_errors_translated():
            box = DeadLetterReader(settings, PAGE_TIMEOUT_SECONDS)
            shelf = box.newest(_PAGE, _place(before) if before else None, summary)
        redriven = batch_actions.redriven_dead_letters(conn, box.topic_id)
        waiting = shelf.total - sum(shelf.contains(place) for place in redriven)
        last = shelf.items[-1].name if shelf.has_more and shelf.items else ""
        values = {"shelf": shelf, "redriven": redriven, "waiting": waiting, "next": last}
    except BiddenError as error:
        problem = problem or sentence(error.detail)
        status = 503 if isinstance(error, UnreachableError) else max(status, 422)
    return page(
        "letters",
        status=status,
        viewer=viewer,
        topic=settings.dead_letter_topic,
        is_first=before is None,
        said=said,
        problem=problem,
        **values,
    )


def summary(letter: DeadLetter) -> Line:
    """A letter in short; its headers may say anything, or nothing. Pure."""
    partition, offset = letter.info.partition, letter.info.offset
    place = f" {partition}:{offset}" if partition is not None and offset is not None else ""
    return Line(
        place=letter.place,
        reason=printable((letter.info.reason or "no reason given")[:_LONGEST]),
        source=printable((letter.info.topic or "unknown")[:_LONGEST]) + place,
        at=_time(letter.info.time),
        key=_text(letter.key) or "",
        size=None if letter.value is None else len(letter.value),
    )


def hex_dump(content: bytes) -> str:
    """Sixteen bytes a line: where they stand, in hexadecimal digits, and as ASCII. Pure."""
    lines = []
    for start in range(0, len(content), _ROW):
        row = content[start : start + _ROW]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<{3 * _ROW - 1}}  {letters}")
    return "\n".join(lines)


def _text(content: bytes | None) -> str | None:
    """Bytes that are text, mostly; all that cannot be shown as such is escaped."""
    return None if content is None else printable(content.decode("utf-8", "backslashreplace"))


def _time(text: str | None) -> datetime | None:
    try:
        time = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    return int(partition), int(offset)
