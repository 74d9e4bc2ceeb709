"""members who leave a list by the link in a mail stay off it, also when the next import has them on it.

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_VIEW = """
CREATE OR REPLACE VIEW event_subscriptions AS
SELECT ec.event_id, s.member_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END AS role
FROM event_chapters ec
JOIN groups g ON g.chapter_id = ec.chapter_id
JOIN subscriptions s ON s.group_id = g.id
"""


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("left_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(_VIEW + "WHERE s.left_at IS NULL")


def downgrade() -> None:
    op.execute(_VIEW)
    # Members who left must not be mailed because of the downgrade.
    op.execute("DELETE FROM subscriptions WHERE left_at IS NOT NULL")
    op.drop_column("subscriptions", "left_at")
