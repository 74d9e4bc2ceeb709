"""What all models share: the types of columns and the naming convention of constraints."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

Timestamp = Annotated[datetime, mapped_column(sa.DateTime(timezone=True))]
Id = Annotated[int, mapped_column(sa.BigInteger)]
Text = Annotated[str, mapped_column(sa.Text)]
TextArray = Annotated[list[str], mapped_column(sa.ARRAY(sa.Text))]


def is_one_of(column: str, *values: str) -> str:
    """The SQL of a check that the column holds one of these values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def vacuumed_after(dead: float, *, inserts: float | None = None) -> dict[str, float]:
    """Storage parameters: autovacuum comes when this share of the rows is dead, or new; by default a fifth.

    The thresholds keep it from a small table that changes all the time.
    """
    parameters: dict[str, float] = {"autovacuum_vacuum_scale_factor": dead, "autovacuum_vacuum_threshold": 5000}
    if inserts is not None:
        parameters["autovacuum_vacuum_insert_scale_factor"] = inserts
    return parameters


class Base(DeclarativeBase):
    """Constraints are named by convention, so that an error message says what was violated."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
