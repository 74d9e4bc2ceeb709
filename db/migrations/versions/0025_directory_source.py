"""the directory may come from a source, of which complete snapshots are taken.

Revision: 0025
Follows: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from db import functions

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

#: A claim asks how old the newest snapshot is.
FUNCTIONS = {"cycle": "bidden_cycle_a3c84033"}


def upgrade() -> None:
    op.create_table(
        "directory_source",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("max_age_seconds", sa.Double(), nullable=True),
        sa.Column("result", JSONB(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("problem_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_directory_source_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_source")),
    )
    op.create_table(
        "source_lines",
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("second_id", sa.BigInteger(), nullable=True),
        sa.Column("role", sa.Text(), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("unique_value", sa.Text(), nullable=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("refs", sa.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_source_lines")),
    )
    op.create_table(
        "set_aside_lines",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=True),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_set_aside_lines")),
    )
    op.create_index(op.f("ix_set_aside_lines_member_id"), "set_aside_lines", ["member_id"])
    functions.install(op.get_bind(), FUNCTIONS)


def downgrade() -> None:
    functions.drop(op.get_bind(), FUNCTIONS)
    op.drop_table("set_aside_lines")
    op.drop_table("source_lines")
    op.drop_table("directory_source")
