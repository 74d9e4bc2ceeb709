"""Batches, the ledger of deliveries, and the log of each batch."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Text, TextArray, Timestamp, is_one_of, vacuumed_after


class Batch(Base):
    """One trigger. `completed` is not stored: a batch is complete when none of its items is unsettled."""

    __tablename__ = "batches"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    trigger_key: Mapped[Text | None] = mapped_column(unique=True)
    event_id: Mapped[Id] = mapped_column(ForeignKey("events.id"), index=True)
    audience: Mapped[Text]
    action: Mapped[Text]
    initiator: Mapped[Text]
    shuffle_seed: Mapped[Id]
    state: Mapped[Text] = mapped_column(server_default=text("'running'"))
    started_at: Mapped[Timestamp]
    cancelled_at: Mapped[Timestamp | None]
    first_error: Mapped[Text | None]
    #: The batch's counts, stored before its items and its log are removed, which `removed_up_to` says how far they are.
    archived: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    #: When the last decision (pause, resume, cancel) was made, while it is not applied to all items; then null.
    unapplied_since: Mapped[Timestamp | None]
    #: That decision is applied to the items of members up to this id.
    applied_to: Mapped[Id] = mapped_column(server_default=text("0"))
    #: What the trigger asked for, while the batch waits to be planned; null once it was.
    planning: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    #: Whether the source has yet to get its invitations, before anything of the batch is published; false once it has
    #: them. Null where the source gets none.
    needs_placing: Mapped[bool | None]
    #: When the source last said of one of them that it is not ours, or did not take it: a later snapshot decides.
    placing_asked_at: Mapped[Timestamp | None]
    #: The W3C trace context of the trigger, which each message carries; null in batches of versions that had none.
    traceparent: Mapped[Text | None]
    __table_args__ = (
        CheckConstraint(is_one_of("audience", "students", "coaches", "everyone"), name="audience"),
        CheckConstraint(is_one_of("action", "invite"), name="action"),
        CheckConstraint(is_one_of("state", "running", "paused", "cancelled"), name="state"),
        Index("ix_batches_unapplied_since", "id", postgresql_where=text("unapplied_since IS NOT NULL")),
        Index("ix_batches_planning", "id", postgresql_where=text("planning IS NOT NULL")),
        Index("ix_batches_placing", "id", postgresql_where=text("needs_placing")),
        # For retention: few batches have a log, and fewer lose it at the moment.
        Index("ix_batches_with_log", "started_at", postgresql_where=text("archived IS NULL")),
        Index("ix_batches_losing_log", "id", postgresql_where=text("archived ? 'removed_up_to'")),
    )


class BatchItem(Base):
    """Every candidate of a batch: planned with the roles then open, or excluded with the reason.

    `publish_at` is when the item is due for the topic (again) and drives all publishing. `settled_at`: nothing more
    is to be done for this member in this batch.
    """

    __tablename__ = "batch_items"
    # No foreign key, as in the ledger: planning writes what it has just read, and nobody deletes a batch (ADR 44).
    batch_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    roles: Mapped[TextArray]
    excluded: Mapped[Text | None]
    #: Place in the shuffled order of sending; null for the excluded.
    position: Mapped[int | None] = mapped_column(Integer)
    publish_at: Mapped[Timestamp | None]
    topic_id: Mapped[UUID | None]
    partition: Mapped[int | None] = mapped_column(Integer)
    offset: Mapped[int | None] = mapped_column("kafka_offset", BigInteger)
    #: The timestamp of the newest message, in milliseconds since 1970: a replay's message has it again.
    timestamp: Mapped[int | None] = mapped_column("kafka_timestamp", BigInteger)
    #: When the receipt of the newest message was stored.
    published_at: Mapped[Timestamp | None]
    settled_at: Mapped[Timestamp | None]
    __table_args__ = (
        CheckConstraint("(excluded IS NULL) = (cardinality(roles) > 0)", name="planned_or_excluded"),
        CheckConstraint("excluded IS NULL OR settled_at IS NOT NULL", name="excluded_is_settled"),
        CheckConstraint("settled_at IS NULL OR publish_at IS NULL", name="settled_is_not_due"),
        # The order of claims: batches take turns, and in each its new items and those that were published before.
        Index(
            "ix_batch_items_due",
            "batch_id",
            text("(kafka_offset IS NOT NULL)"),
            "publish_at",
            "position",
            postgresql_where=text("publish_at IS NOT NULL"),
        ),
        # On the topic and not settled, in the order of the topic. An item enters it with its receipt; settling adds
        # nothing to any index but the primary key.
        Index(
            "ix_batch_items_published",
            "topic_id",
            "partition",
            "kafka_offset",
            postgresql_where=text("settled_at IS NULL AND publish_at IS NULL AND kafka_offset IS NOT NULL"),
        ),
        # Neither due nor ever on the topic: items of paused batches, and otherwise none.
        Index(
            "ix_batch_items_resting",
            "batch_id",
            postgresql_where=text("settled_at IS NULL AND publish_at IS NULL AND kafka_offset IS NULL"),
        ),
        Index("ix_batch_items_unsettled", "batch_id", "member_id", postgresql_where=text("settled_at IS NULL")),
        # Every item is updated three times, which no index allows to happen in place: vacuum early, before the claims'
        # index is more dead entries than items.
        {"postgresql_with": {"fillfactor": 70, **vacuumed_after(0.02)}},
    )


class Delivery(Base):
    """The ledger: one row per mail that may be sent at most once. It outlives batches and logs.

    `fence` grows with every claim; an outcome is written only under the fence of its own claim. `batch_id` is the
    batch that claimed it last, and so, once sent, the one that sent it. Nothing in it is a foreign key (ADR 44).
    """

    __tablename__ = "deliveries"
    event_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[Text] = mapped_column(primary_key=True)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    slot: Mapped[Text] = mapped_column(primary_key=True)
    role: Mapped[Text]
    state: Mapped[Text] = mapped_column(server_default=text("'planned'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    fence: Mapped[Id] = mapped_column(server_default=text("0"))
    owner: Mapped[Text | None]
    lease_until: Mapped[Timestamp | None]
    not_before: Mapped[Timestamp | None]
    #: When a recipient was first refused for now; a refusal has failed when BIDDEN_RETRY_FOR has passed since.
    first_refused_at: Mapped[Timestamp | None]
    reason: Mapped[Text | None]
    reply: Mapped[Text | None]
    batch_id: Mapped[Id | None]
    updated_at: Mapped[Timestamp]
    __table_args__ = (
        CheckConstraint(is_one_of("slot", "Student", "Coach", "member"), name="slot"),
        CheckConstraint(is_one_of("role", "Student", "Coach"), name="role"),
        CheckConstraint("slot = 'member' OR slot = role", name="slot_of_role"),
        CheckConstraint(
            is_one_of("state", "planned", "handing_off", "sent", "failed", "unknown", "retry", "skipped"),
            name="state",
        ),
        CheckConstraint(
            "state <> 'handing_off' OR (lease_until IS NOT NULL AND owner IS NOT NULL)",
            name="claimed_has_lease",
        ),
        CheckConstraint("state <> 'retry' OR not_before IS NOT NULL", name="retry_has_time"),
        # What the ledger knows of a member: their page, and their deletion. No update changes it.
        Index("ix_deliveries_member_id", "member_id"),
        # Two updates for each mail, in place where the page has room. By default the ledger of ten years would wait for
        # two million dead rows, which no query of a new campaign meets and so none removes.
        {"postgresql_with": {"fillfactor": 70, **vacuumed_after(0.02)}},
    )


class LogEntry(Base):
    """What a batch did for one member and slot. The latest outcome wins; status is in no key.

    `role` is the role used; under the role policy `each` it is the slot.
    """

    __tablename__ = "log_entries"
    # No foreign key: workers write an entry in a transaction that has locked its batch, and a check for every mail
    # would cost time on the hottest path.
    batch_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    slot: Mapped[Text] = mapped_column(primary_key=True)
    role: Mapped[Text]
    status: Mapped[Text]
    reason: Mapped[Text | None]
    attempts: Mapped[int] = mapped_column(Integer)
    at: Mapped[Timestamp]
    partition: Mapped[int | None] = mapped_column(Integer)
    offset: Mapped[int | None] = mapped_column("kafka_offset", BigInteger)
    __table_args__ = (
        CheckConstraint(is_one_of("status", "sent", "failed", "unknown", "skipped", "retry"), name="status"),
        # Few rows: an outcome that arrives late finds every log that calls the delivery unknown.
        Index("ix_log_entries_unknown", "member_id", postgresql_where=text("status = 'unknown'")),
        # What is wrong with a batch, found without reading its log.
        Index(
            "ix_log_entries_wrong", "batch_id", "member_id", postgresql_where=text("status IN ('failed', 'unknown')")
        ),
        # Written once, and removed by retention in chunks, whose space is to be used again soon.
        {"postgresql_with": vacuumed_after(0.02, inserts=0.05)},
    )


class RedrivenDeadLetter(Base):
    """A dead letter that was redriven. Keyed by the topic's id: a topic made again begins at offset 0."""

    __tablename__ = "redriven_dead_letters"
    topic_id: Mapped[UUID] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column("kafka_offset", BigInteger, primary_key=True, autoincrement=False)
    redriven_at: Mapped[Timestamp]


class DiscardedDeadLetter(Base):
    """A dead letter that was set aside for good. It stays on its topic."""

    __tablename__ = "discarded_dead_letters"
    topic_id: Mapped[UUID] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column("kafka_offset", BigInteger, primary_key=True, autoincrement=False)
    discarded_at: Mapped[Timestamp]


class PollInFlight(Base):
    """The offsets of one partition that a worker took in one poll and has not finished: what its end leaves suspect.

    `ends`: how many workers, one after the other, ended with a part of it. `owner` is the key of an advisory lock that
    the worker's session holds: without it the worker has ended.
    """

    __tablename__ = "polls_in_flight"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    owner: Mapped[int] = mapped_column(Integer)
    topic: Mapped[Text]
    partition: Mapped[int] = mapped_column(Integer)
    first_offset: Mapped[Id]
    last_offset: Mapped[Id]
    ends: Mapped[int] = mapped_column(Integer)
    began_at: Mapped[Timestamp]
    # Nothing is lost with them but a suspicion, and they are written for every poll.
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - SQLAlchemy's protocol


class Suspect(Base):
    """A message that is processed by itself, because a worker ended that had it. Removed once it is done.

    `ends`: how many workers ended with it. `owner`: the worker that has it now.
    """

    __tablename__ = "suspects"
    topic: Mapped[Text] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column("kafka_offset", BigInteger, primary_key=True, autoincrement=False)
    #: Tells it from a message at the same offset of a topic made again.
    timestamp: Mapped[Id]
    ends: Mapped[int] = mapped_column(Integer)
    owner: Mapped[int | None] = mapped_column(Integer)
    seen_at: Mapped[Timestamp]
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - SQLAlchemy's protocol
