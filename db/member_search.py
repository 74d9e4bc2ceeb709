"""Members by what a person types: words in any order, without accents, apostrophes and hyphens (`members.search`)."""

from __future__ import annotations

from typing import Any, Final

from db.connect import Connection
from db.statements import sql

#: So many members are named one by one to the statements that search a batch's log.
_FEW: Final = 5000


def words(conn: Connection, search: str) -> dict[str, Any]:
    """The parameters of the fragments `holds_words` and `matches_search`, without `few`."""
    found: dict[str, Any] = {"patterns": [], "parts": []}
    if search:
        # As in a list of names: "O'Neill, Sean".
        (found,) = conn.execute(sql("search_words"), {"search": search.replace(",", " ")}).fetchall()
    return {"search": search, "search_id": _as_id(search), **found}


def few(conn: Connection, searched: dict[str, Any]) -> list[int] | None:
    """The members who hold these words; None if they are many, or the index does not find them."""
    if not searched["parts"]:
        return None
    # Not prepared: the right plan for a rare word is wrong for a common one.
    found = conn.execute(sql("search_few"), {**searched, "limit": _FEW + 1}, prepare=False).fetchall()
    return [row["id"] for row in found] if len(found) <= _FEW else None


def _as_id(search: str) -> int | None:
    """The id that the text is, in the form that ids are shown in; None for any other text."""
    if not (search.isascii() and search.isdigit()) or (search[0] == "0" and search != "0"):
        return None
    return int(search) if len(search) < 20 and int(search) < 2**63 else None
