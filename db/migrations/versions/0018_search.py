"""members are found by what a person types: without accents, apostrophes, hyphens; the audit log knows "nothing".

Revision: 0018
Follows: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

# One function for the column and for what is typed, so that the two cannot differ. It is of PostgreSQL's own functions
# alone: an extension would need a right that the database's user may not have.
# Of apostrophes and accents that stand alone, hyphens, and characters that nobody sees, none is left; letters that
# Unicode does not take apart become those that people type for them.
_FUNCTION = r"""
CREATE FUNCTION search_text(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT replace(replace(replace(replace(translate(lower(regexp_replace(
        normalize(regexp_replace(value,
            U&'[''`\00AD\00B4\02B9-\02BF\055A\05F3\05F4\2018-\201B\2032\2035\FF07\2010-\2015\2212\FE58\FE63\FF0D'
            '\061C\180E\200B-\200F\202A-\202E\2060-\2064\2066-\206F\FEFF\FFFD-]', '', 'g'), NFKD),
        U&'[\0300-\036F\0483-\0489\0591-\05BD\05BF\05C1\05C2\05C4\05C5\05C7\0610-\061A\064B-\065F\0670\06D6-\06DC'
        '\1AB0-\1AFF\1DC0-\1DFF\20D0-\20FF\FE00-\FE0F\FE20-\FE2F]', '', 'g')),
        U&'\0141\0142\00D8\00F8\0110\0111\0126\0127\0131\00D0\00F0\0166\0167\018F\0259\03C2',
        U&'llooddhhiddttee\03C3'),
        U&'\00DF', 'ss'), U&'\00E6', 'ae'), U&'\0153', 'oe'), U&'\00FE', 'th')
$$
"""
# The parts of three characters, for the index: an extension (pg_trgm) would do the same. Dear, so that a condition that
# needs no index is asked first.
_PARTS = """
CREATE FUNCTION search_parts(value text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
    SELECT ARRAY(SELECT substr(value, n, 3) FROM generate_series(1, length(value) - 2) AS n)
$$
"""
_INDEX = "ix_members_search_parts"
_WHOLE = "name || ' ' || coalesce(surname || ' ', '') || email"


def _add_column(expression: str) -> None:
    computed = sa.Computed(expression, persisted=True)
    op.add_column("members", sa.Column("search", sa.Text(), computed, nullable=False))


def _allow(*outcomes: str) -> None:
    name = op.f("ck_audit_log_outcome")
    op.drop_constraint(name, "audit_log")
    op.create_check_constraint(name, "audit_log", f"outcome IN ({', '.join(map(repr, outcomes))})")


def upgrade() -> None:
    _allow("done", "nothing", "refused", "failed")
    op.drop_column("members", "search")
    op.execute(_FUNCTION)
    _add_column(f"search_text({_WHOLE})")
    op.execute(_PARTS)
    op.create_index(_INDEX, "members", [sa.text("search_parts(search)")], postgresql_using="gin")


def downgrade() -> None:
    op.execute("UPDATE audit_log SET outcome = 'done' WHERE outcome = 'nothing'")
    _allow("done", "refused", "failed")
    op.drop_index(_INDEX, table_name="members")
    op.execute("DROP FUNCTION search_parts(text)")
    op.drop_column("members", "search")
    op.execute("DROP FUNCTION search_text(text)")
    _add_column(f"lower({_WHOLE})")
