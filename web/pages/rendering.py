"""Renders pages and fragments from the templates."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from mail import rich_text
from mail.dates import moment
from mail.sanitize import paragraphs
from monitoring.sending import duration
from schemas.errors import printable
from schemas.vocabulary import Reason
from web.base_path import Prefix
from web.pages import words
from web.scope import who_may
from web.urls import query_string

FOLDER: Final = Path(__file__).resolve().parents[1]
#: Of this process: a notice of another process, or from before a restart, is not shown.
_NOTICE_KEY: Final = secrets.token_bytes(32)
_SIGNATURE_LENGTH: Final = 16
_MAX_NOTICE_LENGTH: Final = 180

#: Why members were not invited, or deliveries skipped: in the words of an organiser, for one member or many.
REASONS: Final[Mapping[str, str]] = {
    Reason.SIGNED_UP: "already coming",
    Reason.DECLINED: "declined",
    Reason.ALREADY_SENT: "already mailed",
    Reason.TERMS_NOT_ACCEPTED: "terms not accepted",
    Reason.BANNED: "banned",
    Reason.SAME_MAILBOX: "another member with the same mailbox is mailed",
    Reason.UNKNOWN: "not sure if an earlier mail arrived: look at it first",
    Reason.LEFT_LIST: "left the list before the mail went out",
    Reason.EVENT_CANCELLED: "event cancelled before the mail went out",
    Reason.BATCH_CANCELLED: "batch cancelled before the mail went out",
    Reason.MEMBER_DELETED: "deleted",
    Reason.NOT_SUBSCRIBED: "on no list of this event",
    Reason.NOT_IN_SOURCE: "your own system took no invitation for them",
}


def number(value: float) -> str:
    """`12,345`."""
    return f"{value:,}"


def reason_text(reason: str | None) -> str:
    """The text for a reason. What a mail server said is shown as it is."""
    return "" if reason is None else REASONS.get(reason, reason)


def local_time(value: datetime | None, time_zone: str = "UTC") -> str:
    """A timestamp in a time zone: that of the event, where it is about one."""
    return "" if value is None else moment(value, time_zone)


def description(text: str) -> Markup:
    """An event's description as block elements, the same subset of HTML as in its mail."""
    if rich_text.is_html(text):
        return Markup(rich_text.render(text, styled=False).html)  # noqa: S704 # written anew from escaped text
    lines = Markup('<p class="lines" dir="auto">{}</p>')
    return Markup("\n").join(lines.format("\n".join(paragraph)) for paragraph in paragraphs(text))


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 mail`, `2,000 mails`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _sign(notice: str) -> str:
    """With a signature before it: a link from elsewhere must not make the site say something."""
    return hmac.new(_NOTICE_KEY, notice.encode(), hashlib.sha256).hexdigest()[:_SIGNATURE_LENGTH] + notice


def _verified(signed: str) -> str:
    """The notice; nothing if the signature is wrong."""
    notice = signed[_SIGNATURE_LENGTH:]
    return notice if hmac.compare_digest(_sign(notice).encode(), signed.encode()) else ""


_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    extensions=[Prefix],
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    word=words.word,
    number=number,
    reason_text=reason_text,
    local_time=local_time,
    plural=plural,
    duration=duration,
    printable=printable,
    description=description,
)
_TEMPLATES.globals.update(query_string=query_string, batch_title=words.batch_title, who_may=who_may)


def render(template: str, **values: Any) -> str:
    """The template filled with these values, which are escaped."""
    return _TEMPLATES.get_template(f"{template}.html.j2").render(values)


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The response with a template. `notice` is verified here: pass it as it came in the query."""
    if "notice" in values:
        values["notice"] = _verified(values["notice"])
    return HTMLResponse(render(template, **values), status_code=status)


def fragment(request: Request, name: str, *, title: str, back: str, **values: Any) -> HTMLResponse:
    """The template `_name`, for htmx; in a page of its own for a browser without scripts, which followed a link."""
    if "hx-request" in request.headers:
        return page(f"_{name}", **values)
    return page("fragment", fragment=name, title=title, back=back, **values)


def redirect(path: str, *, notice: str = "") -> RedirectResponse:
    """To the page that shows the result of a form, with a notice of what was done."""
    return RedirectResponse(
        path + query_string(said=_sign(notice[:_MAX_NOTICE_LENGTH]) if notice else ""), status_code=303
    )


def message_page(title: str, text: str, *, status: int, home: bool = False) -> HTMLResponse:
    """A page with one sentence; `home`: with a link into the site."""
    return page("message", status=status, title=title, text=text, home=home)
