"""The W3C trace context (`traceparent`, version 00): a place in a trace, read strictly and written. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """A span of a trace, in lower-case hexadecimal digits. `sampled`: whether its spans are recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        """The header `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


@lru_cache(maxsize=1024)
def parse(text: str | None) -> TraceContext | None:
    """What a `traceparent` names. None for anything that is not valid: the caller is not refused for it."""
    match = _FORM.fullmatch(text or "")
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
