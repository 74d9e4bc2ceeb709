"""Renders an event's invitation: subject, plain text and HTML. Pure; knows no recipient.

The member's name and links are arguments, so that `compose` can render once with placeholders in their place. The
text is in `templates/`; descriptions are plain text, escaped in HTML, and keep their paragraphs, or a safe subset of
HTML (`mail.rich_text`).
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from mail import rich_text
from mail.dates import When, describe
from mail.sanitize import isolated, one_line, paragraphs, shortened
from schemas import limits
from schemas.invitation import EventDetails
from schemas.vocabulary import EventKind, Role

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
#: Stands at the end of a description that is longer than an import admits today.
_CUT_NOTE: Final = "[The description is longer than a mail can hold. The rest of it is left out.]"
#: How long a list of chapters may become in a sentence, in characters.
_LONGEST_LIST: Final = 3_000


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a person reads. Lines end in LF; `html` is a whole document."""

    subject: str
    text: str
    html: str


def render(event: EventDetails, role: Role, *, name: str, rsvp_url: str, unsubscribe_url: str) -> Rendered:
    """The invitation to `event` as `role`. The three strings are inserted as they are, escaped in HTML."""
    when = describe(event.starts_at, event.ends_at, event.time_zone)
    contact = one_line(shortened(event.chapter_email, limits.EMAIL))
    description, description_html = _description(event.description or "")
    fields: dict[str, Any] = {
        "name": name,
        "rsvp_url": rsvp_url,
        "unsubscribe_url": unsubscribe_url,
        "subject": subject(event, role),
        "kind": event.kind.value,
        "role": role.value,
        "event": _name(event.name),
        "when": when,
        "chapters": _listed(event.chapter_names),
        "contact": contact,
        "contact_link": "mailto:" + quote(contact, safe="@"),
        "host": _name(event.host_name or ""),
        # An address over several lines reads as one line with commas.
        "address": ", ".join(
            line.strip().rstrip(",")
            for lines in paragraphs(shortened(event.host_address or "", limits.HOST_ADDRESS))
            for line in lines
        ),
        "description": description,
        "description_html": description_html,
    }
    return Rendered(
        subject=fields["subject"],
        text=_TEMPLATES.get_template("invitation.txt.j2").render(_isolated(fields)),
        html=_TEMPLATES.get_template("invitation.html.j2").render(fields),
    )


def subject(event: EventDetails, role: Role) -> str:
    """The subject line: workshops carry their date, events their name."""
    coach = "Coach " if role is Role.COACH else ""
    if event.kind is EventKind.EVENT:
        return f"{coach}Invitation: {_name(event.name)}".rstrip()
    virtual = "Virtual " if event.kind is EventKind.VIRTUAL_WORKSHOP else ""
    when: When = describe(event.starts_at, event.ends_at, event.time_zone)
    return f"{virtual}Workshop {coach}Invitation {when.short}"


def _listed(names: tuple[str, ...]) -> str:
    """`London`, `London and Berlin`, `London, Berlin and Paris`; of very many the first, and how many more."""
    *rest, last = [one_line(name) for name in _as_many_as_fit(names)] or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


def _as_many_as_fit(names: tuple[str, ...]) -> list[str]:
    chosen: list[str] = []
    room = _LONGEST_LIST
    for name in names:
        room -= len(name) + 2
        if chosen and room < 0:
            return [*chosen, f"{len(names) - len(chosen):,} more"]
        chosen.append(shortened(name, limits.NAME))
    return chosen


def _name(text: str) -> str:
    return one_line(shortened(text, limits.NAME))


def _isolated(fields: dict[str, Any]) -> dict[str, Any]:
    """For plain text, which has no elements: names from right to left do not turn what is beside them."""
    return {**fields, **{key: isolated(fields[key]) for key in ("event", "chapters", "host", "address")}}


def _description(text: str) -> tuple[str, str]:
    """The description for the plain text, and as block elements for the HTML."""
    whole = text[: limits.DESCRIPTION]
    is_cut = len(text) > limits.DESCRIPTION
    if rich_text.is_html(whole):
        rich = rich_text.render(whole)
        return (
            f"{rich.text}\n\n{_CUT_NOTE}" if is_cut else rich.text,
            rich.html + (_as_blocks(_CUT_NOTE) if is_cut else ""),
        )
    found = paragraphs(whole)
    if is_cut:
        found = (*found, (_CUT_NOTE,))
    plain = "\n\n".join(map("\n".join, found))
    return plain, _as_blocks(plain)


def _as_blocks(plain: str) -> str:
    """Plain text, escaped as a whole: a description may have tens of thousands of short lines."""
    blocks = [block.replace("\n", "<br>\n") for block in html.escape(plain).split("\n\n") if block]
    opening = '<p dir="auto" style="margin:0 0 16px;">\n'
    return opening + f"\n</p>\n{opening}".join(blocks) + "\n</p>" if blocks else ""
