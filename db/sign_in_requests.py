"""Sign-ins by OpenID Connect that are under way at the provider. For the web application; in autocommit mode."""

from __future__ import annotations

from dataclasses import dataclass

from db.connect import Connection
from db.statements import sql


@dataclass(frozen=True, slots=True)
class SignInRequest:
    """What was sent along with somebody to the provider, and where they want to go afterwards."""

    nonce: str
    verifier: str
    next_path: str


def begin(conn: Connection, state_hash: bytes, request: SignInRequest, seconds: float) -> None:
    """Somebody goes to the provider. Those who did not come back in time are forgotten on the way."""
    conn.execute(sql("end_old_sign_in_requests"))
    values = {"nonce": request.nonce, "verifier": request.verifier, "next_path": request.next_path}
    conn.execute(sql("insert_sign_in_request"), {"state_hash": state_hash, "seconds": seconds, **values})


def take(conn: Connection, state_hash: bytes) -> SignInRequest | None:
    """Somebody comes back: once. None if it was taken before, is too old, or never was."""
    row = conn.execute(sql("take_sign_in_request"), {"state_hash": state_hash}).fetchone()
    if row is None or not row["is_current"]:
        return None
    return SignInRequest(row["nonce"], row["verifier"], row["next_path"])
