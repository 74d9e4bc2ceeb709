"""planning checks no reference that it has just read.

Revision: 0020
Follows: 0019
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

#: Name, table, column, referred table, on delete.
REFERENCES = (
    ("fk_deliveries_event_id", "deliveries", "event_id", "events", None),
    ("fk_deliveries_member_id", "deliveries", "member_id", "members", None),
    ("fk_batch_items_batch_id", "batch_items", "batch_id", "batches", "CASCADE"),
    ("fk_invitations_event_id", "invitations", "event_id", "events", None),
    ("fk_invitations_member_id", "invitations", "member_id", "members", None),
)


def upgrade() -> None:
    for name, table, *_ in REFERENCES:
        op.drop_constraint(op.f(name), table, type_="foreignkey")


def downgrade() -> None:
    for name, table, column, referred, ondelete in REFERENCES:
        op.create_foreign_key(op.f(name), table, referred, [column], ["id"], ondelete=ondelete)
