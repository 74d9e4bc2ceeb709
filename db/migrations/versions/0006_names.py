"""tables and constraints by the names that the code uses: audit_log, redriven_dead_letters, claimed_has_lease.

Revision: 0006
Follows: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = (("trail", "audit_log"), ("redriven_letters", "redriven_dead_letters"))

#: PostgreSQL renames a table alone. Constraints (NOT NULL is one from version 18 on), indexes and the sequence of an
#: identity column keep the old name in theirs.
_RENAME_PARTS = """
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN
        SELECT conname AS name FROM pg_constraint
        WHERE conrelid = '{new}'::regclass AND position('{old}' IN conname) > 0
    LOOP
        EXECUTE format('ALTER TABLE {new} RENAME CONSTRAINT %I TO %I', part.name, replace(part.name, '{old}', '{new}'));
    END LOOP;
    FOR part IN
        -- Of a constraint the index has been renamed with it. Internal: the sequence of an identity column.
        SELECT c.relname AS name, CASE c.relkind WHEN 'i' THEN 'INDEX' ELSE 'SEQUENCE' END AS kind
        FROM pg_class c
        WHERE position('{old}' IN c.relname) > 0 AND (
            c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = '{new}'::regclass)
            OR c.oid IN (SELECT objid FROM pg_depend WHERE refobjid = '{new}'::regclass AND deptype = 'i')
                AND c.relkind = 'S'
        )
    LOOP
        EXECUTE format('ALTER %s %I RENAME TO %I', part.kind, part.name, replace(part.name, '{old}', '{new}'));
    END LOOP;
END $$
"""


_RENAME_CHECK = (
    "ALTER TABLE deliveries RENAME CONSTRAINT ck_deliveries_{old}_has_lease TO ck_deliveries_{new}_has_lease"
)


def upgrade() -> None:
    for old, new in _TABLES:
        _rename(old, new)
    op.execute(_RENAME_CHECK.format(old="marked", new="claimed"))


def downgrade() -> None:
    for old, new in _TABLES:
        _rename(new, old)
    op.execute(_RENAME_CHECK.format(old="claimed", new="marked"))


def _rename(old: str, new: str) -> None:
    op.rename_table(old, new)
    op.execute(_RENAME_PARTS.format(old=old, new=new))
