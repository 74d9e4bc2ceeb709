"""Databases for organisations, on the server of the ledger's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.databases import database_of


@contextmanager
def own_database(ledger: str) -> Iterator[str]:
    """The address of an empty database beside the one at the address `ledger`."""
    name = f"own_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(ledger, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield database_of(ledger, name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
