"""Actions on accounts, from a page or a command: validated, executed, and recorded in the audit log with the actor."""

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

#: What mail servers accept.
_MAX_EMAIL_LENGTH: Final = 320


def normalize_email(text: str) -> str:
    """The address as accounts store it, in lower case. RefusedError for what is no e-mail address."""
    given = text.strip()
    if any(not c.isascii() and any(part.isascii() for part in c.lower()) for c in given):
        raise RefusedError("the address holds a letter beyond ASCII that looks like one of ASCII", field="email")
    email = given.lower()
    require_text(email, "email", least=3, most=_MAX_EMAIL_LENGTH)
    local, _, domain = email.partition("@")
    if not local or not domain or "@" in domain or any(c.isspace() or c in "<>" for c in email):
        raise RefusedError(f"{email!r} is no e-mail address", field="email")
    return email


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
    """Without a password the account signs in by OpenID Connect only. RefusedError, NotFoundError."""
    email, name = normalize_email(email), _normalize_name(name)
    password_hash = None if password is None else tokens.hash_password(password)
    with audited(conn, AuditEntry(actor, "add account", detail=f"{name} <{email}>, {_permissions(role, chapters)}")):
        account_id = accounts.add(
            conn, email=email, name=name, role=role, chapters=chapters, password_hash=password_hash
        )
    return accounts.get(conn, account_id)


def change(
    conn: Connection, actor: str, account: Account, *, name: str, role: AccountRole, chapters: Sequence[int]
) -> None:
    """Takes effect with the account's next request. RefusedError if no admin would be left; NotFoundError."""
    name = _normalize_name(name)
    detail = f"{account}: now {name}, {_permissions(role, chapters)}"
    with audited(conn, AuditEntry(actor, "change account", detail=detail)):
        accounts.change(conn, account.id, name=name, role=role, chapters=chapters)


def set_password(
    conn: Connection,
    actor: str,
    account: Account,
    password: str,
    *,
    old_hash: str | None = None,
    renew: tuple[bytes, bytes] | None = None,
) -> None:
    """Ends the account's sessions. `renew`: digests; the session of the first goes on under the second.

    RefusedError for a password that is not allowed, or if `old_hash` is given and the stored hash is another by now.
    """
    password_hash = tokens.hash_password(password)
    with audited(conn, AuditEntry(actor, "set password", detail=str(account))):
        accounts.set_password(conn, account.id, password_hash, old_hash=old_hash, renew=renew)


def disable(conn: Connection, actor: str, account: Account) -> None:
    """Locks out the account and its API clients. RefusedError for the last admin."""
    with audited(conn, AuditEntry(actor, "disable account", detail=str(account))):
        accounts.disable(conn, account.id)


def enable(conn: Connection, actor: str, account: Account) -> None:
    """Lets the account sign in again. Its sessions stay ended."""
    with audited(conn, AuditEntry(actor, "enable account", detail=str(account))):
        accounts.enable(conn, account.id)


def _normalize_name(text: str) -> str:
    name = text.strip()
    require_text(name, "name", least=1)
    return name


def _permissions(role: AccountRole, chapters: Sequence[int]) -> str:
    return role + (f" of chapters {', '.join(map(str, sorted(set(chapters))))}" if chapters else "")
