"""Brings the database to the newest schema, and says where it differs from the models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from db.connect import unreachable
from db.models import Base
from db.statements import sql

_FOLDER = Path(__file__).parent / "migrations"
#: Any constant: two `bidden migrate` at once take turns on it.
_LOCK = 0x62696464656E


def engine_for(url: str) -> Engine:
    """An SQLAlchemy engine over psycopg 3 that keeps no connections.

    The address is libpq's to read: SQLAlchemy knows not all that may stand there, several hosts for one.
    """
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """UnreachableError when there is no connection; the driver's error for what the server could not do."""
    try:
        with engine_for(url).connect() as connection:
            yield connection
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate:
            raise error.orig from error
        raise unreachable(url, error.orig if isinstance(error.orig, Exception) else error) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config


def head() -> str:
    """The revision this code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def upgrade(url: str) -> str:
    """Migrate to head; safe to repeat and to run twice at once. Returns the revision.

    UnreachableError when there is no connection; the driver's error for what the server could not do.
    """
    with _connected(url) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return head()


def current(url: str) -> str | None:
    """The revision the database is at; None for an empty one."""
    with _connected(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def drift(url: str) -> list[str]:
    """What would have to change for the database to be as the models say, in words; empty when they agree."""
    with _connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = [_worded(difference) for difference in compare_metadata(context, Base.metadata)]
        there = {row.name for row in connection.execute(text(sql("guards")))}
    # The comparison does not look at these.
    return differences + [f"missing {name}" for name in sorted(_guards() - there)]


def _worded(difference: Any) -> str:
    """A difference as Alembic gives it: what to do, and with what; changes of a column come as a list of them."""
    if isinstance(difference, list):
        return ", ".join(_worded(part) for part in difference)
    verb, *rest = difference
    return " ".join([verb, *(str(getattr(thing, "name", thing)) for thing in rest if thing is not None)])


def _guards() -> set[str]:
    checks = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    return checks | {"deliveries_sent_is_final", "deliveries_sent_is_kept"}
