"""batches say what is left to do after a decision, and that they are still to be planned.

Revision: 0010
Follows: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("unapplied_since", sa.DateTime(timezone=True)))
    op.add_column("batches", sa.Column("applied_to", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("batches", sa.Column("planning", JSONB()))
    for column in ("unapplied_since", "planning"):
        op.create_index(f"ix_batches_{column}", "batches", ["id"], postgresql_where=sa.text(f"{column} IS NOT NULL"))


def downgrade() -> None:
    for column in ("planning", "unapplied_since"):
        op.drop_index(f"ix_batches_{column}", table_name="batches")
    for column in ("planning", "applied_to", "unapplied_since"):
        op.drop_column("batches", column)
