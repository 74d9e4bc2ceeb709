"""Links that reset a forgotten password. Autocommit mode; tokens arrive as digests."""

from __future__ import annotations

from typing import Final

from db import accounts
from db.accounts import Account, account_from_row
from db.connect import Connection
from db.statements import sql
from schemas.errors import RefusedError

#: A link works for so long, and once.
SECONDS: Final = 3600.0
#: Links of one account that work at a time: who asks for more has mails enough.
MOST: Final = 5


def add(conn: Connection, account_id: int, token_hash: bytes) -> bool:
    """Stores a link. False if the account is disabled, has no password, or has `MOST` already."""
    values = {"account_id": account_id, "token_hash": token_hash, "seconds": SECONDS, "most": MOST}
    with conn.transaction():
        # Without the lock, requests at the same time would not count each other.
        conn.execute(sql("lock_account"), {"id": account_id})
        return conn.execute(sql("insert_password_reset"), values).rowcount > 0


def find(conn: Connection, token_hash: bytes) -> Account | None:
    """The account whose password the link sets. None for one that was used, has expired, or of a disabled account."""
    row = conn.execute(sql("find_password_reset"), {"token_hash": token_hash}).fetchone()
    return None if row is None else account_from_row(row)


def use(conn: Connection, token_hash: bytes, password_hash: str) -> None:
    """Sets the password, and ends the account's sessions and other links. RefusedError where `find` returns None."""
    with conn.transaction():
        row = conn.execute(sql("consume_password_reset"), {"token_hash": token_hash}).fetchone()
        if row is None:
            raise RefusedError("the link was used meanwhile", field="password")
        accounts.set_password(conn, row["account_id"], password_hash)
