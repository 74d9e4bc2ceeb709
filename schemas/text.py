"""Text of external origin: whether it can be stored, and how it is shown. Pure."""

from __future__ import annotations

from typing import Final

from schemas.errors import RefusedError

#: For names and keys that people type: far more than needed, far less than an index row can hold.
_LONGEST: Final = 200


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store it: no U+0000, no surrogates, which is how Python decodes invalid bytes."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def storable(text: str) -> str:
    """The text without characters that PostgreSQL cannot store, and without outer white space."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def require_text(text: str, field: str, *, least: int = 0, most: int = _LONGEST) -> None:
    """RefusedError for a text that cannot be stored, or that would break the tables that show it."""
    if not is_storable(text):
        raise RefusedError(f"{field} holds bytes that are not UTF-8 text, or U+0000", field=field)
    if not all(c.isprintable() for c in text):
        raise RefusedError(f"{field} holds control characters", field=field)
    if not least <= len(text) <= most:
        raise RefusedError(f"{field} must have {least} to {most} characters, and has {len(text):,}", field=field)


def as_text(content: bytes) -> str:
    """Bytes as UTF-8 text; what is not UTF-8 is escaped."""
    return content.decode("utf-8", "backslashreplace")
