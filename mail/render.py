"""Renders an event's invitation: subject, plain text and HTML. Pure; knows no recipient.

The member's name and links are arguments, so that `compose` can render once with placeholders in their place. The
text is in `templates/`; descriptions are plain text, escaped in HTML, and keep their paragraphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from mail.dates import When, describe
from mail.sanitize import one_line, paragraphs
from schemas.invitation import EventDetails
from schemas.vocabulary import EventKind, Role

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a person reads. Lines end in LF; `html` is a whole document."""

    subject: str
    text: str
    html: str


def render(event: EventDetails, role: Role, *, name: str, rsvp_url: str, unsubscribe_url: str) -> Rendered:
    """The invitation to `event` as `role`. The three strings are inserted as they are, escaped in HTML."""
    when = describe(event.starts_at, event.ends_at, event.time_zone)
    contact = one_line(event.chapter_email)
    fields: dict[str, Any] = {
        "name": name,
        "rsvp_url": rsvp_url,
        "unsubscribe_url": unsubscribe_url,
        "subject": subject(event, role),
        "kind": event.kind.value,
        "role": role.value,
        "event": one_line(event.name),
        "when": when,
        "chapters": _listed(event.chapter_names),
        "contact": contact,
        "contact_link": "mailto:" + quote(contact, safe="@"),
        "host": one_line(event.host_name or ""),
        # An address over several lines reads as one line with commas.
        "address": ", ".join(
            line.strip().rstrip(",") for lines in paragraphs(event.host_address or "") for line in lines
        ),
        "description": paragraphs(event.description or ""),
    }
    return Rendered(
        subject=fields["subject"],
        text=_TEMPLATES.get_template("invitation.txt.j2").render(fields),
        html=_TEMPLATES.get_template("invitation.html.j2").render(fields),
    )


def subject(event: EventDetails, role: Role) -> str:
    """The subject line: workshops carry their date, events their name."""
    coach = "Coach " if role is Role.COACH else ""
    if event.kind is EventKind.EVENT:
        return f"{coach}Invitation: {one_line(event.name)}".rstrip()
    virtual = "Virtual " if event.kind is EventKind.VIRTUAL_WORKSHOP else ""
    when: When = describe(event.starts_at, event.ends_at, event.time_zone)
    return f"{virtual}Workshop {coach}Invitation {when.short}"


def _listed(names: tuple[str, ...]) -> str:
    """`London`, `London and Berlin`, `London, Berlin and Paris`."""
    *rest, last = [one_line(name) for name in names] or [""]
    return f"{', '.join(rest)} and {last}" if rest else last
