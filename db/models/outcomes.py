"""The outbox of the topic of outcomes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Identity
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, Id


class OutcomeOutbox(Base):
    """The outcomes of one statement, for the topic; removed once they are there.

    Triggers of the ledger write them, in the transaction of the outcomes. Each is an array of the ledger's columns:
    event, action, member, slot, role, state, fence, batch, time.
    """

    __tablename__ = "outcome_outbox"
    id: Mapped[Id] = mapped_column(Identity(always=True), primary_key=True)
    outcomes: Mapped[list[Any]] = mapped_column(JSONB)
