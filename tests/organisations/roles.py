"""Roles in an organisation's own database, with the rights that a page or a source file names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.organisations.organisation import OwnDatabase


@contextmanager
def role(own: OwnDatabase, grants: LiteralString) -> Iterator[str]:
    """The address for a role with these rights alone; `{0}` in the grants stands for its name."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    own.conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
    own.conn.execute(sql.SQL(grants).format(sql.Identifier(name)))
    where = conninfo_to_dict(own.url)
    try:
        yield f"postgresql://{name}:x@{where['host']}:{where['port']}/{where['dbname']}"
    finally:
        own.conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))
