"""The tables of a source: an organisation's own database or file, of which complete snapshots are taken."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, Identity, Integer, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id, Text, TextArray, Timestamp


class DirectorySource(Base):
    """The newest complete snapshot: one row, and none where there is no source."""

    __tablename__ = "directory_source"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: When the snapshot began, by our database's clock; on a standby, as of when it had replayed its primary.
    began_at: Mapped[Timestamp]
    applied_at: Mapped[Timestamp]
    #: No claim is taken later than this after `began_at`. Null: whenever.
    max_age_seconds: Mapped[float | None] = mapped_column(Double)
    #: Whether it gets the invitations of a batch before their mails go out.
    places: Mapped[bool] = mapped_column(server_default=text("false"))
    #: What was read, by type, and what it changed: {"read": {type: n}, "changed": {type: {"added", ...}}}.
    result: Mapped[dict[str, Any]] = mapped_column(JSONB)
    #: Why a newer snapshot was not taken, and since when there has been none.
    problem: Mapped[Text | None]
    problem_since: Mapped[Timestamp | None]
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class SourceLine(Base):
    """A line of that snapshot that was imported, so that the next one need look only at others.

    An import by hand may change the directory under it, and removes all of them.
    """

    __tablename__ = "source_lines"
    #: MD5 of the line as the source wrote it.
    digest: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    #: As `db.import_staging` has them.
    type: Mapped[Text]
    first_id: Mapped[Id]
    second_id: Mapped[Id | None]
    role: Mapped[Text | None]
    deleted: Mapped[bool]
    unique_value: Mapped[Text | None]
    record: Mapped[Text]
    #: The records that it refers to, as `type/id`.
    refs: Mapped[TextArray]


class ReportedBatch(Base):
    """What the source was given of a batch (`report` in its file)."""

    __tablename__ = "reported_batches"
    batch_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    #: MD5 of the batch's numbers as they were given; null while the source has not taken it.
    digest: Mapped[Text | None]
    #: It has ended and the source has all of it: only failed and unknown entries may still change.
    is_settled: Mapped[bool]
    reported_at: Mapped[Timestamp | None]
    #: When the source last did not take it.
    refused_at: Mapped[Timestamp | None]


class ReportedEntry(Base):
    """An outcome, or an exclusion, as the source was given it. Of a settled batch those alone that may still change."""

    __tablename__ = "reported_entries"
    batch_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    member_id: Mapped[Id] = mapped_column(primary_key=True, autoincrement=False)
    #: Empty for who was excluded at planning.
    slot: Mapped[Text] = mapped_column(primary_key=True)
    status: Mapped[Text]
    #: MD5 of the reason, which may be a server's text.
    reason_digest: Mapped[Text | None]


class SetAsideLine(Base):
    """A line of that snapshot that could not be used, and why. Nothing of it is in the directory."""

    __tablename__ = "set_aside_lines"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    type: Mapped[Text]
    #: The key of its record, as far as it could be read: ids, and a role, with slashes between them.
    key: Mapped[Text]
    field: Mapped[Text | None]
    problem: Mapped[Text]
    #: Whom and what it is about, as far as that could be read.
    member_id: Mapped[Id | None] = mapped_column(index=True)
    event_id: Mapped[Id | None]
