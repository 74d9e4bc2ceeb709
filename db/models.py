"""The tables, as SQLAlchemy models: the one description that the migrations are checked against.

The models are for the schema and for tools. Reading and writing goes through the named statements in `db/sql`,
which work on sets. Every constraint and index has a name that can be read in an error message. All times are
`timestamptz`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Id = Annotated[int, mapped_column(BigInteger)]
Words = Annotated[str, mapped_column(Text)]


def _is_one_of(column: str, *words: str) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


class Base(DeclarativeBase):
    """Names by convention, so that an error message says what was violated."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# The directory: who there is, and what they are asked to.


class Chapter(Base):
    """A city's chapter."""

    __tablename__ = "chapters"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[Words]
    email: Mapped[Words]
    time_zone: Mapped[Words]


class Group(Base):
    """A mailing list of a chapter. (chapter, name) is deliberately not unique: old data holds doubles."""

    __tablename__ = "groups"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    chapter_id: Mapped[Id] = mapped_column(ForeignKey("chapters.id"), index=True)
    name: Mapped[Words]
    __table_args__ = (CheckConstraint(_is_one_of("name", "Students", "Coaches"), name="name"),)


class Member(Base):
    """A person. A deleted one keeps the row, anonymised, so that the ledger's key keeps its meaning."""

    __tablename__ = "members"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[Words]
    surname: Mapped[Words | None]
    email: Mapped[Words]
    accepted_toc_at: Mapped[Moment | None]
    deleted_at: Mapped[Moment | None]
    # Deferred: one import may swap the addresses of two members.
    __table_args__ = (UniqueConstraint("email", deferrable=True, initially="DEFERRED"),)


class Subscription(Base):
    """A member on a list. Taken off by the directory the row goes; who leaves by the link in a mail keeps it.

    So the directory, which still names her at its next import, does not put her on the list again.
    """

    __tablename__ = "subscriptions"
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), primary_key=True, autoincrement=False)
    group_id: Mapped[Id] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )
    left_at: Mapped[Moment | None]


class Ban(Base):
    """A member may have several; any one that is permanent or unexpired counts."""

    __tablename__ = "bans"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), index=True)
    #: The first moment at which the ban no longer holds.
    expires_at: Mapped[Moment | None]
    permanent: Mapped[bool] = mapped_column(server_default=text("false"))
    __table_args__ = (CheckConstraint("permanent OR expires_at IS NOT NULL", name="ends_or_is_permanent"),)


class Event(Base):
    """Something one can be invited to."""

    __tablename__ = "events"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[Words]
    name: Mapped[Words]
    description: Mapped[Words | None]
    starts_at: Mapped[Moment]
    ends_at: Mapped[Moment]
    time_zone: Mapped[Words | None]
    invitable: Mapped[bool]
    host_name: Mapped[Words | None]
    host_address: Mapped[Words | None]
    role_policy: Mapped[Words] = mapped_column(server_default=text("'each'"))
    cancelled_at: Mapped[Moment | None]
    __table_args__ = (
        CheckConstraint(_is_one_of("kind", "workshop", "virtual_workshop", "event"), name="kind"),
        CheckConstraint(_is_one_of("role_policy", "each", "one"), name="role_policy"),
        CheckConstraint("ends_at >= starts_at", name="ends_after_start"),
    )


class EventChapter(Base):
    """Which chapters an event belongs to, the first one's time zone being its own unless it has one."""

    __tablename__ = "event_chapters"
    event_id: Mapped[Id] = mapped_column(
        ForeignKey("events.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    chapter_id: Mapped[Id] = mapped_column(ForeignKey("chapters.id"), primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer)


class Invitation(Base):
    """A place to answer at: one token per event, member and role. No evidence of a mail."""

    __tablename__ = "invitations"
    event_id: Mapped[Id] = mapped_column(ForeignKey("events.id"), primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), primary_key=True, autoincrement=False, index=True)
    role: Mapped[Words] = mapped_column(primary_key=True)
    token: Mapped[Words] = mapped_column(unique=True)
    attending: Mapped[bool | None]
    __table_args__ = (CheckConstraint(_is_one_of("role", "Student", "Coach"), name="role"),)


# Batches, and what became of every member in them.


class Batch(Base):
    """One trigger. `completed` is not stored: a batch is complete when none of its items is unsettled."""

    __tablename__ = "batches"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    trigger_key: Mapped[Words | None] = mapped_column(unique=True)
    event_id: Mapped[Id] = mapped_column(ForeignKey("events.id"), index=True)
    audience: Mapped[Words]
    action: Mapped[Words]
    initiator: Mapped[Words]
    shuffle_seed: Mapped[Id]
    state: Mapped[Words] = mapped_column(server_default=text("'running'"))
    started_at: Mapped[Moment]
    cancelled_at: Mapped[Moment | None]
    first_error: Mapped[Words | None]
    #: The batch's numbers, kept by the transaction that removed its items and its log; null while they are there.
    archived: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    __table_args__ = (
        CheckConstraint(_is_one_of("audience", "students", "coaches", "everyone"), name="audience"),
        CheckConstraint(_is_one_of("action", "invite"), name="action"),
        CheckConstraint(_is_one_of("state", "running", "paused", "cancelled"), name="state"),
    )


class BatchItem(Base):
    """Every candidate of a batch: planned with the roles then open, or excluded with the reason.

    `publish_at` is when the item is due for the topic (again) and drives all publishing. `settled_at` says that
    nothing more is to be done for this member in this batch.
    """

    __tablename__ = "batch_items"
    batch_id: Mapped[Id] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    excluded: Mapped[Words | None]
    #: Place in the shuffled order of sending; null for the excluded.
    position: Mapped[int | None] = mapped_column(Integer)
    publish_at: Mapped[Moment | None]
    topic_id: Mapped[UUID | None]
    partition: Mapped[int | None] = mapped_column(Integer)
    offset: Mapped[int | None] = mapped_column("kafka_offset", BigInteger)
    settled_at: Mapped[Moment | None]
    __table_args__ = (
        CheckConstraint("(excluded IS NULL) = (cardinality(roles) > 0)", name="planned_or_excluded"),
        CheckConstraint("excluded IS NULL OR settled_at IS NOT NULL", name="excluded_is_settled"),
        CheckConstraint("settled_at IS NULL OR publish_at IS NULL", name="settled_is_not_due"),
        Index("ix_batch_items_due", "publish_at", postgresql_where=text("publish_at IS NOT NULL")),
        Index("ix_batch_items_unsettled", "batch_id", "member_id", postgresql_where=text("settled_at IS NULL")),
        # Every item is updated about twice; room on the page keeps those updates cheap.
        {"postgresql_with": {"fillfactor": 70}},
    )


class Delivery(Base):
    """The ledger: one row per mail that may be sent at most once. It outlives batches and logs.

    `fence` grows with every mark; an outcome is written only under the fence of its own mark. `batch_id` is the
    batch that marked it last, and so, once sent, the one that sent it. It is no foreign key on purpose.
    """

    __tablename__ = "deliveries"
    event_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[Words] = mapped_column(primary_key=True)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    slot: Mapped[Words] = mapped_column(primary_key=True)
    role: Mapped[Words]
    state: Mapped[Words] = mapped_column(server_default=text("'planned'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    fence: Mapped[Id] = mapped_column(server_default=text("0"))
    owner: Mapped[Words | None]
    lease_until: Mapped[Moment | None]
    not_before: Mapped[Moment | None]
    reason: Mapped[Words | None]
    reply: Mapped[Words | None]
    batch_id: Mapped[Id | None]
    updated_at: Mapped[Moment]
    __table_args__ = (
        ForeignKeyConstraint(["event_id"], ["events.id"]),
        ForeignKeyConstraint(["member_id"], ["members.id"]),
        CheckConstraint(_is_one_of("slot", "Student", "Coach", "member"), name="slot"),
        CheckConstraint(_is_one_of("role", "Student", "Coach"), name="role"),
        CheckConstraint("slot = 'member' OR slot = role", name="slot_of_role"),
        CheckConstraint(
            _is_one_of("state", "planned", "handing_off", "sent", "failed", "unknown", "retry", "skipped"),
            name="state",
        ),
        CheckConstraint(
            "state <> 'handing_off' OR (lease_until IS NOT NULL AND owner IS NOT NULL)",
            name="marked_has_lease",
        ),
        CheckConstraint("state <> 'retry' OR not_before IS NOT NULL", name="retry_has_time"),
        {"postgresql_with": {"fillfactor": 70}},
    )


class LogEntry(Base):
    """What a batch did for one member and slot. The latest outcome wins; status is in no key.

    `role` is the role used; under the role policy `each` it is the slot.
    """

    __tablename__ = "log_entries"
    # No foreign key: `conclude` writes an entry from the very batch that its transaction has locked, and a check
    # for every mail would be paid on the hottest path.
    batch_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    slot: Mapped[Words] = mapped_column(primary_key=True)
    role: Mapped[Words]
    status: Mapped[Words]
    reason: Mapped[Words | None]
    attempts: Mapped[int] = mapped_column(Integer)
    at: Mapped[Moment]
    partition: Mapped[int | None] = mapped_column(Integer)
    offset: Mapped[int | None] = mapped_column("kafka_offset", BigInteger)
    __table_args__ = (
        CheckConstraint(_is_one_of("status", "sent", "failed", "unknown", "skipped", "retry"), name="status"),
        # Few rows: lets a truth that arrives late find every log that calls the delivery unknown.
        Index("ix_log_entries_unknown", "member_id", postgresql_where=text("status = 'unknown'")),
    )


class RedrivenLetter(Base):
    """A dead letter that was put on its source topic again. The topic's id, because offsets begin anew with a topic."""

    __tablename__ = "redriven_letters"
    topic_id: Mapped[UUID] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column("kafka_offset", BigInteger, primary_key=True, autoincrement=False)
    redriven_at: Mapped[Moment]
