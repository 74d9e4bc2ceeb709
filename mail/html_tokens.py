"""Reads HTML as a sequence of tags and texts, in time linear in its length, whatever it holds. For `mail.rich_text`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

TAG: Final = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:[\s/][^<>]*)?)>")
_HREF: Final = re.compile(r"""[\s/]href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+))""", re.IGNORECASE)
_LINK: Final = re.compile(r"(?:https?://|mailto:)[^\s<>\"\\^`{|}]+", re.IGNORECASE)
_LONGEST_LINK: Final = 2_000
#: Python refuses to read a number of thousands of digits.
_HUGE_NUMBER: Final = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")
#: Of these not even the text is for people.
_DROPPED: Final = frozenset(
    (
        "script",
        "style",
        "head",
        "title",
        "template",
        "iframe",
        "object",
        "svg",
        "math",
        "textarea",
        "select",
        "noscript",
    )
)


def without_comments(text: str) -> str:
    """The text without comments; one that has no end is text."""
    kept: list[str] = []
    start = 0
    while (begin := text.find("<!--", start)) >= 0 and (end := text.find("-->", begin + 4)) >= 0:
        kept.append(text[start:begin])
        start = end + 3
    return "".join((*kept, text[start:]))


def tokens(text: str) -> Iterator[tuple[str, bool, str, str]]:
    """Tags (name, whether it ends, attributes) and the text between them; nothing of elements that are dropped."""
    start = 0
    dropping = ""
    for match in TAG.finditer(text):
        name, is_end = match[2].lower(), bool(match[1])
        if dropping:
            if is_end and name == dropping:
                dropping, start = "", match.end()
            continue
        if match.start() > start:
            yield "", False, "", text[start : match.start()]
        start = match.end()
        if name in _DROPPED:
            dropping = "" if is_end else name
        else:
            yield name, is_end, match[3], ""
    if not dropping and start < len(text):
        yield "", False, "", text[start:]


def unescaped(text: str) -> str:
    """The text with the characters that its entities stand for."""
    return html.unescape(_HUGE_NUMBER.sub("\ufffd", text)) if "&" in text else text


def href(attributes: str) -> str:
    """The address of a link, if it is one to follow from a mail; else nothing."""
    match = _HREF.search(attributes)
    if match is None:
        return ""
    raw = match[1] or match[2] or match[3] or ""
    if len(raw) > _LONGEST_LINK:
        return ""
    address = unescaped(raw).strip()
    return address if _LINK.fullmatch(address) and address.isprintable() else ""
