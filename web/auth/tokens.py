"""Tokens, CSRF tokens and passwords. Tokens are random and stored as digests; passwords are hashed with Argon2id."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from schemas.errors import RefusedError
from schemas.text import is_storable

_HASHER: Final = PasswordHasher()
#: Each takes 64 MiB for a moment. Others wait: many sign-ins at once must not take the machine's memory.
_TURNS: Final = threading.BoundedSemaphore(4)
#: Verified where there is no password, so that the answer takes as long.
_DUMMY_HASH: Final = _HASHER.hash(secrets.token_urlsafe(24))
MIN_PASSWORD_LENGTH: Final = 12
_MAX_PASSWORD_LENGTH: Final = 1000
#: Without characters that look alike: 32 of them, 5 bits each.
_UNAMBIGUOUS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


def new_token() -> str:
    """256 random bits, safe in a header and in a URL."""
    return secrets.token_urlsafe(32)


def new_password() -> str:
    """A password that can be read aloud and typed: 100 random bits in five groups of letters and digits."""
    return "-".join("".join(secrets.choice(_UNAMBIGUOUS) for _ in range(4)) for _ in range(5))


def digest(token: str) -> bytes:
    """What is stored of a token. Tokens are random, so they need no salt."""
    return hashlib.sha256(token.encode()).digest()


def csrf_token(session_token: str) -> str:
    """The token in a session's forms: derived from the session's cookie, which other sites cannot read."""
    return hmac.new(session_token.encode(), b"csrf", hashlib.sha256).hexdigest()


def is_csrf_token(session_token: str, candidate: str) -> bool:
    """Whether it is the CSRF token of this session, compared in constant time."""
    return hmac.compare_digest(csrf_token(session_token).encode(), candidate.encode("utf-8", "replace"))


def hash_password(password: str) -> str:
    """RefusedError for a password that is too short, too long, or not storable as text."""
    if not is_storable(password):
        raise RefusedError("the password holds bytes that are not UTF-8 text, or U+0000", field="password")
    if not MIN_PASSWORD_LENGTH <= len(password) <= _MAX_PASSWORD_LENGTH:
        raise RefusedError(
            f"a password has {MIN_PASSWORD_LENGTH} to {_MAX_PASSWORD_LENGTH} characters", field="password"
        )
    with _TURNS:
        return _HASHER.hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether the stored hash is of this password. Takes as long if there is none."""
    try:
        with _TURNS:
            _HASHER.verify(stored or _DUMMY_HASH, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
