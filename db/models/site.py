"""The tables of the web application: who may do what, who did what, and whom to tell of it."""

from __future__ import annotations

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Identity, Index, Integer, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Moment, Words, is_one_of


class Account(Base):
    """Somebody who may sign in. Without a password only by OpenID Connect."""

    __tablename__ = "accounts"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    #: In lower case: it is what one signs in with.
    email: Mapped[Words] = mapped_column(unique=True)
    name: Mapped[Words]
    role: Mapped[Words]
    password_hash: Mapped[Words | None]
    created_at: Mapped[Moment]
    disabled_at: Mapped[Moment | None]
    __table_args__ = (
        CheckConstraint(is_one_of("role", "admin", "organiser"), name="role"),
        CheckConstraint("email = lower(email)", name="email_in_lower_case"),
    )


class AccountChapter(Base):
    """A chapter whose events an organiser may see and act on."""

    __tablename__ = "account_chapters"
    account_id: Mapped[Id] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    chapter_id: Mapped[Id] = mapped_column(
        ForeignKey("chapters.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


class Session(Base):
    """Somebody signed in at a browser. Only a digest of what the cookie holds is kept."""

    __tablename__ = "sessions"
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Moment]
    seen_at: Mapped[Moment]
    expires_at: Mapped[Moment]


class SignInAttempts(Base):
    """Attempts to sign in under a name, or from an address, since the last that succeeded."""

    __tablename__ = "sign_in_attempts"
    key: Mapped[Words] = mapped_column(primary_key=True)
    attempts: Mapped[int] = mapped_column(Integer)
    since: Mapped[Moment]


class SignInRequest(Base):
    """A sign-in by OpenID Connect under way at the provider. Only a digest of its state is kept."""

    __tablename__ = "sign_in_requests"
    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    nonce: Mapped[Words]
    verifier: Mapped[Words]
    next_path: Mapped[Words]
    expires_at: Mapped[Moment]


class ApiClient(Base):
    """A program that uses the HTTP API for an account: never more than the account may, and only its scopes."""

    __tablename__ = "api_clients"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[Words]
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    #: Where the outcome of its batches is told, signed with the secret; both or neither.
    webhook_url: Mapped[Words | None]
    webhook_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[Moment]
    used_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]
    __table_args__ = (CheckConstraint("(webhook_url IS NULL) = (webhook_secret IS NULL)", name="webhook_has_secret"),)


class BatchWebhook(Base):
    """A batch whose end its client is to be told of. `due_at` is null once it was told, or given up."""

    __tablename__ = "batch_webhooks"
    batch_id: Mapped[Id] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    client_id: Mapped[Id] = mapped_column(ForeignKey("api_clients.id", ondelete="CASCADE"), index=True)
    due_at: Mapped[Moment | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    delivered_at: Mapped[Moment | None]
    last_error: Mapped[Words | None]
    __table_args__ = (Index("ix_batch_webhooks_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),)


class TrailEntry(Base):
    """Something that somebody did, or tried, on the site or by the API. It outlives accounts and clients."""

    __tablename__ = "trail"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[Moment]
    actor: Mapped[Words]
    action: Mapped[Words]
    event_id: Mapped[Id | None] = mapped_column(index=True)
    batch_id: Mapped[Id | None]
    member_id: Mapped[Id | None]
    detail: Mapped[Words | None]
    #: Null while it is being done, and for ever if the process died over it.
    outcome: Mapped[Words | None]
    __table_args__ = (CheckConstraint(is_one_of("outcome", "done", "refused", "failed"), name="outcome"),)
