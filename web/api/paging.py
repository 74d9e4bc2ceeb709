"""Pages of lists: the parameters that ask for one, and the address of the next."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request

from web.api.caller import LARGEST, PLAIN
from web.pages.rendering import query

Words = Annotated[str, Query(max_length=200, description="Words that the name holds.")]
Skip = Annotated[int, Query(ge=0, le=1_000_000, description="How many to leave out, from the beginning."), PLAIN]
After = Annotated[int, Query(ge=0, le=LARGEST, description="The member that the page before ended with."), PLAIN]
AfterRole = Annotated[str, Query(max_length=20, description="And the role that she was planned for there.")]


def next_page(request: Request, has_more: bool, **values: Any) -> str | None:
    """The address of the next page; None when this is the last one."""
    return request.url.path + query(**values) if has_more else None
