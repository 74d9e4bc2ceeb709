"""tables of millions of rows are vacuumed early, and what is known of a member or a batch has an index.

Revision: 0026
Follows: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

#: By default autovacuum waits until a fifth of a table is dead: of ten million rows two million.
_DEAD = {"autovacuum_vacuum_scale_factor": "0.02", "autovacuum_vacuum_threshold": "5000"}
_INSERTED = {"autovacuum_vacuum_insert_scale_factor": "0.05"}
STORAGE = {
    "deliveries": _DEAD,
    "batch_items": _DEAD,
    "log_entries": _DEAD | _INSERTED,
    "invitations": _DEAD | _INSERTED,
}


def upgrade() -> None:
    op.create_index("ix_deliveries_member_id", "deliveries", ["member_id"])
    op.create_index(
        "ix_audit_log_batch_id", "audit_log", ["batch_id", "at"], postgresql_where=sa.text("batch_id IS NOT NULL")
    )
    for table, parameters in STORAGE.items():
        values = ", ".join(f"{name} = {value}" for name, value in parameters.items())
        op.execute(f"ALTER TABLE {table} SET ({values})")


def downgrade() -> None:
    for table, parameters in STORAGE.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(parameters)})")
    op.drop_index("ix_audit_log_batch_id", "audit_log")
    op.drop_index("ix_deliveries_member_id", "deliveries")
