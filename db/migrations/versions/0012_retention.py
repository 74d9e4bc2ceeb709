"""indexes by which the lists of events and the rules of retention find their rows.

Revision: 0012
Follows: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_events_starts_at", "events", ["starts_at", "id"], None),
    ("ix_event_chapters_chapter_id", "event_chapters", ["chapter_id"], None),
    ("ix_sign_in_attempts_since", "sign_in_attempts", ["since"], None),
    ("ix_sign_in_requests_expires_at", "sign_in_requests", ["expires_at"], None),
    ("ix_audit_log_at", "audit_log", ["at"], None),
    ("ix_batches_with_log", "batches", ["started_at"], "archived IS NULL"),
    ("ix_batches_losing_log", "batches", ["id"], "archived ? 'removed_up_to'"),
)


def upgrade() -> None:
    for name, table, columns, condition in _INDEXES:
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, postgresql_where=where)


def downgrade() -> None:
    for name, table, _, _ in reversed(_INDEXES):
        op.drop_index(name, table_name=table)
