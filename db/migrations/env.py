"""Alembic's entry point: migrates the given connection, or BIDDEN_DATABASE_URL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from config.settings import Settings
from db.migrate import engine_for, own_version_table
from db.models import Base


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        # With its schema named, Alembic would take its own table for one that no model has.
        include_name=lambda name, kind, _: (kind, name) != ("table", "alembic_version"),
        **own_version_table(connection),
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with engine_for(Settings.load().require_database()).connect() as connection:
        _run(connection)
