"""Deletion that erases: takes a member out of all that servers and people wrote, before their own row is anonymised.

Called by `db.directory`, in the import's transaction. The directory's own texts about events and chapters stay: its
next import would write them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.statements import sql
from schemas.redaction import identifying

#: Members in one expression: PostgreSQL compiles it once for each statement.
_TOGETHER: Final = 50


def erase(conn: Connection, rows: str) -> None:
    """`rows` is a JSON array of objects with the `id` of members who are to be deleted; others are skipped."""
    members = conn.execute(sql("members_to_erase"), {"rows": rows}).fetchall()
    before = conn.execute("SELECT current_setting('enable_nestloop') AS value").fetchone()
    assert before is not None
    # A large import joins whole tables; these look up what they need of ledger and log, which are larger still.
    conn.execute("SET LOCAL enable_nestloop = on")
    for first in range(0, len(members), _TOGETHER):
        _erase(conn, members[first : first + _TOGETHER])
    conn.execute("SELECT set_config('enable_nestloop', %s, true)", (before["value"],))


def _erase(conn: Connection, members: Sequence[dict[str, Any]]) -> None:
    found = [(member, identifying(member["name"], member["surname"], member["email"])) for member in members]
    about = {"members": Jsonb([{"id": member["id"], "own": names.own} for member, names in found])}
    conn.execute(sql("erase_in_replies"), {"anywhere": "|".join(names.anywhere for _, names in found)})
    for statement in ("erase_in_first_errors", "erase_in_deliveries", "erase_in_log"):
        conn.execute(sql(statement), about)
    people = [names.anywhere for member, names in found if not member["has_account"]]
    if people:
        conn.execute(sql("erase_in_words_of_people"), {"anywhere": "|".join(people)})
