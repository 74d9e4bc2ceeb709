"""Questions whose answer must always be none: rows that contradict each other, items that are stuck.

For `bidden doctor`. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from db.connect import Connection
from db.statements import sql

#: Statement that counts, and what the count means when it is not 0.
_CHECKS: Final = (
    ("unmarked_planned", "planned deliveries that no batch will hand over"),
    ("stuck_items", "items neither settled, nor due, nor on the topic"),
    ("overdue_items", "items due for over a minute: no dispatcher is running"),
    ("expired_hand_overs", "hand-overs whose lease ended over ten minutes ago"),
    ("logs_without_ledger", "log entries that the ledger contradicts"),
    ("doubled_invitations", "deliveries under both role policies of an event"),
)


def version(conn: Connection) -> str:
    """The server's version."""
    return str(conn.info.parameter_status("server_version"))


def impossible(conn: Connection) -> Iterator[tuple[str, int, str]]:
    """Each check's name, how many rows it found, and what those are."""
    for name, meaning in _CHECKS:
        row = conn.execute(sql(f"check_{name}")).fetchone()
        assert row is not None
        yield name.replace("_", " "), row["n"], meaning
