"""Text that came from outside: what can be stored, and how it is shown. Pure."""

from __future__ import annotations

from typing import Final

from schemas.errors import RefusedError

#: Of a name or a key that somebody types: far more than anybody needs, far less than an index row can hold.
_LONGEST: Final = 200


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: no U+0000, no half of a surrogate pair (what Python makes of wrong bytes)."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def storable(words: str) -> str:
    """What somebody typed, without what no database could hold."""
    return words.replace("\0", "").encode("utf-8", "ignore").decode().strip()


def sentence(words: str) -> str:
    """With a capital at its beginning and a full stop at its end."""
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def require_text(text: str, field: str, *, least: int = 0, most: int = _LONGEST) -> None:
    """RefusedError for a text that could not be stored, or would spoil every table that it is shown in."""
    if not is_storable(text):
        raise RefusedError(f"{field} holds bytes that are not UTF-8 text, or U+0000", field=field)
    if not all(c.isprintable() for c in text):
        raise RefusedError(f"{field} holds control characters", field=field)
    if not least <= len(text) <= most:
        raise RefusedError(f"{field} must have {least} to {most} characters, and has {len(text):,}", field=field)
