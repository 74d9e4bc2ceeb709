"""first schema.

Revision: 0001
Follows:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the models cannot say. Both stand here as text, because a migration must not change when the code does.

#: The members on the mailing lists of each event. May repeat a member of two chapters: query with EXISTS.
VIEW = """
CREATE VIEW event_subscriptions AS
SELECT ec.event_id, s.member_id, CASE g.name WHEN 'Students' THEN 'Student' ELSE 'Coach' END AS role
FROM event_chapters ec
JOIN groups g ON g.chapter_id = ec.chapter_id
JOIN subscriptions s ON s.group_id = g.id
"""

#: The last fence: whatever a statement or a person at a prompt tries, `sent` never changes and never goes.
SENT_IS_FINAL = """
CREATE FUNCTION refuse_change_of_sent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'delivery %/%/%/% was sent: that never changes',
        OLD.event_id, OLD.action, OLD.member_id, OLD.slot
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'deliveries_sent_is_final';
END $$;
CREATE TRIGGER deliveries_sent_is_final BEFORE UPDATE ON deliveries
FOR EACH ROW WHEN (OLD.state = 'sent' AND (NEW.state <> 'sent' OR NEW.batch_id IS DISTINCT FROM OLD.batch_id))
EXECUTE FUNCTION refuse_change_of_sent();
CREATE TRIGGER deliveries_sent_is_kept BEFORE DELETE ON deliveries
FOR EACH ROW WHEN (OLD.state = 'sent') EXECUTE FUNCTION refuse_change_of_sent()
"""


def upgrade() -> None:
    op.create_table(
        "chapters",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chapters")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("invitable", sa.Boolean(), nullable=False),
        sa.Column("host_name", sa.Text(), nullable=True),
        sa.Column("host_address", sa.Text(), nullable=True),
        sa.Column("role_policy", sa.Text(), server_default=sa.text("'each'"), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('workshop', 'virtual_workshop', 'event')", name=op.f("ck_events_kind")),
        sa.CheckConstraint("role_policy IN ('each', 'one')", name=op.f("ck_events_role_policy")),
        sa.CheckConstraint("ends_at >= starts_at", name=op.f("ck_events_ends_after_start")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "members",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("surname", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("accepted_toc_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("email", deferrable=True, initially="DEFERRED", name=op.f("uq_members_email")),
    )
    op.create_table(
        "bans",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("permanent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("permanent OR expires_at IS NOT NULL", name=op.f("ck_bans_ends_or_is_permanent")),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_bans_member_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bans")),
    )
    op.create_index(op.f("ix_bans_member_id"), "bans", ["member_id"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("trigger_key", sa.Text(), nullable=True),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("initiator", sa.Text(), nullable=False),
        sa.Column("shuffle_seed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_error", sa.Text(), nullable=True),
        sa.CheckConstraint("action IN ('invite')", name=op.f("ck_batches_action")),
        sa.CheckConstraint("audience IN ('students', 'coaches', 'everyone')", name=op.f("ck_batches_audience")),
        sa.CheckConstraint("state IN ('running', 'paused', 'cancelled')", name=op.f("ck_batches_state")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_batches_event_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("trigger_key", name=op.f("uq_batches_trigger_key")),
    )
    op.create_index(op.f("ix_batches_event_id"), "batches", ["event_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'planned'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('Student', 'Coach')", name=op.f("ck_deliveries_role")),
        sa.CheckConstraint("slot = 'member' OR slot = role", name=op.f("ck_deliveries_slot_of_role")),
        sa.CheckConstraint("slot IN ('Student', 'Coach', 'member')", name=op.f("ck_deliveries_slot")),
        sa.CheckConstraint(
            "state <> 'handing_off' OR (lease_until IS NOT NULL AND owner IS NOT NULL)",
            name=op.f("ck_deliveries_marked_has_lease"),
        ),
        sa.CheckConstraint("state <> 'retry' OR not_before IS NOT NULL", name=op.f("ck_deliveries_retry_has_time")),
        sa.CheckConstraint(
            "state IN ('planned', 'handing_off', 'sent', 'failed', 'unknown', 'retry', 'skipped')",
            name=op.f("ck_deliveries_state"),
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id")),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_deliveries_member_id")),
        sa.PrimaryKeyConstraint("event_id", "action", "member_id", "slot", name=op.f("pk_deliveries")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "event_chapters",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chapter_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["chapter_id"], ["chapters.id"], name=op.f("fk_event_chapters_chapter_id")),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("fk_event_chapters_event_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", "chapter_id", name=op.f("pk_event_chapters")),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chapter_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.CheckConstraint("name IN ('Students', 'Coaches')", name=op.f("ck_groups_name")),
        sa.ForeignKeyConstraint(["chapter_id"], ["chapters.id"], name=op.f("fk_groups_chapter_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
    )
    op.create_index(op.f("ix_groups_chapter_id"), "groups", ["chapter_id"], unique=False)
    op.create_table(
        "invitations",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("attending", sa.Boolean(), nullable=True),
        sa.CheckConstraint("role IN ('Student', 'Coach')", name=op.f("ck_invitations_role")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_invitations_event_id")),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_invitations_member_id")),
        sa.PrimaryKeyConstraint("event_id", "member_id", "role", name=op.f("pk_invitations")),
        sa.UniqueConstraint("token", name=op.f("uq_invitations_token")),
    )
    op.create_index(op.f("ix_invitations_member_id"), "invitations", ["member_id"], unique=False)
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("roles", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("publish_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("topic_id", sa.Uuid(), nullable=True),
        sa.Column("partition", sa.Integer(), nullable=True),
        sa.Column("kafka_offset", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(excluded IS NULL) = (cardinality(roles) > 0)", name=op.f("ck_batch_items_planned_or_excluded")
        ),
        sa.CheckConstraint(
            "excluded IS NULL OR settled_at IS NOT NULL", name=op.f("ck_batch_items_excluded_is_settled")
        ),
        sa.CheckConstraint("settled_at IS NULL OR publish_at IS NULL", name=op.f("ck_batch_items_settled_is_not_due")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_batch_items_batch_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "member_id", name=op.f("pk_batch_items")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_batch_items_due",
        "batch_items",
        ["publish_at"],
        unique=False,
        postgresql_where=sa.text("publish_at IS NOT NULL"),
    )
    op.create_index(
        "ix_batch_items_unsettled",
        "batch_items",
        ["batch_id", "member_id"],
        unique=False,
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.create_table(
        "log_entries",
        sa.Column("batch_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=True),
        sa.Column("kafka_offset", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('sent', 'failed', 'unknown', 'skipped', 'retry')", name=op.f("ck_log_entries_status")
        ),
        sa.PrimaryKeyConstraint("batch_id", "member_id", "slot", name=op.f("pk_log_entries")),
    )
    op.create_index(
        "ix_log_entries_unknown",
        "log_entries",
        ["member_id"],
        unique=False,
        postgresql_where=sa.text("status = 'unknown'"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("member_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("group_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_subscriptions_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_subscriptions_member_id")),
        sa.PrimaryKeyConstraint("member_id", "group_id", name=op.f("pk_subscriptions")),
    )
    op.create_index(op.f("ix_subscriptions_group_id"), "subscriptions", ["group_id"], unique=False)
    op.execute(VIEW)
    op.execute(SENT_IS_FINAL)


def downgrade() -> None:
    op.execute("DROP VIEW event_subscriptions")
    op.drop_index(op.f("ix_subscriptions_group_id"), table_name="subscriptions")
    op.drop_table("subscriptions")
    op.drop_index("ix_log_entries_unknown", table_name="log_entries", postgresql_where=sa.text("status = 'unknown'"))
    op.drop_table("log_entries")
    op.drop_index("ix_batch_items_unsettled", table_name="batch_items", postgresql_where=sa.text("settled_at IS NULL"))
    op.drop_index("ix_batch_items_due", table_name="batch_items", postgresql_where=sa.text("publish_at IS NOT NULL"))
    op.drop_table("batch_items")
    op.drop_index(op.f("ix_invitations_member_id"), table_name="invitations")
    op.drop_table("invitations")
    op.drop_index(op.f("ix_groups_chapter_id"), table_name="groups")
    op.drop_table("groups")
    op.drop_table("event_chapters")
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_batches_event_id"), table_name="batches")
    op.drop_table("batches")
    op.drop_index(op.f("ix_bans_member_id"), table_name="bans")
    op.drop_table("bans")
    op.drop_table("members")
    op.drop_table("events")
    op.drop_table("chapters")
    op.execute("DROP FUNCTION refuse_change_of_sent")
