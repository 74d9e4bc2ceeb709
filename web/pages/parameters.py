"""Query and form parameters that several pages share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Query

from web.dependencies import MAX_ID

#: How many rows to skip: no page offers more.
Skip = Annotated[int, Query(ge=0, le=1_000_000)]
#: The id of the last member on the previous page.
After = Annotated[int, Query(ge=0, le=MAX_ID)]
SearchText = Annotated[str, Query(max_length=200)]
#: What the page is to report as done, as `rendering.redirect` signed it. Anything else is ignored.
Notice = Annotated[str, Query(alias="said")]
FormText = Annotated[str, Form(max_length=1000)]
