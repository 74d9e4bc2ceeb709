"""members are compared by mailbox: one normal form of an address, also of those who had it before.

Revision: 0013
Follows: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from schemas.mailboxes import digest

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_VIEW = """
CREATE VIEW same_person AS
SELECT p.id AS member_id, q.member_id AS other_id
FROM members p
JOIN (
    SELECT id AS member_id, mailbox FROM members
    UNION ALL
    SELECT member_id, mailbox FROM former_mailboxes
) q ON q.mailbox = p.mailbox AND q.member_id <> p.id
WHERE p.shares_mailbox
"""
_CHUNK = 10_000


def upgrade() -> None:
    op.add_column("members", sa.Column("mailbox", sa.LargeBinary(), nullable=True))
    op.add_column("members", sa.Column("shares_mailbox", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "former_mailboxes",
        sa.Column("mailbox", sa.LargeBinary(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_former_mailboxes_member_id")),
        sa.PrimaryKeyConstraint("mailbox", "member_id", name=op.f("pk_former_mailboxes")),
    )
    _fill()
    op.create_index("ix_members_mailbox", "members", ["mailbox"])
    op.execute(
        "UPDATE members m SET shares_mailbox = true FROM ("
        "  SELECT mailbox FROM members WHERE mailbox IS NOT NULL GROUP BY mailbox HAVING count(*) > 1"
        ") t WHERE m.mailbox = t.mailbox"
    )
    op.create_index("ix_members_shares_mailbox", "members", ["id"], postgresql_where=sa.text("shares_mailbox"))
    op.execute(_VIEW)


def _fill() -> None:
    """By the code's own rule, which no SQL function has: what it says of an address must be the same in all rows."""
    connection = op.get_bind()
    after = 0
    while True:
        rows = connection.execute(
            sa.text("SELECT id, email FROM members WHERE deleted_at IS NULL AND id > :after ORDER BY id LIMIT :most"),
            {"after": after, "most": _CHUNK},
        ).all()
        if not rows:
            return
        after = rows[-1].id
        connection.execute(
            sa.text(
                "UPDATE members m SET mailbox = r.mailbox"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:mailboxes AS bytea[])) AS r(id, mailbox) WHERE m.id = r.id"
            ),
            {"ids": [row.id for row in rows], "mailboxes": [digest(row.email) for row in rows]},
        )


def downgrade() -> None:
    op.execute("DROP VIEW same_person")
    op.drop_index("ix_members_shares_mailbox", table_name="members")
    op.drop_index("ix_members_mailbox", table_name="members")
    op.drop_table("former_mailboxes")
    op.drop_column("members", "shares_mailbox")
    op.drop_column("members", "mailbox")
