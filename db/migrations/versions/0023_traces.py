"""a batch keeps the trace of its trigger, and an item the timestamp of its message.

Revision: 0023
Follows: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null in what is there, and in what a process of the previous version writes: it runs beside this one.
    op.add_column("batches", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("batch_items", sa.Column("kafka_timestamp", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("batch_items", "kafka_timestamp")
    op.drop_column("batches", "traceparent")
