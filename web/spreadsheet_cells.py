"""Cells of CSV files that people open in a spreadsheet: what members chose as their names never runs there. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

#: Line ends, tabs and other controls: some programs end a row or a cell at them, quoted or not.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: At the start, and after what is a separator in some locale (the semicolon in most of Europe), behind white space and
#: quotes: a character that begins a formula, as such or in its full width.
_FORMULA: Final = re.compile(r"(^|[;|])([\s\"\u200b\u2060\ufeff]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def safe_cell(value: Any) -> Any:
    """The value for `csv.writer`: a text in one line, with an apostrophe before each formula; times in ISO 8601."""
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'\2", _CONTROLS.sub(" ", value))
    return value.isoformat() if hasattr(value, "isoformat") else value
