"""Dependencies that routes of the pages and of the API share: settings, connections, ids in paths."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Path, Request

from config.settings import Settings
from db.connect import Connection
from web.database import connection

#: The largest id that the database can hold.
MAX_ID: Final = 2**63 - 1
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


def settings_of(request: Request) -> Settings:
    """The settings of this process."""
    settings: Settings = request.app.state.settings
    return settings


Config = Annotated[Settings, Depends(settings_of)]
#: Returned to the pool before the response is sent: a stream holds no connection.
Database = Annotated[Connection, Depends(connection, scope="function")]
