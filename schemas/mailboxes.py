"""Which mailbox an address means: one normal form, so that one mailbox is one mailbox however it is written. Pure.

The rule: the domain as lower-case A-label (IDNA 2008 after the mapping of UTS 46), the part before the @ in Unicode's
form C, without quotes, and case-folded. Servers could tell `Bob@` from `bob@`, and none that people use does. What
nobody can see does not count: addresses with invisible characters are refused at import, and older databases hold some.

The database keeps a digest of the normal form and never the form itself: it outlives a member who is deleted.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256
from typing import Final

import idna

#: Categories of characters that no one can see or that mean nothing: controls, formats, surrogates, private use, not
#: assigned, separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
#: Those of other categories: the replacement character, fillers, joiners, variation selectors, the empty Braille cell.
_ALSO_UNSEEN: Final = re.compile(
    "[\ufffd\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def unseen_character(address: str) -> str | None:
    """The first character that cannot be seen, as `U+200B`; None if there is none."""
    if address.isascii() and address.isprintable() and " " not in address:
        return None
    for character in address:
        if unicodedata.category(character) in _UNSEEN or _ALSO_UNSEEN.match(character):
            return f"U+{ord(character):04X}"
    return None


def normal_form(address: str) -> str:
    """The one form of all spellings of an address. Any text has one; two mailboxes that differ have two."""
    if address.isascii() and address.isprintable() and '"' not in address:
        return address.lower()
    seen = "".join(c for c in address if unicodedata.category(c) not in _UNSEEN and not _ALSO_UNSEEN.match(c))
    local, _, domain = seen.rpartition("@")
    while len(local) > 2 and local.startswith('"') and local.endswith('"'):
        # Quotes are a way to write it (RFC 5321, 4.1.2): `"bob"@` is `bob@`.
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())
    return f"{local}@{ascii_domain(domain) or unicodedata.normalize('NFKC', domain).casefold()}"


def digest(address: str) -> bytes:
    """What the database compares mailboxes by: SHA-256 of the normal form."""
    return sha256(normal_form(address).encode("utf-8", "surrogatepass")).digest()


def ascii_domain(domain: str) -> str | None:
    """The domain as lower-case A-labels; None if it has none."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return None


def ascii_address(address: str) -> str | None:
    """The same mailbox in ASCII; None where its local part, or a domain without A-labels, is beyond ASCII."""
    local, _, domain = address.rpartition("@")
    converted = ascii_domain(domain)
    return f"{local}@{converted}" if converted is not None and local.isascii() else None
