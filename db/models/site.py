"""The tables of the web application: accounts, sessions, sign-ins, links, API clients, webhooks, audit log."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Text, TextArray, Timestamp, is_one_of


class Account(Base):
    """A user of the web application. Without a password they sign in by OpenID Connect only."""

    __tablename__ = "accounts"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    #: In lower case: users sign in with it.
    email: Mapped[Text] = mapped_column(unique=True)
    name: Mapped[Text]
    role: Mapped[Text]
    password_hash: Mapped[Text | None]
    created_at: Mapped[Timestamp]
    disabled_at: Mapped[Timestamp | None]
    #: The user of the OpenID Connect provider who signed in first: from then on nobody else does.
    oidc_issuer: Mapped[Text | None]
    oidc_subject: Mapped[Text | None]
    __table_args__ = (
        UniqueConstraint("oidc_issuer", "oidc_subject"),
        CheckConstraint("(oidc_issuer IS NULL) = (oidc_subject IS NULL)", name="identity_is_whole"),
        CheckConstraint(is_one_of("role", "admin", "organiser"), name="role"),
        CheckConstraint("email = lower(email)", name="email_in_lower_case"),
    )


class AccountChapter(Base):
    """A chapter whose events the organiser may see and act on."""

    __tablename__ = "account_chapters"
    account_id: Mapped[Id] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    chapter_id: Mapped[Id] = mapped_column(
        ForeignKey("chapters.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


class Session(Base):
    """A user signed in at a browser. Stored under the digest of the token in the cookie."""

    __tablename__ = "sessions"
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Timestamp]
    seen_at: Mapped[Timestamp]
    expires_at: Mapped[Timestamp]


class SignInAttempts(Base):
    """Attempts counted under a key (e-mail address, IP address, or both) since `since` or the last success."""

    __tablename__ = "sign_in_attempts"
    key: Mapped[Text] = mapped_column(primary_key=True)
    attempts: Mapped[int] = mapped_column(Integer)
    since: Mapped[Timestamp] = mapped_column(index=True)


class SignInRequest(Base):
    """A pending sign-in by OpenID Connect. Stored under the digest of its state."""

    __tablename__ = "sign_in_requests"
    state_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    nonce: Mapped[Text]
    verifier: Mapped[Text]
    next_path: Mapped[Text]
    expires_at: Mapped[Timestamp] = mapped_column(index=True)


class PasswordReset(Base):
    """A link in a mail by which an account gets a new password, once. Stored under the digest of its token."""

    __tablename__ = "password_resets"
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[Timestamp] = mapped_column(index=True)


class ApiClient(Base):
    """A program that uses the HTTP API for an account: it may do what both the account and its scopes allow."""

    __tablename__ = "api_clients"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[Text]
    account_id: Mapped[Id] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[TextArray]
    #: Where the end of its batches is announced, signed with the secret; both or neither.
    webhook_url: Mapped[Text | None]
    webhook_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[Timestamp]
    used_at: Mapped[Timestamp | None]
    revoked_at: Mapped[Timestamp | None]
    expires_at: Mapped[Timestamp | None]
    #: The account that made it and saw its token; null: a command did.
    made_by: Mapped[Id | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    __table_args__ = (CheckConstraint("(webhook_url IS NULL) = (webhook_secret IS NULL)", name="webhook_has_secret"),)


class BatchWebhook(Base):
    """A webhook for the end of a batch. `due_at` is null once it was delivered, or given up."""

    __tablename__ = "batch_webhooks"
    batch_id: Mapped[Id] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    client_id: Mapped[Id] = mapped_column(ForeignKey("api_clients.id", ondelete="CASCADE"), index=True)
    due_at: Mapped[Timestamp | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    delivered_at: Mapped[Timestamp | None]
    last_error: Mapped[Text | None]
    __table_args__ = (Index("ix_batch_webhooks_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),)


class AuditLogEntry(Base):
    """An action by a user, an API client or a command, or the attempt. Outlives accounts and clients."""

    __tablename__ = "audit_log"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[Timestamp] = mapped_column(index=True)
    actor: Mapped[Text]
    action: Mapped[Text]
    event_id: Mapped[Id | None] = mapped_column(index=True)
    batch_id: Mapped[Id | None]
    member_id: Mapped[Id | None]
    detail: Mapped[Text | None]
    #: Null while the action runs, and for ever if the process died meanwhile.
    outcome: Mapped[Text | None]
    __table_args__ = (
        CheckConstraint(is_one_of("outcome", "done", "nothing", "refused", "failed"), name="outcome"),
        # The page of a batch asks for its last action.
        Index("ix_audit_log_batch_id", "batch_id", "at", postgresql_where=text("batch_id IS NOT NULL")),
    )
