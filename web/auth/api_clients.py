"""API clients: scopes, creation and revocation. For the command and the page.

A client acts for an account. It may do what both the account and the client's scopes allow.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from config.addresses import is_loopback
from db import accounts
from db.accounts import Account
from db.audit_log import AuditEntry, audited
from db.connect import Connection
from schemas.errors import NotFoundError, RefusedError
from schemas.text import require_text, storable
from web.auth import tokens
from web.webhook_addresses import leads_to_private


class ApiScope(StrEnum):
    """What an API client may be granted."""

    READ = "read"
    INVITE = "invite"
    OPERATE = "operate"
    DEAD_LETTERS = "dead-letters"


#: Shown where scopes are chosen.
SCOPE_DESCRIPTIONS: Final = {
    ApiScope.READ: "read events, batches and the state of each delivery",
    ApiScope.INVITE: "start batches",
    ApiScope.OPERATE: "pause, resume, cancel and retry batches; resolve unknown deliveries",
    ApiScope.DEAD_LETTERS: "read, redrive and discard dead letters; for clients of admins only",
}
_SECRET_BYTES: Final = 32
#: The name follows the account's in the audit log and as the initiator of batches.
MAX_NAME_LENGTH: Final = 60
_MAX_URL_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True)
class NewApiClient:
    """Token and secret are shown once: of the token only a digest is stored."""

    id: int
    token: str
    webhook_secret: str | None


def create_client(
    conn: Connection,
    actor: str,
    *,
    name: str,
    account_id: int,
    scopes: Collection[str],
    webhook_url: str | None = None,
    expires: str | None = None,
    made_by: int | None = None,
    allow_private: bool = False,
) -> NewApiClient:
    """Creates a client for the account, and records it. RefusedError and NotFoundError name the field.

    `expires`: the last day of its token, as `expiry` reads it. `made_by`: the account of who sees the token.
    `allow_private`: whether a webhook may lead to an address that is not of the internet.
    """
    with audited(conn, AuditEntry(actor, "add client", detail=storable(name)[:MAX_NAME_LENGTH])) as entry:
        account = accounts.get(conn, account_id)
        expires_at = None if expires is None else expiry(expires, datetime.now(UTC))
        if webhook_url is not None:
            require_webhook_url(webhook_url, allow_private=allow_private)
        new = _create(conn, account, name, scopes, webhook_url, expires_at, made_by)
        until = "" if expires is None else f", until {expires}"
        entry.note(f"client {new.id} for {account}, {' '.join(sorted(scopes))}{until}")
    return new


def revoke_client(conn: Connection, actor: str, client_id: int) -> None:
    """Invalidates the client's token, and records it. NotFoundError."""
    with audited(conn, AuditEntry(actor, "revoke client", detail=f"client {client_id}")):
        if not accounts.revoke_client(conn, client_id):
            raise NotFoundError(f"there is no client {client_id}", field="client_id")


def expiry(text: str, now: datetime) -> datetime:
    """The end of a day written as 2027-01-31, UTC. RefusedError for what is no day, or a past one."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        end = day + timedelta(days=1)
    except (ValueError, OverflowError):
        raise RefusedError("expires must be a day such as 2027-01-31", field="expires") from None
    if end <= now:
        raise RefusedError("expires must not be in the past", field="expires")
    return end


def _create(
    conn: Connection,
    account: Account,
    name: str,
    scopes: Collection[str],
    webhook_url: str | None,
    expires_at: datetime | None,
    made_by: int | None,
) -> NewApiClient:
    name = name.strip()
    require_text(name, "name", least=1, most=MAX_NAME_LENGTH)
    granted = require_scopes(scopes, account)
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
        expires_at=expires_at,
        made_by=made_by,
    )
    return NewApiClient(client_id, token, None if secret is None else encode_webhook_secret(secret))


def encode_webhook_secret(secret: bytes) -> str:
    """The secret as libraries for Standard Webhooks expect it."""
    return f"whsec_{base64.b64encode(secret).decode()}"


def require_scopes(scopes: Collection[str], account: Account) -> list[ApiScope]:
    """The scopes, each once. RefusedError for none, for an unknown one, or for one that the account may not use."""
    known = {scope.value for scope in ApiScope}
    for scope in scopes:
        if scope not in known:
            raise RefusedError(f"there is no scope {scope[:40]!r}: choose from {', '.join(ApiScope)}", field="scope")
    granted = [scope for scope in ApiScope if scope in scopes]
    if not granted:
        raise RefusedError(f"a client needs a scope: choose from {', '.join(ApiScope)}", field="scope")
    if ApiScope.DEAD_LETTERS in granted and not account.is_admin:
        raise RefusedError(
            f"the scope {ApiScope.DEAD_LETTERS} is for admins, and {account.email} is none", field="scope"
        )
    return granted


def require_webhook_url(url: str, *, allow_private: bool) -> None:
    """RefusedError unless the URL is https (or http on loopback), with a host and without credentials.

    What a name leads to is looked at when it is called; an address of a private network is refused here already.
    """
    if len(url) > _MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedError(f"webhook must be printable ASCII of at most {_MAX_URL_LENGTH} characters", field="webhook")
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise RefusedError("webhook is no URL: its host or port is invalid", field="webhook") from None
    if parts.scheme not in ("https", "http") or not is_whole:
        raise RefusedError("webhook must look like https://host/path", field="webhook")
    if "@" in parts.netloc:
        raise RefusedError("webhook must hold no user name or password: requests are signed instead", field="webhook")
    if parts.fragment:
        raise RefusedError("webhook must hold no #fragment: fragments are not sent", field="webhook")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise RefusedError("webhook must begin with https:// unless its host is this machine", field="webhook")
    if not allow_private and leads_to_private(parts.hostname or ""):
        raise RefusedError(
            "webhook leads to an address that is not of the internet: BIDDEN_WEBHOOK_ALLOW_PRIVATE=1 allows such",
            field="webhook",
        )
