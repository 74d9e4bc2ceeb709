"""the sending rates that are set and learned, and what was used of them.

Revision: 0008
Follows: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)


def _seconds(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), server_default=sa.text("0"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "send_rate_settings",
        sa.Column("is_set", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("rate", sa.Text(), nullable=True),
        sa.Column("rate_domain", sa.Text(), nullable=True),
        sa.Column("warmup", sa.Text(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=False),
        _time("set_at", nullable=False),
        sa.CheckConstraint("is_set", name=op.f("ck_send_rate_settings_one_row")),
        sa.PrimaryKeyConstraint("is_set", name=op.f("pk_send_rate_settings")),
    )
    op.create_table(
        "send_limits",
        sa.Column("scope", sa.Text(), nullable=False),
        _time("paced_to"),
        _json("recent"),
        _time("queued_to"),
        _json("warmup"),
        _time("warmup_started"),
        sa.Column("ceiling", sa.Double(), nullable=True),
        _seconds("clean_seconds"),
        _time("grown_at"),
        _seconds("pause_seconds"),
        _time("paused_until"),
        _time("probe_until"),
        _time("throttled_at"),
        sa.Column("reply", sa.Text(), nullable=True),
        _time("updated_at", nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_send_limits")),
    )
    op.create_table(
        "send_usage",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        _time("bucket", nullable=False),
        sa.Column("mails", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "seconds", "bucket", name=op.f("pk_send_usage")),
    )


def downgrade() -> None:
    for table in ("send_usage", "send_limits", "send_rate_settings"):
        op.drop_table(table)
