"""E-mail addresses, and the two settings that every mail contains: its sender and where its links lead. Pure."""

from __future__ import annotations

import re
import unicodedata
from email.utils import getaddresses
from typing import Final
from urllib.parse import urlsplit

from schemas import limits
from schemas.mailboxes import unseen_character

# RFC 5322 atoms, and beyond ASCII (RFC 6531) whatever is neither white space nor control nor surrogate.
_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_BEYOND: Final = r"\u00a1-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\ud7ff\ue000-\U0010ffff"
_LABEL: Final = r"(?![A-Za-z0-9\-]{64})[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_PLAIN_ADDRESS: Final = re.compile(rf"[{_ATEXT}.]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_ADDRESS: Final = re.compile(
    rf"(?P<local>[{_ATEXT}.{_BEYOND}]+|\"[{_ATEXT}.,:;@()\[\]{_BEYOND}]+\")"
    rf"@(?P<domain>[A-Za-z0-9.\-{_BEYOND}]+|\[[0-9A-Za-z.:]+\])"
)

#: Of a domain (RFC 1035).
_LONGEST_LABEL: Final = 63

_URL_CHARACTERS: Final = re.compile(r"[!#-%(-;=?-\[\]_a-z~]+")
#: A link must fit in a header line of 998 octets together with a token.
_LONGEST_BASE_URL: Final = 450
#: Controls, surrogates, and the separators that Unicode counts as line ends.
_NOT_IN_A_LINE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


def ascii_lower(text: str) -> str:
    """The text with A to Z in lower case, and nothing else changed.

    For finding somebody by an address. Beyond ASCII are letters whose lower case is an ASCII letter (the Kelvin sign is
    one): by them one address would be taken for another.
    """
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def is_plain_address(address: str) -> bool:
    """Whether it is an everyday ASCII address that needs no further check."""
    return len(address) <= limits.EMAIL and _PLAIN_ADDRESS.fullmatch(address) is not None


def address_problem(address: str) -> str | None:
    """Why no mail can be addressed to it, as a sentence without the address; None if it can."""
    if not address:
        return "the member has no e-mail address"
    match = _ADDRESS.fullmatch(address)
    if match is None or re.search(r"\s", address):
        return "the e-mail address cannot be used: it is not of the form name@domain"
    if unseen := unseen_character(address):
        return f"the e-mail address cannot be used: it holds a character that cannot be seen ({unseen})"
    if len(address.encode()) > limits.EMAIL:
        return f"the e-mail address cannot be used: it is longer than {limits.EMAIL} bytes"
    domain = match["domain"]
    if domain.startswith((".", "-")) or domain.endswith((".", "-")) or ".." in domain:
        return "the e-mail address cannot be used: its domain is malformed"
    if any(label.startswith("-") or label.endswith("-") or len(label) > _LONGEST_LABEL for label in domain.split(".")):
        return "the e-mail address cannot be used: its domain is malformed"
    return None


def parse_sender(mail_from: str) -> tuple[str, str]:
    """Name and address of `Name <address>` or `address`. ValueError if it is neither, or its address beyond ASCII."""
    found = getaddresses([mail_from])
    name, address = found[0] if len(found) == 1 else ("", "")
    is_one_line = not any(unicodedata.category(character) in _NOT_IN_A_LINE for character in mail_from)
    if not is_one_line or not address.isascii() or address_problem(address):
        raise ValueError(
            "must be an address such as invitations@example.org, or Name <invitations@example.org>, "
            f"but is {mail_from!r}"
        )
    return name.strip(), address


def check_base_url(base_url: str) -> str:
    """The URL without a slash at its end. ValueError, without the URL in it, if links cannot begin with it."""
    if not _URL_CHARACTERS.fullmatch(base_url):
        raise ValueError("must be ASCII without spaces, quotes or ampersands (an international domain in xn-- form)")
    try:
        parts = urlsplit(base_url)
    except ValueError:
        # Without the cause: urllib quotes the URL, password included.
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must look like https://host or https://host/path")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must not have a user, query or fragment")
    if len(base_url) > _LONGEST_BASE_URL:
        raise ValueError(f"must not be longer than {_LONGEST_BASE_URL} characters")
    return base_url.rstrip("/")
