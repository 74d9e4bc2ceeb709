"""each outcome is also an event.

Revision: 0022
Follows: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

#: Whatever statement writes an outcome, a person's at a prompt too: its event is in the outbox in the same transaction.
#: One row for each statement, as most change dozens. A claim is no outcome.
TRIGGERS = """
CREATE FUNCTION note_outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    noted jsonb;
BEGIN
    noted := (
        SELECT jsonb_agg(jsonb_build_array(event_id, action, member_id, slot, role, state, fence, batch_id, updated_at))
        FROM changed WHERE state <> 'handing_off'
    );
    IF noted IS NOT NULL THEN
        INSERT INTO outcome_outbox (outcomes) VALUES (noted);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION note_first_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outcome_outbox (outcomes) VALUES (jsonb_build_array(jsonb_build_array(NEW.event_id, NEW.action,
        NEW.member_id, NEW.slot, NEW.role, NEW.state, NEW.fence, NEW.batch_id, NEW.updated_at)));
    RETURN NULL;
END $$;
CREATE TRIGGER deliveries_note_outcomes AFTER UPDATE ON deliveries
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_outcomes();
CREATE TRIGGER deliveries_note_first_outcome AFTER INSERT ON deliveries
FOR EACH ROW WHEN (NEW.state NOT IN ('planned', 'handing_off')) EXECUTE FUNCTION note_first_outcome()
"""

#: What was known before there were events.
EARLIER = """
INSERT INTO outcome_outbox (outcomes)
SELECT jsonb_agg(jsonb_build_array(event_id, action, member_id, slot, role, state, fence, batch_id, updated_at))
FROM (
    SELECT *, row_number() OVER () / 1000 AS chunk FROM deliveries WHERE state NOT IN ('planned', 'handing_off')
) d
GROUP BY chunk ORDER BY chunk
"""


def upgrade() -> None:
    op.create_table(
        "outcome_outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("outcomes", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcome_outbox")),
    )
    op.execute(TRIGGERS)
    op.execute(EARLIER)


def downgrade() -> None:
    op.execute("DROP TRIGGER deliveries_note_outcomes ON deliveries")
    op.execute("DROP TRIGGER deliveries_note_first_outcome ON deliveries")
    op.execute("DROP FUNCTION note_outcomes")
    op.execute("DROP FUNCTION note_first_outcome")
    op.drop_table("outcome_outbox")
