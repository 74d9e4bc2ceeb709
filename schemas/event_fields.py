"""What an event can say about itself beside its facts: a reference of the organisation's own, and where members answer.

A reference (`workshop/3668`) is accepted wherever an id of an event is. It is never all digits, so it is no id.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from schemas import limits

#: An event as a person or a program names it: by its id, or by its reference.
EventName: TypeAlias = int | str
MAX_ID: Final = 2**63 - 1
#: Stands in a pattern of links where the token of an invitation goes.
TOKEN_FIELD: Final = "{token}"  # noqa: S105 - it opens nothing
# As in a setting of an address, and an ampersand: a pattern may have a query.
_URL_CHARACTERS: Final = re.compile(r"[!#-&(-;=?-\[\]_a-z~]+")


def check_ref(value: str) -> str:
    """The reference. ValueError if it is none: what follows the field's name in an error."""
    if not value or len(value) > limits.EVENT_REF:
        raise ValueError(f"must be 1 to {limits.EVENT_REF} characters")
    if not value.isprintable() or any(character.isspace() for character in value):
        raise ValueError("must be printable characters without spaces, such as workshop/3668")
    if value.isdigit():
        raise ValueError("must not be digits alone: that is an id")
    # Clients resolve such segments before they send an address, and a leading hyphen makes an option of an argument.
    if value.startswith("-") or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("must not begin with a hyphen, nor have a part between slashes that is empty or dots")
    return value


def parse_event_name(text: str) -> EventName:
    """An id from digits alone, a reference from any other text. ValueError if it is neither."""
    if not (text.isascii() and text.isdigit()):
        return check_ref(text)
    # Not converted before it is known to be short: that takes time.
    if len(text) > len(str(MAX_ID)) or not 1 <= int(text) <= MAX_ID:
        raise ValueError("must be a positive 64-bit number")
    return int(text)


def rsvp_link(rsvp_url: str | None, base_url: str) -> tuple[str, str]:
    """What stands before and after the token in the link where a member answers."""
    before, _, after = (rsvp_url or f"{base_url}/invitation/{TOKEN_FIELD}").partition(TOKEN_FIELD)
    return before, after


def check_rsvp_url(value: str) -> str:
    """The pattern of links. ValueError if it is none: what follows the field's name in an error."""
    if len(value) > limits.RSVP_URL:
        raise ValueError(f"must not be longer than {limits.RSVP_URL} characters")
    before, field, after = value.partition(TOKEN_FIELD)
    if not field or any(brace in before + after for brace in "{}"):
        raise ValueError("must hold {token} once, and no other braces")
    if not _URL_CHARACTERS.fullmatch(before + after):
        raise ValueError("must be ASCII without spaces, quotes, angle brackets or backslashes")
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not has_host or parts.username is not None:
        raise ValueError("must look like https://host/path/{token}, without a user")
    # In another host name each member would have a server of their own.
    if TOKEN_FIELD in parts.netloc:
        raise ValueError("must hold {token} after the host")
    return value
