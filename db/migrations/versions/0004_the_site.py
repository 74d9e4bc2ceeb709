"""the web application: accounts, sessions, API clients, audit log, and a column to search members by.

Revision: 0004
Follows: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _id(name: str = "id") -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), sa.Identity(always=True), nullable=False)


def _timestamp(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _ref(name: str, target: str, table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([name], [f"{target}.id"], name=op.f(f"fk_{table}_{name}"), ondelete="CASCADE")


def upgrade() -> None:
    op.add_column(
        "members",
        sa.Column(
            "search",
            sa.Text(),
            sa.Computed("lower(name || ' ' || coalesce(surname || ' ', '') || email)", persisted=True),
            nullable=False,
        ),
    )
    op.create_table(
        "accounts",
        _id(),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        _timestamp("created_at"),
        _timestamp("disabled_at", nullable=True),
        sa.CheckConstraint("role IN ('admin', 'organiser')", name=op.f("ck_accounts_role")),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_accounts_email_in_lower_case")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
    )
    op.create_table(
        "account_chapters",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chapter_id", sa.BigInteger(), autoincrement=False, nullable=False),
        _ref("account_id", "accounts", "account_chapters"),
        _ref("chapter_id", "chapters", "account_chapters"),
        sa.PrimaryKeyConstraint("account_id", "chapter_id", name=op.f("pk_account_chapters")),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        _timestamp("created_at"),
        _timestamp("seen_at"),
        _timestamp("expires_at"),
        _ref("account_id", "accounts", "sessions"),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_account_id"), "sessions", ["account_id"])
    op.create_table(
        "sign_in_attempts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _timestamp("since"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sign_in_attempts")),
    )
    op.create_table(
        "sign_in_requests",
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("next_path", sa.Text(), nullable=False),
        _timestamp("expires_at"),
        sa.PrimaryKeyConstraint("state_hash", name=op.f("pk_sign_in_requests")),
    )
    op.create_table(
        "api_clients",
        _id(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("webhook_secret", sa.LargeBinary(), nullable=True),
        _timestamp("created_at"),
        _timestamp("used_at", nullable=True),
        _timestamp("revoked_at", nullable=True),
        sa.CheckConstraint(
            "(webhook_url IS NULL) = (webhook_secret IS NULL)", name=op.f("ck_api_clients_webhook_has_secret")
        ),
        _ref("account_id", "accounts", "api_clients"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_clients")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_clients_token_hash")),
    )
    op.create_index(op.f("ix_api_clients_account_id"), "api_clients", ["account_id"])
    op.create_table(
        "batch_webhooks",
        sa.Column("batch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("client_id", sa.BigInteger(), nullable=False),
        _timestamp("due_at", nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _timestamp("delivered_at", nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        _ref("batch_id", "batches", "batch_webhooks"),
        _ref("client_id", "api_clients", "batch_webhooks"),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batch_webhooks")),
    )
    op.create_index(op.f("ix_batch_webhooks_client_id"), "batch_webhooks", ["client_id"])
    op.create_index(
        "ix_batch_webhooks_due", "batch_webhooks", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_table(
        "trail",
        _id(),
        _timestamp("at"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("member_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name=op.f("ck_trail_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trail")),
    )
    op.create_index(op.f("ix_trail_event_id"), "trail", ["event_id"])


def downgrade() -> None:
    for table in (
        "trail", "batch_webhooks", "api_clients", "sign_in_requests", "sign_in_attempts", "sessions",
        "account_chapters", "accounts",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_column("members", "search")
