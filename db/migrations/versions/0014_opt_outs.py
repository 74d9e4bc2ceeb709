"""who left a list stays off every list of its purpose: opt-outs are of a person, not of a subscription.

Revision: 0014
Follows: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_SUBSCRIPTIONS = """
CREATE OR REPLACE VIEW event_subscriptions AS
SELECT ec.event_id, s.member_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END AS role
FROM event_chapters ec
JOIN groups g ON g.chapter_id = ec.chapter_id
JOIN subscriptions s ON s.group_id = g.id
"""
_OPTED_OUT = """
CREATE VIEW opted_out AS
SELECT o.member_id, o.chapter_id, o.role, o.left_at FROM opt_outs o
UNION ALL
SELECT p.member_id, o.chapter_id, o.role, o.left_at FROM same_person p JOIN opt_outs o ON o.member_id = p.other_id
"""


_LEFT = """
SELECT FROM opted_out o
WHERE o.member_id = s.member_id AND (o.chapter_id IS NULL OR (
    o.chapter_id = g.chapter_id AND o.role = CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END
))
"""
_KEEP = """
INSERT INTO opt_outs (member_id, chapter_id, role, left_at)
SELECT s.member_id, g.chapter_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END, min(s.left_at)
FROM subscriptions s JOIN groups g ON g.id = s.group_id WHERE s.left_at IS NOT NULL GROUP BY 1, 2, 3
"""
# Members who left are off the lists that exist now; lists of later files are not known here.
_GIVE_BACK = """
UPDATE subscriptions s SET left_at = x.left_at FROM (
    SELECT s.member_id, s.group_id, min(o.left_at) AS left_at
    FROM subscriptions s
    JOIN groups g ON g.id = s.group_id
    JOIN opted_out o ON o.member_id = s.member_id AND (o.chapter_id IS NULL OR (
        o.chapter_id = g.chapter_id AND o.role = CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END
    ))
    GROUP BY s.member_id, s.group_id
) x WHERE s.member_id = x.member_id AND s.group_id = x.group_id
"""


def upgrade() -> None:
    op.create_table(
        "opt_outs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("chapter_id", sa.BigInteger(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("left_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('Student', 'Coach')", name=op.f("ck_opt_outs_role")),
        sa.CheckConstraint("(chapter_id IS NULL) = (role IS NULL)", name=op.f("ck_opt_outs_of_a_list_or_of_all")),
        sa.ForeignKeyConstraint(["chapter_id"], ["chapters.id"], name=op.f("fk_opt_outs_chapter_id")),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_opt_outs_member_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_opt_outs")),
    )
    op.execute(_KEEP)
    op.create_index("ix_opt_outs_member_id", "opt_outs", ["member_id"])
    columns, of_list = ["member_id", "chapter_id", "role"], sa.text("chapter_id IS NOT NULL")
    op.create_index("uq_opt_outs_of_list", "opt_outs", columns, unique=True, postgresql_where=of_list)
    of_all = sa.text("chapter_id IS NULL")
    op.create_index("uq_opt_outs_of_all", "opt_outs", ["member_id"], unique=True, postgresql_where=of_all)
    op.execute(_OPTED_OUT)
    op.execute(f"{_SUBSCRIPTIONS} WHERE NOT EXISTS ({_LEFT})")
    op.drop_column("subscriptions", "left_at")


def downgrade() -> None:
    op.add_column("subscriptions", sa.Column("left_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(_GIVE_BACK)
    op.execute(f"{_SUBSCRIPTIONS} WHERE s.left_at IS NULL")
    op.execute("DROP VIEW opted_out")
    op.drop_table("opt_outs")
