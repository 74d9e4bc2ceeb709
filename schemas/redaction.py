"""Takes people out of texts that a server or a person wrote: replies, reasons, keys, names of those who asked. Pure.

What a mail server replies is redacted before it is recorded, logged or shown. Whatever else may name a member is found
by the expressions of `Identifying` when that member is deleted (`db.erasure`).
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

#: What stands in the place of an address.
ADDRESS: Final = "(address)"
#: What stands in the place of a member who was deleted.
DELETED_MEMBER: Final = "(deleted member)"
#: No reply is longer where it is kept; a longer text is cut first, so that no server can make the search slow.
_LONGEST: Final = 4000
_INSIDE: Final = r"[^\s<>()\[\],;:\"']"
#: An everyday address, one with a quoted name or an apostrophe, half of one at the end of a line, and the two forms of
#: the at sign that are not `@`; percent-encoded as in the links of some servers' replies.
_SIGNS: Final = ("@", "%40", "\uff20", "\ufe6b")
_ANY_ADDRESS: Final = re.compile(
    rf"(?<!{_INSIDE})(?:\"(?:[^\"\\]|\\.)*\"|{_INSIDE}+(?:'{_INSIDE}+)*?)(?:[@\uff20\ufe6b]|%40){_INSIDE}*"
)
#: Local parts that servers use as words, too: "(address) unknown" would say less than "user unknown".
_WORDS: Final = frozenset({
    "account", "accounts", "address", "admin", "blocked", "box", "contact", "denied", "disabled", "domain", "email",
    "error", "full", "group", "hello", "host", "inbox", "info", "invalid", "local", "mail", "mailbox", "member",
    "message", "office", "policy", "postmaster", "queue", "quota", "recipient", "rejected", "relay", "root", "sender",
    "server", "service", "spam", "support", "system", "team", "temporary", "test", "the", "unknown", "user", "users",
    "webmaster",
})  # fmt: skip
_SHORTEST_WORD: Final = 3


def without_addresses(text: str, recipient: str | None = None) -> str:
    """The text with "(address)" where it names one.

    `recipient`: the address that the text is about. Its local part is redacted also where it stands alone, as in
    "mailbox of ada.lovelace is full", unless it is a word that servers use anyway.
    """
    text = text[:_LONGEST]
    # The usual reply has none, and this runs for every mail.
    if any(sign in text for sign in _SIGNS):
        text = _ANY_ADDRESS.sub(ADDRESS, text)
    local = (recipient or "").rpartition("@")[0]
    if len(local) >= _SHORTEST_WORD and local.lower() not in _WORDS and local.lower() in text.lower():
        alone = rf"(?<![\w.+-]){re.escape(local)}(?![\w+-]|\.\w)"
        text = re.sub(alone, ADDRESS, text, flags=re.IGNORECASE)
    return text


@dataclass(frozen=True, slots=True)
class Identifying:
    """What names a member in a text, as regular expressions of PostgreSQL that ignore case.

    `anywhere`: the address, in both forms of its domain, and the full name. `own`: also each part of the name, and the
    local part, for texts that are about this member. Else "May" would be taken out of everybody's dates.
    """

    anywhere: str
    own: str


def identifying(name: str, surname: str | None, email: str) -> Identifying:
    """The expressions for a member as the directory has them."""
    local, _, domain = email.rpartition("@")
    domains = "|".join(sorted(_literal(form) for form in _forms(domain)))
    address = f"{_literal(local)}(?:@|%40)(?:{domains})" if local and domain else _literal(email)
    full_name = " ".join(f"{name} {surname or ''}".split())
    everywhere = [address, *([_literal(full_name)] if " " in full_name else [])]
    parts = {part for part in (name, surname or "", "" if local.lower() in _WORDS else local) if part.strip()}
    parts |= {word for word in full_name.split() if len(word) >= _SHORTEST_WORD}
    # The longest first: of a name and its first word, the name.
    own = everywhere + [_literal(part) for part in sorted(parts, key=lambda part: (-len(part), part))]
    return Identifying(_bounded(everywhere), _bounded(own))


def _forms(domain: str) -> set[str]:
    """The domain as it is, with its international labels as letters, and in ASCII."""
    forms = {domain, domain.lower()}
    with suppress(UnicodeError):
        forms.add(domain.encode("idna").decode("ascii"))
    with suppress(UnicodeError):
        forms.add(domain.encode("ascii").decode("idna"))
    return {form for form in forms if form}


def _literal(text: str) -> str:
    """An expression for this text, any run of white space in it being as good as another."""
    words = ("".join(c if c.isalnum() or not c.isascii() else f"\\{c}" for c in word) for word in text.split())
    return "[[:space:]]+".join(words)


def _bounded(expressions: list[str]) -> str:
    return f"(?<![[:alnum:]])(?:{'|'.join(expressions)})(?![[:alnum:]])"
