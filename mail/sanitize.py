"""Makes text from the directory fit for a mail: no control characters in lines, paragraphs for descriptions.

Names and descriptions may hold anything, line breaks included. A control character in a header would begin
another header, and NUL delimits the placeholders of a compiled template: these functions remove both.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# C0, DEL, C1, and the two separators that Unicode counts as line ends. Format characters (zero-width joiners,
# directional marks) stay: Persian, Hindi and Hebrew names are misspelt without them.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")

#: Classes of characters (UAX 9) that run from right to left, or make others do so.
_FROM_THE_RIGHT: Final = frozenset(("R", "AL", "AN", "RLE", "RLO", "RLI"))

#: What stands where a text was cut.
_CUT: Final = "…"


def shortened(text: str, most: int) -> str:
    """The text, or as much of it as leaves room for an ellipsis. Records of earlier versions may be of any length."""
    return text if len(text) <= most else f"{text[: most - 1]}{_CUT}"


def without_surrogates(text: str) -> str:
    """The text as it can be encoded."""
    return _SURROGATES.sub("\ufffd", text)


def one_line(text: str) -> str:
    """The text in one line: each run of control characters is one space, outer white space is gone."""
    return _CONTROLS.sub(" ", without_surrogates(text)).strip()


def paragraphs(text: str) -> tuple[tuple[str, ...], ...]:
    """The paragraphs of a plain text, each as its lines; blank lines separate them, control characters are spaces."""
    found: list[tuple[str, ...]] = []
    lines: list[str] = []
    for raw in (*without_surrogates(text).splitlines(), ""):
        line = (raw if raw.isprintable() else _CONTROLS.sub(" ", raw)).rstrip()
        if line:
            lines.append(line)
        elif lines:
            found.append(tuple(lines))
            lines = []
    return tuple(found)


def isolated(text: str) -> str:
    """The text as an island in a line of plain text, if any of it runs from right to left."""
    turns = not text.isascii() and any(unicodedata.bidirectional(character) in _FROM_THE_RIGHT for character in text)
    return f"\u2068{text}\u2069" if turns else text
