"""an event has a reference, an audience, and an address where members answer.

Revision: 0024
Follows: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_SUBSCRIPTIONS = """
CREATE OR REPLACE VIEW event_subscriptions AS
SELECT ec.event_id, s.member_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END AS role
FROM event_chapters ec
JOIN groups g ON g.chapter_id = ec.chapter_id
JOIN subscriptions s ON s.group_id = g.id
WHERE NOT EXISTS (
    SELECT FROM opted_out o
    WHERE o.member_id = s.member_id AND (o.chapter_id IS NULL OR (
        o.chapter_id = g.chapter_id AND o.role = CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END
    ))
)
"""
# A subquery and not a join: it is evaluated once for each list, and costs the plan of a claim next to nothing.
_IN_AUDIENCE = """
AND (SELECT e.audience FROM events e WHERE e.id = ec.event_id)
    IS DISTINCT FROM CASE g.name WHEN 'Students' THEN 'coaches' ELSE 'students' END
"""


def upgrade() -> None:
    op.add_column("events", sa.Column("ref", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("audience", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("rsvp_url", sa.Text(), nullable=True))
    # Deferred: one import may swap the references of two events.
    op.create_unique_constraint(op.f("uq_events_ref"), "events", ["ref"], deferrable=True, initially="DEFERRED")
    op.create_check_constraint(op.f("ck_events_audience"), "events", "audience IN ('students', 'coaches', 'everyone')")
    op.execute(_SUBSCRIPTIONS + _IN_AUDIENCE)


def downgrade() -> None:
    op.execute(_SUBSCRIPTIONS)
    op.drop_constraint(op.f("ck_events_audience"), "events", type_="check")
    op.drop_constraint(op.f("uq_events_ref"), "events", type_="unique")
    op.drop_column("events", "rsvp_url")
    op.drop_column("events", "audience")
    op.drop_column("events", "ref")
