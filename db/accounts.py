"""Accounts, sessions and API clients. For the web application and its commands; nothing here decides who may what.

Secrets come in as digests: what is stored cannot be used to sign in. Connections are in autocommit mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from db.connect import Connection
from db.statements import sql
from schemas.errors import NotFoundError, RefusedError


class AccountRole(StrEnum):
    """What an account may do: everything, or what concerns the events of its chapters."""

    ADMIN = "admin"
    ORGANISER = "organiser"


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may sign in. `chapters` are an organiser's; an admin needs none."""

    id: int
    email: str
    name: str
    role: AccountRole
    chapters: tuple[int, ...]

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return self.role is AccountRole.ADMIN

    @property
    def scope(self) -> list[int] | None:
        """The chapters whose events and members may be seen; None: all of them."""
        return None if self.is_admin else list(self.chapters)

    def __str__(self) -> str:
        """As a batch's initiator and in the trail."""
        return f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class Client:
    """A program that uses the API for an account."""

    id: int
    name: str
    scopes: frozenset[str]
    has_webhook: bool


#: A session ends so long after its beginning, and so long after the last request.
SESSION_SECONDS: Final = 7 * 86_400
IDLE_SECONDS: Final = 12 * 3_600


def from_row(row: dict[str, Any]) -> Account:
    """Of a row with what the fragment `account_columns` names."""
    return Account(row["id"], row["email"], row["name"], AccountRole(row["role"]), tuple(row["chapters"]))


def to_sign_in(conn: Connection, email: str) -> tuple[Account, str | None] | None:
    """The account that is not disabled, and the hash of its password, if it has one."""
    row = conn.execute(sql("account_to_sign_in"), {"email": email}).fetchone()
    return None if row is None else (from_row(row), row["password_hash"])


def every(conn: Connection) -> list[dict[str, Any]]:
    """All accounts, for a list of them."""
    return conn.execute(sql("accounts"), {"id": None}).fetchall()


def details(conn: Connection, account_id: int) -> dict[str, Any]:
    """One of that list. NotFoundError."""
    row = conn.execute(sql("accounts"), {"id": account_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no account {account_id}", field="account")
    return row


def find(conn: Connection, account_id: int) -> Account:
    """The account, disabled or not. NotFoundError."""
    row = conn.execute(sql("account"), {"id": account_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no account {account_id}", field="account")
    return from_row(row)


def with_address(conn: Connection, email: str) -> Account:
    """The account of this address, disabled or not. NotFoundError."""
    row = conn.execute(sql("account_with_address"), {"email": email}).fetchone()
    if row is None:
        raise NotFoundError(f"{email} has no account", field="email")
    return from_row(row)


def add(
    conn: Connection,
    *,
    email: str,
    name: str,
    role: AccountRole,
    chapters: Sequence[int] = (),
    password_hash: str | None = None,
) -> int:
    """A new account's id. RefusedError if the address has one; NotFoundError for an unknown chapter."""
    values = {"email": email, "name": name, "role": role, "password_hash": password_hash}
    with conn.transaction():
        row = conn.execute(sql("insert_account"), values).fetchone()
        if row is None:
            raise RefusedError(f"{email} has an account already", field="email")
        account_id: int = row["id"]
        _set_chapters(conn, account_id, chapters)
    return account_id


def change(conn: Connection, account_id: int, *, name: str, role: AccountRole, chapters: Sequence[int]) -> None:
    """RefusedError if no admin would be left."""
    with conn.transaction():
        conn.execute(sql("hold_admins"))
        conn.execute(sql("update_account"), {"id": account_id, "name": name, "role": role})
        _set_chapters(conn, account_id, chapters)
        _require_admin(conn)


def set_password(
    conn: Connection, account_id: int, password_hash: str, *, old_hash: str | None = None, keep: bytes | None = None
) -> None:
    """Also ends its sessions, but for that with the digest `keep`: whoever knew the old one is signed out.

    RefusedError if the old one was to be `old_hash`, and is so no more.
    """
    values = {"id": account_id, "password_hash": password_hash, "old_hash": old_hash}
    with conn.transaction():
        if not conn.execute(sql("set_password"), values).rowcount:
            raise RefusedError("the password has been changed meanwhile", field="password")
        conn.execute(sql("end_sessions_of"), {"id": account_id, "keep": keep})


def disable(conn: Connection, account_id: int) -> None:
    """It can no longer sign in, nor can its clients; its sessions end. RefusedError for the last admin."""
    with conn.transaction():
        conn.execute(sql("hold_admins"))
        conn.execute(sql("disable_account"), {"id": account_id})
        conn.execute(sql("end_sessions_of"), {"id": account_id, "keep": None})
        _require_admin(conn)


def enable(conn: Connection, account_id: int) -> None:
    """It can sign in again."""
    conn.execute(sql("enable_account"), {"id": account_id})


def chapters_named(conn: Connection, chapters: list[int] | None) -> list[dict[str, Any]]:
    """Id and name of these chapters, or of all."""
    return conn.execute(sql("chapters_named"), {"chapters": chapters}).fetchall()


def _set_chapters(conn: Connection, account_id: int, chapters: Sequence[int]) -> None:
    wanted = sorted(set(chapters))
    known = {row["id"] for row in chapters_named(conn, wanted)}
    if known != set(wanted):
        missing = ", ".join(str(chapter) for chapter in wanted if chapter not in known)
        raise NotFoundError(f"there is no chapter {missing}", field="chapter")
    conn.execute(sql("clear_chapters"), {"id": account_id, "chapters": wanted})
    conn.execute(sql("set_chapters"), {"id": account_id, "chapters": wanted})


def _require_admin(conn: Connection) -> None:
    row = conn.execute(sql("admins_left")).fetchone()
    assert row is not None
    if not row["n"]:
        raise RefusedError("no admin would be left: make somebody else one first", field="account")


# Sessions.


def begin_session(conn: Connection, account_id: int, token_hash: bytes, *, password_hash: str | None = None) -> bool:
    """Somebody has signed in, by the password of this hash if one is given. Ended sessions are swept on the way.

    False if the account has been disabled meanwhile, or has another password.
    """
    conn.execute(sql("end_old_sessions"), {"idle_seconds": IDLE_SECONDS})
    values = {
        "token_hash": token_hash,
        "account_id": account_id,
        "password_hash": password_hash,
        "seconds": SESSION_SECONDS,
    }
    return conn.execute(sql("insert_session"), values).rowcount > 0


def of_session(conn: Connection, token_hash: bytes) -> Account | None:
    """Whose session it is; None if it has ended."""
    values = {"token_hash": token_hash, "idle_seconds": IDLE_SECONDS}
    row = conn.execute(sql("account_of_session"), values).fetchone()
    if row is None:
        return None
    if row["is_stale"]:
        conn.execute(sql("touch_session"), {"token_hash": token_hash})
    return from_row(row)


def end_session(conn: Connection, token_hash: bytes) -> None:
    """Somebody has signed out."""
    conn.execute(sql("end_session"), {"token_hash": token_hash})


# Attempts to sign in.


def count_attempt(conn: Connection, key: str, seconds: float) -> tuple[int, float]:
    """Counts one attempt under the key; how many there were within `seconds`, and in how many they are forgotten."""
    row = conn.execute(sql("count_attempt"), {"key": key, "seconds": seconds}).fetchone()
    assert row is not None
    return row["attempts"], row["seconds_left"]


def forget_attempts(conn: Connection, keys: Sequence[str], seconds: float) -> None:
    """One of them has succeeded."""
    conn.execute(sql("forget_attempts"), {"keys": list(keys)})
    conn.execute(sql("forget_old_attempts"), {"seconds": seconds})


# API clients.


def add_client(
    conn: Connection,
    *,
    name: str,
    account_id: int,
    token_hash: bytes,
    scopes: Sequence[str],
    webhook_url: str | None = None,
    webhook_secret: bytes | None = None,
) -> int:
    """A new client's id. A webhook needs an address and a secret."""
    row = conn.execute(
        sql("insert_client"),
        {
            "name": name,
            "account_id": account_id,
            "token_hash": token_hash,
            "scopes": sorted(scopes),
            "webhook_url": webhook_url,
            "webhook_secret": webhook_secret,
        },
    ).fetchone()
    assert row is not None
    client_id: int = row["id"]
    return client_id


def of_token(conn: Connection, token_hash: bytes) -> tuple[Account, Client] | None:
    """Who acts, and by which program; None for a token that is unknown or revoked."""
    row = conn.execute(sql("client_of_token"), {"token_hash": token_hash}).fetchone()
    if row is None:
        return None
    if row["is_stale"]:
        conn.execute(sql("touch_client"), {"id": row["client_id"]})
    client = Client(row["client_id"], row["client_name"], frozenset(row["scopes"]), row["has_webhook"])
    return from_row(row), client


def clients(conn: Connection) -> list[dict[str, Any]]:
    """All clients, the revoked ones too."""
    return conn.execute(sql("clients")).fetchall()


def revoke_client(conn: Connection, client_id: int) -> bool:
    """Its token is worth nothing from now on; False if there is no such client."""
    return conn.execute(sql("revoke_client"), {"id": client_id}).rowcount > 0
