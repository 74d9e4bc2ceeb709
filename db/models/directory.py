"""The directory: chapters, their mailing lists and members, events, and invitations."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Text, Timestamp, is_one_of, vacuumed_after


class Chapter(Base):
    """A city's chapter."""

    __tablename__ = "chapters"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[Text]
    email: Mapped[Text]
    time_zone: Mapped[Text]


class Group(Base):
    """A mailing list of a chapter. (chapter, name) is deliberately not unique: old data holds duplicates."""

    __tablename__ = "groups"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    chapter_id: Mapped[Id] = mapped_column(ForeignKey("chapters.id"), index=True)
    name: Mapped[Text]
    __table_args__ = (CheckConstraint(is_one_of("name", "Students", "Coaches"), name="name"),)


class Member(Base):
    """A person. A deleted one keeps the row, anonymised, so that the ledger's key keeps its meaning."""

    __tablename__ = "members"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[Text]
    surname: Mapped[Text | None]
    email: Mapped[Text]
    accepted_toc_at: Mapped[Timestamp | None]
    deleted_at: Mapped[Timestamp | None]
    #: The text that a search on the site matches, as the function `search_text` of migration 0018 writes it.
    search: Mapped[Text] = mapped_column(
        Computed("search_text(name || ' ' || coalesce(surname || ' ', '') || email)", persisted=True)
    )
    #: The digest of the address's normal form (`schemas.mailboxes`): members who share one are mailed once. Null for a
    #: deleted member.
    mailbox: Mapped[bytes | None] = mapped_column(LargeBinary, index=True)
    #: Whether another member has the same mailbox, or had it when they were deleted. Kept by the import, so that a
    #: claim costs nothing more for all others.
    shares_mailbox: Mapped[bool] = mapped_column(server_default=text("false"))
    # Deferred: one import may swap the addresses of two members.
    __table_args__ = (
        UniqueConstraint("email", deferrable=True, initially="DEFERRED"),
        Index("ix_members_search_parts", text("search_parts(search)"), postgresql_using="gin"),
        # Few rows.
        Index("ix_members_shares_mailbox", "id", postgresql_where=text("shares_mailbox")),
    )


class FormerMailbox(Base):
    """A mailbox that a member had before their address changed or they were deleted.

    Kept of members who were invited or banned, or left a list: what was promised to a person is found under a new id.
    """

    __tablename__ = "former_mailboxes"
    mailbox: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), primary_key=True, autoincrement=False)


class Subscription(Base):
    """A member on a list, as the directory says. Who left it by a link has an `OptOut`, whatever the directory says."""

    __tablename__ = "subscriptions"
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), primary_key=True, autoincrement=False)
    group_id: Mapped[Id] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )


class OptOut(Base):
    """A person left the lists of a role in a chapter, or, with neither, every list there is. No import changes it.

    It holds for the member and for everybody with the same mailbox (the view `opted_out`), until they or an admin take
    it back.
    """

    __tablename__ = "opt_outs"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), index=True)
    chapter_id: Mapped[Id | None] = mapped_column(ForeignKey("chapters.id"))
    role: Mapped[Text | None]
    left_at: Mapped[Timestamp]
    #: When it was written back into the source of the directory.
    written_back_at: Mapped[Timestamp | None]
    __table_args__ = (
        CheckConstraint(is_one_of("role", "Student", "Coach"), name="role"),
        CheckConstraint("(chapter_id IS NULL) = (role IS NULL)", name="of_a_list_or_of_all"),
        Index(
            "uq_opt_outs_of_list",
            "member_id",
            "chapter_id",
            "role",
            unique=True,
            postgresql_where=text("chapter_id IS NOT NULL"),
        ),
        Index("ix_opt_outs_to_write_back", "id", postgresql_where=text("written_back_at IS NULL")),
        Index("uq_opt_outs_of_all", "member_id", unique=True, postgresql_where=text("chapter_id IS NULL")),
    )


class Ban(Base):
    """A member may have several; any one that is permanent or unexpired counts."""

    __tablename__ = "bans"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(ForeignKey("members.id"), index=True)
    #: The first time at which the ban no longer holds.
    expires_at: Mapped[Timestamp | None]
    permanent: Mapped[bool] = mapped_column(server_default=text("false"))
    __table_args__ = (CheckConstraint("permanent OR expires_at IS NOT NULL", name="ends_or_is_permanent"),)


class Event(Base):
    """Something that members are invited to."""

    __tablename__ = "events"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[Text]
    name: Mapped[Text]
    description: Mapped[Text | None]
    starts_at: Mapped[Timestamp]
    ends_at: Mapped[Timestamp]
    time_zone: Mapped[Text | None]
    invitable: Mapped[bool]
    host_name: Mapped[Text | None]
    host_address: Mapped[Text | None]
    role_policy: Mapped[Text] = mapped_column(server_default=text("'each'"))
    cancelled_at: Mapped[Timestamp | None]
    #: What the organisation calls it.
    ref: Mapped[Text | None]
    #: The widest audience that may be invited; null: everyone.
    audience: Mapped[Text | None]
    #: The pattern of the links where members answer; null: our own page.
    rsvp_url: Mapped[Text | None]
    __table_args__ = (
        # Deferred: one import may swap the references of two events.
        UniqueConstraint("ref", deferrable=True, initially="DEFERRED"),
        CheckConstraint(is_one_of("audience", "students", "coaches", "everyone"), name="audience"),
        CheckConstraint(is_one_of("kind", "workshop", "virtual_workshop", "event"), name="kind"),
        CheckConstraint(is_one_of("role_policy", "each", "one"), name="role_policy"),
        CheckConstraint("ends_at >= starts_at", name="ends_after_start"),
        # The order of the list of events.
        Index("ix_events_starts_at", "starts_at", "id"),
    )


class EventChapter(Base):
    """Which chapters an event belongs to, the first one's time zone being its own unless it has one."""

    __tablename__ = "event_chapters"
    event_id: Mapped[Id] = mapped_column(
        ForeignKey("events.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    chapter_id: Mapped[Id] = mapped_column(ForeignKey("chapters.id"), primary_key=True, autoincrement=False, index=True)
    position: Mapped[int] = mapped_column(Integer)


class Invitation(Base):
    """Where a member answers: one token per event, member and role. No evidence of a mail."""

    __tablename__ = "invitations"
    # No foreign keys: planning makes one for each mail (ADR 44).
    event_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False, index=True)
    role: Mapped[Text] = mapped_column(primary_key=True)
    token: Mapped[Text] = mapped_column(unique=True)
    attending: Mapped[bool | None]
    #: Of a source that gets invitations: `made` here and not placed yet; its row is `ours`, or `theirs`, with this
    #: token; `none`, as it took none. Null: it was not asked.
    placement: Mapped[Text | None]
    __table_args__ = (
        CheckConstraint(is_one_of("role", "Student", "Coach"), name="role"),
        CheckConstraint(is_one_of("placement", "made", "ours", "theirs", "none"), name="placement"),
        # Few of them have an answer: queries about a whole event need not read the others.
        Index(
            "ix_invitations_answers",
            "event_id",
            "member_id",
            "attending",
            postgresql_where=text("attending IS NOT NULL"),
        ),
        # As the log.
        {"postgresql_with": vacuumed_after(0.02, inserts=0.05)},
    )
