"""Pending sign-ins by OpenID Connect. For the web application; connections are in autocommit mode."""

from __future__ import annotations

from dataclasses import dataclass

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
