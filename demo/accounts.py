"""The accounts of the demonstration: an admin and an organiser, each with a new password."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from db import accounts
from db.accounts import AccountRole
from db.connect import Connection
from web.auth import tokens

_ADMIN: Final = "ada@bidden.example"
_ORGANISER: Final = "olga@bidden.example"


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account of the site of the demonstration, with its password."""

    title: str
    email: str
    password: str


def add_accounts(conn: Connection, chapter_id: int, chapter: str) -> list[DemoAccount]:
    """Adds an admin, and an organiser of this chapter."""
    added = []
    for title, email, name, role, chapters in _accounts(chapter_id, chapter):
        password = tokens.new_token()[:16]
        accounts.add(
            conn, email=email, name=name, role=role, chapters=chapters, password_hash=tokens.hash_password(password)
        )
        added.append(DemoAccount(title, email, password))
    return added


def _accounts(chapter_id: int, chapter: str) -> Sequence[tuple[str, str, str, AccountRole, Sequence[int]]]:
    return (
        ("an admin", _ADMIN, "Ada", AccountRole.ADMIN, ()),
        (f"an organiser of {chapter}", _ORGANISER, "Olga", AccountRole.ORGANISER, [chapter_id]),
    )
