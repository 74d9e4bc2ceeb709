"""Dependencies that routes of the pages and of the API share: settings, connections, ids in paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from pydantic import BeforeValidator, Field

from config.settings import Settings
from db.connect import Connection
from schemas import limits
from schemas.event_fields import MAX_ID as MAX_ID
from schemas.event_fields import parse_event_name
from schemas.trace_context import TraceContext, parse
from web.database import connection

#: An event by its id or its reference.
NamedEvent = Annotated[
    Annotated[int, Field(ge=1, le=MAX_ID)] | Annotated[str, Field(min_length=1, max_length=limits.EVENT_REF)],
    BeforeValidator(parse_event_name),
]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


def settings_of(request: Request) -> Settings:
    """The settings of this process."""
    settings: Settings = request.app.state.settings
    return settings


def incoming_trace(request: Request) -> TraceContext | None:
    """The caller's trace, by the one header `traceparent`; one that is not valid is as none."""
    found = request.headers.getlist("traceparent")
    return parse(found[0]) if len(found) == 1 else None


IncomingTrace = Annotated[TraceContext | None, Depends(incoming_trace)]
Config = Annotated[Settings, Depends(settings_of)]
#: Returned to the pool before the response is sent: a stream holds no connection.
Database = Annotated[Connection, Depends(connection, scope="function")]
