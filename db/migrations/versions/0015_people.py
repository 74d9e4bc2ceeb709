"""redact addresses in replies, reasons and errors that earlier versions recorded as they came.

Of members who were deleted the address is not known any more, so whatever looks like one is redacted. What was redacted
does not come back by a downgrade.

Revision: 0015
Follows: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0012"
branch_labels = None
depends_on = None

#: Texts that servers wrote. As `schemas.redaction` did when this migration was written.
_REDACTED = (
    ("batches", "first_error"),
    ("deliveries", "reply"),
    ("deliveries", "reason"),
    ("log_entries", "reason"),
    ("batch_webhooks", "last_error"),
    ("send_limits", "reply"),
)
_INSIDE = r"""[^[:space:]<>()\[\],;:"']"""
_ADDRESS = rf"""(?:"[^"]*"|{_INSIDE}+(?:'{_INSIDE}+)*)(?:[@\uff20\ufe6b]|%40){_INSIDE}*"""


def upgrade() -> None:
    connection = op.get_bind()
    for table, column in _REDACTED:
        connection.exec_driver_sql(
            f"UPDATE {table} SET {column} = regexp_replace({column}, %(address)s, '(address)', 'g') "  # noqa: S608 - constants
            f"WHERE {column} ~ %(address)s",
            {"address": _ADDRESS},
        )


def downgrade() -> None:
    """Nothing to undo."""
