"""Migrates the database to the newest revision, and finds where it differs from the models."""

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

from db.connect import open_session, unreachable
from db.models import Base
from db.session import MIGRATION
from db.statements import functions, sql

_FOLDER = Path(__file__).parent / "migrations"
#: What the models do not say.
_TRIGGERS = {
    "deliveries_sent_is_final",
    "deliveries_sent_is_kept",
    "deliveries_note_outcomes",
    "deliveries_note_first_outcome",
}


def engine_for(url: str) -> Engine:
    """An SQLAlchemy engine over psycopg 3 that keeps no connections.

    libpq parses the address: SQLAlchemy does not support all of its forms, such as several hosts.
    """
    return create_engine("postgresql+psycopg://", creator=lambda: _open(url), poolclass=NullPool)


def _open(url: str) -> psycopg.Connection[Any]:
    conn = open_session(url, "bidden-migrate", MIGRATION, migrates=True)
    conn.autocommit = False
    return conn


def own_version_table(connection: Connection) -> dict[str, Any]:
    """Alembic's options for the version in the first schema of the search_path: a later one may be another's."""
    return {"version_table_schema": connection.execute(text("SELECT current_schema()")).scalar()}


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """UnreachableError when there is no connection; the driver's error for what the server refuses."""
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
    """The newest revision, which this code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def upgrade(url: str) -> str:
    """Migrate to head; safe to repeat and to run twice at once. Returns the revision.

    UnreachableError when there is no connection; the driver's error for what the server refuses.
    """
    with _connected(url) as connection:
        connection.execute(text(sql("lock_migrations")))
        connection.commit()
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return head()


def current(url: str) -> str | None:
    """The revision of the database; None for an empty one."""
    with _connected(url) as connection:
        return MigrationContext.configure(connection, opts=own_version_table(connection)).get_current_revision()


def drift(url: str) -> list[str]:
    """The changes that would make the database match the models, as text; empty when it does."""
    with _connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = [_described(difference) for difference in compare_metadata(context, Base.metadata)]
        existing = {row.name for row in connection.execute(text(sql("guards")))}
    # Alembic does not compare these.
    return differences + [f"missing {name}" for name in sorted(_guards() - existing)]


def _described(difference: Any) -> str:
    """Alembic's difference as text: an operation and its object; changes of one column come as a list."""
    if isinstance(difference, list):
        return ", ".join(_described(part) for part in difference)
    verb, *rest = difference
    return " ".join([verb, *(str(getattr(thing, "name", thing)) for thing in rest if thing is not None)])


def _guards() -> set[str]:
    checks = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    return checks | _TRIGGERS | set(functions().values())
