"""AUTH PLAIN and LOGIN, the server's side of the dialogue (RFC 4954); no connection and no command but AUTH."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable


class Authentication:
    """One connection's dialogue: `begin` with AUTH's line, then `answer` while it is `waiting` for one."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self._right = credentials and (credentials[0].encode(), credentials[1].encode())
        self._then: Callable[[bytes], bytes] | None = None
        self._user = b""
        self.done = credentials is None

    @property
    def waiting(self) -> bool:
        """Whether the client's next line is an answer and no command."""
        return self._then is not None

    def begin(self, line: bytes) -> bytes:
        """The reply to the AUTH command."""
        kind, _, initial = line[4:].strip().partition(b" ")
        if self.done:
            return b"503 5.5.1 Not now"
        if kind.upper() == b"PLAIN":
            if initial:
                return self._plain(initial)
            self._then = self._plain
            return b"334 "
        if kind.upper() == b"LOGIN":
            if initial:
                return self._login_user(initial)
            self._then = self._login_user
            return b"334 " + base64.b64encode(b"Username:")
        return b"504 5.5.4 PLAIN or LOGIN"

    def answer(self, line: bytes) -> bytes:
        """The reply to a line of the dialogue."""
        then, self._then = self._then, None
        assert then is not None
        return b"501 5.7.0 Given up" if line == b"*" else then(line)

    def _plain(self, text: bytes) -> bytes:
        parts = _decoded(text).split(b"\0")
        return self._judge(parts[1], parts[2]) if len(parts) == 3 else b"501 5.5.2 Not understood"

    def _login_user(self, text: bytes) -> bytes:
        self._user = _decoded(text)
        self._then = self._login_password
        return b"334 " + base64.b64encode(b"Password:")

    def _login_password(self, text: bytes) -> bytes:
        return self._judge(self._user, _decoded(text))

    def _judge(self, user: bytes, password: bytes) -> bytes:
        assert self._right is not None
        self.done = hmac.compare_digest(user, self._right[0]) & hmac.compare_digest(password, self._right[1])
        return b"235 2.7.0 Welcome" if self.done else b"535 5.7.8 Wrong user or password"


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
