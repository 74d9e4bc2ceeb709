"""Accounts, sessions and API clients. For the web application and its commands. Permissions are checked elsewhere.

Secrets arrive as digests: what is stored cannot be used to sign in. Connections are in autocommit mode.

`get_...` raises NotFoundError, `find_...` returns None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from db.connect import Connection
from db.statements import sql
from schemas.errors import NotFoundError, RefusedError


class AccountRole(StrEnum):
    """An admin may do everything, an organiser what concerns the events of their chapters."""

    ADMIN = "admin"
    ORGANISER = "organiser"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the web application. `chapters` are an organiser's; an admin needs none."""

    id: int
    email: str
    name: str
    role: AccountRole
    chapters: tuple[int, ...]

    @property
    def is_admin(self) -> bool:
        """Whether the account may do everything."""
        return self.role is AccountRole.ADMIN

    @property
    def scope(self) -> list[int] | None:
        """The chapters whose events and members the account may see; None: all of them."""
        return None if self.is_admin else list(self.chapters)

    def __str__(self) -> str:
        """As a batch's initiator and in the audit log."""
        return f"{self.name} <{self.email}>"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account and the hash of its password; None if it signs in by OpenID Connect only."""

    account: Account
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class ApiClient:
    """A program that uses the API for an account."""

    id: int
    name: str
    scopes: frozenset[str]
    has_webhook: bool


#: A session ends so long after it began, and so long after its last request.
SESSION_SECONDS: Final = 7 * 86_400
IDLE_SECONDS: Final = 12 * 3_600


def account_from_row(row: dict[str, Any]) -> Account:
    """From a row with the columns of the fragment `account_columns`."""
    return Account(row["id"], row["email"], row["name"], AccountRole(row["role"]), tuple(row["chapters"]))


def find_credentials(conn: Connection, email: str) -> Credentials | None:
    """What signing in is checked against. None if the address has no account, or a disabled one."""
    row = conn.execute(sql("find_credentials"), {"email": email}).fetchone()
    return None if row is None else Credentials(account_from_row(row), row["password_hash"])


def list_all(conn: Connection) -> list[dict[str, Any]]:
    """All accounts by address, with what a list shows of them."""
    return conn.execute(sql("list_accounts"), {"id": None}).fetchall()


def get_details(conn: Connection, account_id: int) -> dict[str, Any]:
    """One row of `list_all`."""
    row = conn.execute(sql("list_accounts"), {"id": account_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no account {account_id}", field="account")
    return row


def get(conn: Connection, account_id: int) -> Account:
    """The account, disabled or not."""
    row = conn.execute(sql("get_account"), {"id": account_id}).fetchone()
    if row is None:
        raise NotFoundError(f"there is no account {account_id}", field="account")
    return account_from_row(row)


def get_by_email(conn: Connection, email: str) -> Account:
    """The account of this address, disabled or not."""
    row = conn.execute(sql("get_account_by_email"), {"email": email}).fetchone()
    if row is None:
        raise NotFoundError(f"{email} has no account", field="email")
    return account_from_row(row)


def add(
    conn: Connection,
    *,
    email: str,
    name: str,
    role: AccountRole,
    chapters: Sequence[int] = (),
    password_hash: str | None = None,
) -> int:
    """Returns the new account's id. RefusedError if the address has one; NotFoundError for an unknown chapter."""
    values = {"email": email, "name": name, "role": role, "password_hash": password_hash}
    with conn.transaction():
        row = conn.execute(sql("insert_account"), values).fetchone()
        if row is None:
            raise RefusedError(f"{email} has an account already", field="email")
        account_id: int = row["id"]
        _set_chapters(conn, account_id, chapters)
    return account_id


def change(conn: Connection, account_id: int, *, name: str, role: AccountRole, chapters: Sequence[int]) -> None:
    """Changes an account. RefusedError if no admin would be left; NotFoundError for an unknown chapter."""
    with conn.transaction():
        conn.execute(sql("lock_admins"))
        conn.execute(sql("update_account"), {"id": account_id, "name": name, "role": role})
        _set_chapters(conn, account_id, chapters)
        _require_admin(conn)


def set_password(
    conn: Connection,
    account_id: int,
    password_hash: str,
    *,
    old_hash: str | None = None,
    renew: tuple[bytes, bytes] | None = None,
) -> None:
    """Also ends the account's sessions, and links that set a password.

    `renew`: digests; the session of the first goes on under the second.

    RefusedError if `old_hash` is given and the stored hash is another by now.
    """
    values = {"id": account_id, "password_hash": password_hash, "old_hash": old_hash}
    with conn.transaction():
        if not conn.execute(sql("set_password"), values).rowcount:
            raise RefusedError("the password has been changed meanwhile", field="password")
        conn.execute(sql("delete_password_resets"), {"id": account_id})
        old, new = renew or (None, None)
        conn.execute(sql("end_sessions_of_account"), {"id": account_id, "keep": old})
        if renew is not None:
            conn.execute(sql("renew_session"), {"old": old, "new": new})


def disable(conn: Connection, account_id: int) -> None:
    """Ends its sessions, and the tokens of clients that act for it or that it made. RefusedError for the last admin."""
    with conn.transaction():
        conn.execute(sql("lock_admins"))
        conn.execute(sql("disable_account"), {"id": account_id})
        conn.execute(sql("end_sessions_of_account"), {"id": account_id, "keep": None})
        conn.execute(sql("delete_password_resets"), {"id": account_id})
        conn.execute(sql("revoke_clients_of_account"), {"id": account_id})
        _require_admin(conn)


def enable(conn: Connection, account_id: int) -> None:
    """Lets it sign in again. Its sessions and tokens stay ended, and the provider's user is bound again."""
    conn.execute(sql("enable_account"), {"id": account_id})


def list_chapters(conn: Connection, chapters: list[int] | None) -> list[dict[str, Any]]:
    """Id and name of these chapters that exist; None: of all."""
    return conn.execute(sql("list_chapters"), {"chapters": chapters}).fetchall()


def _set_chapters(conn: Connection, account_id: int, chapters: Sequence[int]) -> None:
    wanted = sorted(set(chapters))
    known = {row["id"] for row in list_chapters(conn, wanted)}
    if known != set(wanted):
        missing = ", ".join(str(chapter) for chapter in wanted if chapter not in known)
        raise NotFoundError(f"there is no chapter {missing}", field="chapter")
    conn.execute(sql("delete_other_chapters"), {"id": account_id, "chapters": wanted})
    conn.execute(sql("insert_chapters"), {"id": account_id, "chapters": wanted})


def _require_admin(conn: Connection) -> None:
    row = conn.execute(sql("count_active_admins")).fetchone()
    assert row is not None
    if not row["n"]:
        raise RefusedError("no admin would be left: make another account an admin first", field="account")


# Sessions.


def add_session(conn: Connection, account_id: int, token_hash: bytes, *, password_hash: str | None = None) -> bool:
    """Stores a session. `db.retention` removes those that have ended.

    False if the account has been disabled meanwhile, or `password_hash` is given and is no longer the stored one.
    """
    values = {
        "token_hash": token_hash,
        "account_id": account_id,
        "password_hash": password_hash,
        "seconds": SESSION_SECONDS,
    }
    return conn.execute(sql("insert_session"), values).rowcount > 0


def find_by_session(conn: Connection, token_hash: bytes) -> Account | None:
    """The account of a session that has not ended. Records that the session was used."""
    values = {"token_hash": token_hash, "idle_seconds": IDLE_SECONDS}
    row = conn.execute(sql("find_account_by_session"), values).fetchone()
    if row is None:
        return None
    if row["is_stale"]:
        conn.execute(sql("touch_session"), {"token_hash": token_hash})
    return account_from_row(row)


def end_session(conn: Connection, token_hash: bytes) -> None:
    """Deletes a session."""
    conn.execute(sql("end_session"), {"token_hash": token_hash})


# Throttling.


def count_attempt(conn: Connection, key: str, seconds: float) -> tuple[int, float]:
    """Counts an attempt under the key. Returns the attempts in its window of `seconds`, and the seconds left of it."""
    row = conn.execute(sql("count_attempt"), {"key": key, "seconds": seconds}).fetchone()
    assert row is not None
    return row["attempts"], row["seconds_left"]


def reset_attempts(conn: Connection, keys: Sequence[str]) -> None:
    """Resets the counts of these keys after a success. `db.retention` removes those of long ago."""
    conn.execute(sql("reset_attempts"), {"keys": list(keys)})


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
    expires_at: datetime | None = None,
    made_by: int | None = None,
) -> int:
    """Returns the new client's id. A webhook needs a URL and a secret. `made_by` is an account; None: a command."""
    row = conn.execute(
        sql("insert_client"),
        {
            "name": name,
            "account_id": account_id,
            "token_hash": token_hash,
            "scopes": sorted(scopes),
            "webhook_url": webhook_url,
            "webhook_secret": webhook_secret,
            "expires_at": expires_at,
            "made_by": made_by,
        },
    ).fetchone()
    assert row is not None
    client_id: int = row["id"]
    return client_id


def find_by_token(conn: Connection, token_hash: bytes) -> tuple[Account, ApiClient] | None:
    """The API client of a token that has not ended, and the account it acts for. Records that the token was used."""
    row = conn.execute(sql("find_client_by_token"), {"token_hash": token_hash}).fetchone()
    if row is None:
        return None
    if row["is_stale"]:
        conn.execute(sql("touch_client"), {"id": row["client_id"]})
    client = ApiClient(row["client_id"], row["client_name"], frozenset(row["scopes"]), row["has_webhook"])
    return account_from_row(row), client


def list_clients(conn: Connection) -> list[dict[str, Any]]:
    """All API clients by id, the revoked ones too."""
    return conn.execute(sql("list_clients")).fetchall()


def revoke_client(conn: Connection, client_id: int) -> bool:
    """Invalidates its token. False if there is no such client."""
    return conn.execute(sql("revoke_client"), {"id": client_id}).rowcount > 0
