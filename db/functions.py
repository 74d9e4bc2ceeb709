"""The functions of `db/sql`, which migrations install and drop.

The name of each ends with a digest of its text: while workers are upgraded one after another, each calls the one that
it was written for. A changed text needs a new migration, and a test says so.
"""

from __future__ import annotations

from sqlalchemy import Connection

from db.statements import definition


def install(connection: Connection, names: dict[str, str]) -> None:
    """Create these functions as they stand now. `names` are those that the migration was written for.

    What has changed since is installed by a later migration, so this one has nothing to do for it.
    """
    for function, name in names.items():
        current, text = definition(function)
        if current == name:
            connection.exec_driver_sql(text)


def drop(connection: Connection, names: dict[str, str]) -> None:
    """Drop what `install` created."""
    for name in names.values():
        connection.exec_driver_sql(f"DROP FUNCTION IF EXISTS {name}")
