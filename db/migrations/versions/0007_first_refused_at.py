"""deliveries.first_refused_at: since when a recipient is refused for now, which decides when that has failed.

Deliveries that were refused before it begin their time at their next refusal.

Revision: 0007
Follows: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE deliveries ADD COLUMN first_refused_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE deliveries DROP COLUMN first_refused_at")
