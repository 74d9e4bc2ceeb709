"""Sign-ins by OpenID Connect: pending ones, and whose account a user of the provider has. Autocommit mode."""

from __future__ import annotations

from dataclasses import dataclass

from db.accounts import Account, account_from_row
from db.connect import Connection
from db.statements import sql


@dataclass(frozen=True, slots=True)
class SignInRequest:
    """What the callback needs: nonce, PKCE verifier, and the page to go on to. Stored under the state's digest."""

    nonce: str
    verifier: str
    next_path: str


def add(conn: Connection, state_hash: bytes, request: SignInRequest, seconds: float) -> None:
    """Stores a request for so many seconds. `db.retention` removes those that have expired."""
    values = {"nonce": request.nonce, "verifier": request.verifier, "next_path": request.next_path}
    conn.execute(sql("insert_sign_in_request"), {"state_hash": state_hash, "seconds": seconds, **values})


def consume(conn: Connection, state_hash: bytes) -> SignInRequest | None:
    """Deletes and returns the request. None if there is none, it was consumed before, or it has expired."""
    row = conn.execute(sql("consume_sign_in_request"), {"state_hash": state_hash}).fetchone()
    if row is None or not row["is_current"]:
        return None
    return SignInRequest(row["nonce"], row["verifier"], row["next_path"])


def find_by_identity(conn: Connection, issuer: str, subject: str) -> Account | None:
    """The account that is bound to this subject of the OpenID Connect provider, unless it is disabled."""
    row = conn.execute(sql("find_account_by_identity"), {"issuer": issuer, "subject": subject}).fetchone()
    return None if row is None else account_from_row(row)


def bind_identity(conn: Connection, email: str, issuer: str, subject: str) -> bool:
    """Binds the account of this address to the subject. False where none can be, or is bound to another already."""
    return conn.execute(sql("bind_identity"), {"email": email, "issuer": issuer, "subject": subject}).rowcount > 0
