"""for operators' commands: the counts of cleaned batches, and which dead letters were redriven.

Revision: 0002
Follows: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("archived", postgresql.JSONB(), nullable=True))
    op.create_table(
        "redriven_letters",
        sa.Column("topic_id", sa.Uuid(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("redriven_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic_id", "partition", "kafka_offset", name=op.f("pk_redriven_letters")),
    )


def downgrade() -> None:
    op.drop_table("redriven_letters")
    op.drop_column("batches", "archived")
