"""who left a list is written back into the source of the directory.

Revision: 0027
Follows: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("opt_outs", sa.Column("written_back_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_opt_outs_to_write_back", "opt_outs", ["id"], postgresql_where=sa.text("written_back_at IS NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_opt_outs_to_write_back", "opt_outs")
    op.drop_column("opt_outs", "written_back_at")
