"""items have the time of their receipt, and indexes in the order of claims and of the topic.

Revision: 0009
Follows: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_PUBLISHED = "settled_at IS NULL AND publish_at IS NULL AND kafka_offset IS NOT NULL"
_RESTING = "settled_at IS NULL AND publish_at IS NULL AND kafka_offset IS NULL"
_DUE = "publish_at IS NOT NULL"


def upgrade() -> None:
    # Null for what was published before: it counts as published long ago.
    op.add_column("batch_items", sa.Column("published_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_batch_items_due", table_name="batch_items")
    op.create_index(
        "ix_batch_items_due",
        "batch_items",
        ["batch_id", sa.text("(kafka_offset IS NOT NULL)"), "publish_at", "position"],
        unique=False,
        postgresql_where=sa.text(_DUE),
    )
    op.create_index(
        "ix_batch_items_published",
        "batch_items",
        ["topic_id", "partition", "kafka_offset"],
        unique=False,
        postgresql_where=sa.text(_PUBLISHED),
    )
    op.create_index(
        "ix_batch_items_resting", "batch_items", ["batch_id"], unique=False, postgresql_where=sa.text(_RESTING)
    )


def downgrade() -> None:
    op.drop_index("ix_batch_items_resting", table_name="batch_items", postgresql_where=sa.text(_RESTING))
    op.drop_index("ix_batch_items_published", table_name="batch_items", postgresql_where=sa.text(_PUBLISHED))
    op.drop_index("ix_batch_items_due", table_name="batch_items")
    op.create_index("ix_batch_items_due", "batch_items", ["publish_at"], unique=False, postgresql_where=sa.text(_DUE))
    op.drop_column("batch_items", "published_at")
