"""The directory: who there is, and what they are asked to."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Moment, Words, is_one_of


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
    __table_args__ = (CheckConstraint(is_one_of("name", "Students", "Coaches"), name="name"),)


class Member(Base):
    """A person. A deleted one keeps the row, anonymised, so that the ledger's key keeps its meaning."""

    __tablename__ = "members"
    id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[Words]
    surname: Mapped[Words | None]
    email: Mapped[Words]
    accepted_toc_at: Mapped[Moment | None]
    deleted_at: Mapped[Moment | None]
    #: What a search on the site looks through.
    search: Mapped[Words] = mapped_column(
        Computed("lower(name || ' ' || coalesce(surname || ' ', '') || email)", persisted=True)
    )
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
        CheckConstraint(is_one_of("kind", "workshop", "virtual_workshop", "event"), name="kind"),
        CheckConstraint(is_one_of("role_policy", "each", "one"), name="role_policy"),
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
    __table_args__ = (
        CheckConstraint(is_one_of("role", "Student", "Coach"), name="role"),
        # Few of them have an answer: whoever looks at everybody of an event need not read the others.
        Index(
            "ix_invitations_answers",
            "event_id",
            "member_id",
            "attending",
            postgresql_where=text("attending IS NOT NULL"),
        ),
    )
