"""What is done to accounts, by a page or by a command: checked, done, and written into the trail with who did it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from db import accounts
from db.accounts import Account, AccountRole
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import RefusedError
from schemas.text import require_text
from web.auth import tokens

#: As mail servers take them.
_LONGEST_ADDRESS: Final = 320


def address(text: str) -> str:
    """An e-mail address as accounts have it: in lower case. RefusedError for what is none."""
    email = text.strip().lower()
    require_text(email, "email", least=3, most=_LONGEST_ADDRESS)
    local, _, domain = email.partition("@")
    if not local or not domain or "@" in domain or any(c.isspace() or c in "<>" for c in email):
        raise RefusedError(f"{email!r} is no e-mail address", field="email")
    return email


def _name(text: str) -> str:
    name = text.strip()
    require_text(name, "name", least=1)
    return name


def add(
    conn: Connection,
    actor: str,
    *,
    email: str,
    name: str,
    role: AccountRole,
    chapters: Sequence[int] = (),
    password: str | None = None,
) -> Account:
    """A new account; without a password it signs in by OpenID Connect only. RefusedError, NotFoundError."""
    email, name = address(email), _name(name)
    password_hash = None if password is None else tokens.hash_password(password)
    with audited(conn, AuditEntry(actor, "add account", detail=f"{name} <{email}>, {role}{_of(chapters)}")):
        account_id = accounts.add(
            conn, email=email, name=name, role=role, chapters=chapters, password_hash=password_hash
        )
    return accounts.find(conn, account_id)


def change(
    conn: Connection, actor: str, account: Account, *, name: str, role: AccountRole, chapters: Sequence[int]
) -> None:
    """Takes effect with the account's next request. RefusedError if no admin would be left; NotFoundError."""
    name = _name(name)
    told = f"{account}: now {name}, {role}{_of(chapters)}"
    with audited(conn, AuditEntry(actor, "change account", detail=told)):
        accounts.change(conn, account.id, name=name, role=role, chapters=chapters)


def set_password(
    conn: Connection,
    actor: str,
    account: Account,
    password: str,
    *,
    old_hash: str | None = None,
    keep: bytes | None = None,
) -> None:
    """Signs it out everywhere, but for the session with the digest `keep`.

    RefusedError for a poor password, or if the old one was to be that of `old_hash` and is another by now.
    """
    password_hash = tokens.hash_password(password)
    with audited(conn, AuditEntry(actor, "set password", detail=str(account))):
        accounts.set_password(conn, account.id, password_hash, old_hash=old_hash, keep=keep)


def disable(conn: Connection, actor: str, account: Account) -> None:
    """Nobody gets in with it, nor any program that acts for it. RefusedError for the last admin."""
    with audited(conn, AuditEntry(actor, "disable account", detail=str(account))):
        accounts.disable(conn, account.id)


def enable(conn: Connection, actor: str, account: Account) -> None:
    """It is as it was before it was disabled, signed out."""
    with audited(conn, AuditEntry(actor, "enable account", detail=str(account))):
        accounts.enable(conn, account.id)


def _of(chapters: Sequence[int]) -> str:
    return f" of chapters {', '.join(map(str, sorted(set(chapters))))}" if chapters else ""
