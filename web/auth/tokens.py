"""Secrets that the site gives out: random, and kept only as digests. Passwords are hashed with Argon2."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import RefusedError
from schemas.text import is_storable

_HASHER: Final = PasswordHasher()
#: Checked where there is no account, so that the answer takes as long.
_NOBODY: Final = _HASHER.hash(secrets.token_urlsafe(24))
SHORTEST_PASSWORD: Final = 12
_LONGEST_PASSWORD: Final = 1000
#: Without those that look alike: 32 of them, 5 bits each.
_LEGIBLE: Final = "abcdefghijkmnpqrstuvwxyz23456789"


def new_token() -> str:
    """256 random bits, safe in a header and an address."""
    return secrets.token_urlsafe(32)


def new_password() -> str:
    """One that can be read aloud and typed: 100 random bits in five groups of letters and digits."""
    return "-".join("".join(secrets.choice(_LEGIBLE) for _ in range(4)) for _ in range(5))


def digest(token: str) -> bytes:
    """What is stored of a token. Random as tokens are, they need no salt."""
    return hashlib.sha256(token.encode()).digest()


def csrf_token(session_token: str) -> str:
    """What a session's forms hold: only who can read the session's cookie, or its pages, can know it."""
    return hmac.new(session_token.encode(), b"csrf", hashlib.sha256).hexdigest()


def is_csrf_token(session_token: str, given: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(csrf_token(session_token).encode(), given.encode("utf-8", "replace"))


def hash_password(password: str) -> str:
    """RefusedError for one that is too short, absurdly long, or no text."""
    if not is_storable(password):
        raise RefusedError("the password holds bytes that are not UTF-8 text, or U+0000", field="password")
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise RefusedError(f"a password has {SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters", field="password")
    return _HASHER.hash(password)


def is_password(password: str, stored: str | None) -> bool:
    """Whether it is the one that was hashed; takes as long if none was."""
    try:
        _HASHER.verify(stored or _NOBODY, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
