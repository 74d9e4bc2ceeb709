"""Parameters that routes of the API share, and the address of a list's next page."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import Path, Query, Request
from pydantic import BeforeValidator

from web.dependencies import MAX_ID, NamedEvent
from web.urls import query_string

_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")


def _plain(value: Any) -> Any:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number in plain digits")
    return value


#: A number in plain digits: neither 1.0 nor 1_0 nor the digits of other scripts.
PLAIN: Final = BeforeValidator(_plain)
#: A route with it has `{event:path}`: a reference may hold slashes.
PathEvent = Annotated[
    NamedEvent, Path(alias="event", description="The event's id, or its `ref`. Slashes in it may stand as they are.")
]
BatchId = Annotated[int, Path(alias="batch", ge=1, le=MAX_ID, description="The batch's id."), PLAIN]
MemberId = Annotated[int, Path(alias="member", ge=1, le=MAX_ID, description="The member's id."), PLAIN]
SearchText = Annotated[str, Query(max_length=200, description="Text that the name or the ref contains.")]
Skip = Annotated[int, Query(ge=0, le=1_000_000, description="How many items to skip."), PLAIN]
After = Annotated[int, Query(ge=0, le=MAX_ID, description="The last member of the previous page."), PLAIN]
AfterRole = Annotated[str, Query(max_length=20, description="The role of that last member.")]


def next_page(request: Request, has_more: bool, **values: Any) -> str | None:
    """The address of the next page; None on the last one."""
    return request.url.path + query_string(**values) if has_more else None
