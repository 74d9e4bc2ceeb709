"""an index by which the failed and unknown deliveries of a batch are found without reading its log.

Revision: 0016
Follows: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_log_entries_wrong",
        "log_entries",
        ["batch_id", "member_id"],
        postgresql_where=sa.text("status IN ('failed', 'unknown')"),
    )


def downgrade() -> None:
    op.drop_index("ix_log_entries_wrong", table_name="log_entries")
