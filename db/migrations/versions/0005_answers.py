"""an index of the answers to invitations, which are few beside the invitations.

Revision: 0005
Follows: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_invitations_answers",
        "invitations",
        ["event_id", "member_id", "attending"],
        postgresql_where=sa.text("attending IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_invitations_answers", table_name="invitations")
