"""The tables of the sending rates: what is set, what was learned, what was used. All workers share them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, CheckConstraint, Double, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Text, Timestamp


class SendRateSettings(Base):
    """At most one row: the rates that an admin set on the site, which hold instead of the environment's."""

    __tablename__ = "send_rate_settings"
    is_set: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    rate: Mapped[Text | None]
    rate_domain: Mapped[Text | None]
    warmup: Mapped[Text | None]
    set_by: Mapped[Text]
    set_at: Mapped[Timestamp]
    __table_args__ = (CheckConstraint("is_set", name="one_row"),)


class SendLimit(Base):
    """A scope that is limited: the mail server (empty text), or a recipient domain. Locked to grant mails."""

    __tablename__ = "send_limits"
    scope: Mapped[Text] = mapped_column(primary_key=True)
    #: Up to when the pace is used up.
    paced_to: Mapped[Timestamp | None]
    #: Grants of the last second: [[when, mails], …], when in seconds since the epoch.
    recent: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    #: The slot of the last delivery that was put back.
    queued_to: Mapped[Timestamp | None]
    #: Mails by day, and when the first of them was granted.
    warmup: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    warmup_started: Mapped[Timestamp | None]
    #: Mails a second that the server took when it last asked for fewer; null: no rate is learned.
    ceiling: Mapped[float | None] = mapped_column(Double)
    clean_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    grown_at: Mapped[Timestamp | None]
    #: The last pause; 0 once mails pass again.
    pause_seconds: Mapped[float] = mapped_column(Double, server_default=text("0"))
    paused_until: Mapped[Timestamp | None]
    probe_until: Mapped[Timestamp | None]
    throttled_at: Mapped[Timestamp | None]
    #: The throttling reply, without addresses.
    reply: Mapped[Text | None]
    updated_at: Mapped[Timestamp]


class SendUsage(Base):
    """Mails by scope and time. `seconds` is the window that the bucket serves, 0 for mails accepted per second."""

    __tablename__ = "send_usage"
    scope: Mapped[Text] = mapped_column(primary_key=True)
    seconds: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    bucket: Mapped[Timestamp] = mapped_column(primary_key=True)
    mails: Mapped[int] = mapped_column(Integer)
