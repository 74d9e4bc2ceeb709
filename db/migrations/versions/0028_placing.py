"""a source may get the invitations of a batch before their mails go out.

Revision: 0028
Follows: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db import functions

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

#: A claim asks whether the source has the invitation.
FUNCTIONS = {"cycle": "bidden_cycle_607dbf14"}


def upgrade() -> None:
    op.add_column("batches", sa.Column("needs_placing", sa.Boolean(), nullable=True))
    op.add_column("batches", sa.Column("placing_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_batches_placing", "batches", ["id"], postgresql_where=sa.text("needs_placing"))
    op.add_column("invitations", sa.Column("placement", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_invitations_placement"), "invitations", "placement IN ('made', 'ours', 'theirs', 'none')"
    )
    op.add_column(
        "directory_source", sa.Column("places", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    functions.install(op.get_bind(), FUNCTIONS)


def downgrade() -> None:
    functions.drop(op.get_bind(), FUNCTIONS)
    op.drop_column("directory_source", "places")
    op.drop_constraint(op.f("ck_invitations_placement"), "invitations")
    op.drop_column("invitations", "placement")
    op.drop_index("ix_batches_placing", "batches")
    op.drop_column("batches", "placing_asked_at")
    op.drop_column("batches", "needs_placing")
