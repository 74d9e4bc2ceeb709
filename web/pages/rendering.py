"""Pages: templates filled, with what each of them needs."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from mail.dates import moment
from schemas.vocabulary import Reason

FOLDER: Final = Path(__file__).resolve().parents[1]
_KEY: Final = secrets.token_bytes(32)
_SIGNATURE: Final = 16
_LONGEST_SAID: Final = 180

#: Why somebody was left out or skipped, as an organiser says it: of one member or of many.
REASONS: Final[Mapping[str, str]] = {
    Reason.SIGNED_UP: "coming already",
    Reason.DECLINED: "said no to this event",
    Reason.ALREADY_SENT: "mailed already",
    Reason.TERMS_NOT_ACCEPTED: "terms not accepted",
    Reason.BANNED: "banned",
    Reason.UNKNOWN: "may have been mailed: unknown, and not resolved yet",
    Reason.LEFT_LIST: "left the list before the mail went out",
    Reason.EVENT_CANCELLED: "event cancelled before the mail went out",
    Reason.BATCH_CANCELLED: "batch cancelled before the mail went out",
    Reason.MEMBER_DELETED: "deleted",
    Reason.NOT_SUBSCRIBED: "on no list of this event",
}


def number(value: float) -> str:
    """`12,345`."""
    return f"{value:,}"


def reason(word: str | None) -> str:
    """In words; what a mail server said is its own words."""
    return "" if word is None else REASONS.get(word, word)


def at(value: datetime | None, time_zone: str = "UTC") -> str:
    """A moment in the zone of whom it concerns."""
    return "" if value is None else moment(value, time_zone)


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 mail`, `2,000 mails`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def query(**values: Any) -> str:
    """The query of an address, without what is empty. `said` is what the next page is to say was done: it is signed."""
    if values.get("said"):
        values["said"] = _signed(str(values["said"])[:_LONGEST_SAID])
    given = {name: value for name, value in values.items() if value not in (None, "", 0)}
    return f"?{urlencode(given)}" if given else ""


def _signed(words: str) -> str:
    """With a signature before them, or a link of anybody's could put words into the site's mouth."""
    return hmac.new(_KEY, words.encode(), hashlib.sha256).hexdigest()[:_SIGNATURE] + words


def _heard(said: str) -> str:
    """The words, if they are the site's own; by another process, or before its restart, they are not."""
    words = said[_SIGNATURE:]
    return words if hmac.compare_digest(_signed(words).encode(), said.encode()) else ""


_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(number=number, reason=reason, at=at, plural=plural)
_TEMPLATES.globals.update(query=query)


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or part of one. Whatever stands in `values` is escaped; `said` is as it came in the address."""
    if "said" in values:
        values["said"] = _heard(values["said"])
    return HTMLResponse(text(template, **values), status_code=status)


def part(request: Request, name: str, *, title: str, back: str, **values: Any) -> HTMLResponse:
    """Part of a page, for htmx; for a browser that came by a link, because it runs no scripts, a page of its own."""
    if "hx-request" in request.headers:
        return page(f"_{name}", **values)
    return page("part", part=name, title=title, back=back, **values)


def text(template: str, **values: Any) -> str:
    """The same without a response around it."""
    return _TEMPLATES.get_template(f"{template}.html.j2").render(values)


def message(title: str, text: str, *, status: int, home: bool = False) -> HTMLResponse:
    """A page with a sentence on it; `home`: and with a way back into the site."""
    return page("message", status=status, title=title, text=text, home=home)
