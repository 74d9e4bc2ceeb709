"""Hashing takes 64 MiB for a moment: few passwords at once, however many sign-ins there are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from web.auth import tokens


class Hasher:
    """Counts who is in it at once; the first wait until four are."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()
        self._full = threading.Event()

    def verify(self, *_: object) -> bool:
        """As argon2's."""
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            if self._inside == 4:
                self._full.set()
        assert self._full.wait(10)
        with self._lock:
            self._inside -= 1
        return True


def test_four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty sign-ins come together: four are verified at once, and all are."""
    hasher = Hasher()
    monkeypatch.setattr(tokens, "_HASHER", hasher)
    with ThreadPoolExecutor(40) as threads:
        assert all(threads.map(lambda _: tokens.verify_password("secret", "hash"), range(40)))
    assert hasher.most == 4
