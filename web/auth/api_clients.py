"""API clients: what they may be allowed, and how one comes and goes. For the command and the page that make them.

A client acts for an account. It may never do more than the account may, and of that only what its scopes name.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from config.settings import is_loopback
from db import accounts
from db.accounts import Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_text, storable
from web.auth import tokens


class Scope(StrEnum):
    """What a client may be allowed."""

    READ = "read"
    INVITE = "invite"
    OPERATE = "operate"
    DEAD_LETTERS = "dead-letters"


#: In the words of whoever chooses.
SCOPES: Final = {
    Scope.READ: "look at events, batches and what became of members",
    Scope.INVITE: "start batches",
    Scope.OPERATE: "pause, resume, cancel and retry batches; resolve what is unknown",
    Scope.DEAD_LETTERS: "read and redrive dead letters; only for an admin's client",
}
_SECRET_BYTES: Final = 32
#: Its name stands behind its account's in the trail and as the initiator of batches.
LONGEST_NAME: Final = 60
_LONGEST_ADDRESS: Final = 1000


@dataclass(frozen=True, slots=True)
class MadeClient:
    """A new client. Token and secret are shown once: of the token only a digest is kept."""

    id: int
    token: str
    webhook_secret: str | None


def make_client(
    conn: Connection, actor: str, *, name: str, account_id: int, scopes: Collection[str], webhook_url: str | None = None
) -> MadeClient:
    """A client for the account, and an entry in the trail. RefusedError for what makes no sense, with the field."""
    with audited(conn, AuditEntry(actor, "add client", detail=storable(name)[:LONGEST_NAME])) as deed:
        account = accounts.find(conn, account_id)
        made = _make(conn, account, name, scopes, webhook_url)
        deed.note(f"client {made.id} for {account}, {' '.join(sorted(scopes))}")
    return made


def revoke_client(conn: Connection, actor: str, client_id: int) -> None:
    """Its token is worth nothing any more. An entry in the trail; NotFoundError."""
    with audited(conn, AuditEntry(actor, "revoke client", detail=f"client {client_id}")):
        if not accounts.revoke_client(conn, client_id):
            raise NotFoundError(f"there is no client {client_id}", field="client_id")


def _make(
    conn: Connection, account: Account, name: str, scopes: Collection[str], webhook_url: str | None
) -> MadeClient:
    name = name.strip()
    require_text(name, "name", least=1, most=LONGEST_NAME)
    granted = require_scopes(scopes, account)
    if webhook_url is not None:
        require_webhook_address(webhook_url)
    token = f"bidden_{tokens.new_token()}"
    secret = None if webhook_url is None else secrets.token_bytes(_SECRET_BYTES)
    client_id = accounts.add_client(
        conn,
        name=name,
        account_id=account.id,
        token_hash=tokens.digest(token),
        scopes=granted,
        webhook_url=webhook_url,
        webhook_secret=secret,
    )
    return MadeClient(client_id, token, None if secret is None else shown_secret(secret))


def shown_secret(secret: bytes) -> str:
    """As libraries for Standard Webhooks take it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def require_scopes(scopes: Collection[str], account: Account) -> list[Scope]:
    """The scopes, each once. RefusedError for none, one that is unknown, or one that the account could not use."""
    known = {scope.value for scope in Scope}
    for scope in scopes:
        if scope not in known:
            raise RefusedError(f"there is no scope {scope[:40]!r}: choose of {', '.join(Scope)}", field="scope")
    granted = [scope for scope in Scope if scope in scopes]
    if not granted:
        raise RefusedError(f"a client needs a scope: choose of {', '.join(Scope)}", field="scope")
    if Scope.DEAD_LETTERS in granted and not account.is_admin:
        raise RefusedError(f"the scope {Scope.DEAD_LETTERS} is for admins, and {account.email} is none", field="scope")
    return granted


def require_webhook_address(url: str) -> None:
    """RefusedError unless it is https (http on this machine itself), with a host and without a name or password."""
    if len(url) > _LONGEST_ADDRESS or not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedError(f"webhook must be printable ASCII of at most {_LONGEST_ADDRESS} characters", field="webhook")
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise RefusedError("webhook is no address: its host or port cannot be read", field="webhook") from None
    if parts.scheme not in ("https", "http") or not is_whole:
        raise RefusedError("webhook must look like https://host/path", field="webhook")
    if "@" in parts.netloc:
        raise RefusedError("webhook must hold no name or password: what is sent there is signed", field="webhook")
    if parts.fragment:
        raise RefusedError("webhook must hold no #fragment: it would not be sent", field="webhook")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise RefusedError("webhook must begin with https:// unless it is on this machine", field="webhook")
