"""Query strings of addresses within the site and the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode


def query_string(**values: Any) -> str:
    """`?name=value&…` without empty values; nothing if all are empty."""
    given = {name: value for name, value in values.items() if value not in (None, "", 0)}
    return f"?{urlencode(given)}" if given else ""
