"""The tables as SQLAlchemy models: the one description that the migrations are checked against.

The models are for the schema and for tools; reading and writing goes through the named statements in `db/sql`. All
times are `timestamptz`.
"""

from __future__ import annotations

from db.models import campaigns, directory, outcomes, sending, site, source
from db.models.base import Base

__all__ = ["Base", "campaigns", "directory", "outcomes", "sending", "site", "source"]
