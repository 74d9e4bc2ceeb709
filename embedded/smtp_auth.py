"""AUTH PLAIN and LOGIN: the server's side of the dialogue (RFC 4954), without a connection."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable


class Authentication:
    """The dialogue of one connection: `begin` with the AUTH command, then `answer` while it is `waiting`."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self._expected = credentials and (credentials[0].encode(), credentials[1].encode())
        self._next: Callable[[bytes], bytes] | None = None
        self._user = b""
        self.done = credentials is None

    @property
    def waiting(self) -> bool:
        """Whether the next line is an answer and not a command."""
        return self._next is not None

    def begin(self, line: bytes) -> bytes:
        """The reply to the AUTH command."""
        mechanism, _, initial = line[4:].strip().partition(b" ")
        if self.done:
            return b"503 5.5.1 Not now"
        if mechanism.upper() == b"PLAIN":
            if initial:
                return self._plain(initial)
            self._next = self._plain
            return b"334 "
        if mechanism.upper() == b"LOGIN":
            if initial:
                return self._login_user(initial)
            self._next = self._login_user
            return b"334 " + base64.b64encode(b"Username:")
        return b"504 5.5.4 PLAIN or LOGIN"

    def answer(self, line: bytes) -> bytes:
        """The reply to a line of the dialogue."""
        step, self._next = self._next, None
        assert step is not None
        return b"501 5.7.0 Cancelled" if line == b"*" else step(line)

    def _plain(self, text: bytes) -> bytes:
        parts = _decoded(text).split(b"\0")
        return self._verify(parts[1], parts[2]) if len(parts) == 3 else b"501 5.5.2 Not understood"

    def _login_user(self, text: bytes) -> bytes:
        self._user = _decoded(text)
        self._next = self._login_password
        return b"334 " + base64.b64encode(b"Password:")

    def _login_password(self, text: bytes) -> bytes:
        return self._verify(self._user, _decoded(text))

    def _verify(self, user: bytes, password: bytes) -> bytes:
        assert self._expected is not None
        self.done = hmac.compare_digest(user, self._expected[0]) & hmac.compare_digest(password, self._expected[1])
        return b"235 2.7.0 Welcome" if self.done else b"535 5.7.8 Wrong user or password"


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
