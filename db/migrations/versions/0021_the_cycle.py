"""a worker's transaction is one function.

Revision: 0021
Follows: 0020
"""

from __future__ import annotations

from alembic import op

from db import functions

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

FUNCTIONS = {"cycle": "bidden_cycle_050b1eb4"}


def upgrade() -> None:
    functions.install(op.get_bind(), FUNCTIONS)


def downgrade() -> None:
    functions.drop(op.get_bind(), FUNCTIONS)
