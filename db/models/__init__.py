"""The tables, as SQLAlchemy models: the one description that the migrations are checked against.

The models are for the schema and for tools. Reading and writing goes through the named statements in `db/sql`,
which work on sets. Every constraint and index has a name that can be read in an error message. All times are
`timestamptz`.
"""

from __future__ import annotations

from db.models import campaigns, directory, site
from db.models.base import Base

__all__ = ["Base", "campaigns", "directory", "site"]
