"""What the web application shows of audits: the members behind each number, and who cannot come. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from db.connect import Connection
from db.site_queries import PAGE, EventSummary, Page, VisibleMembers
from db.statements import sql
from schemas.vocabulary import Audience


def imported(conn: Connection, event_id: int) -> int:
    """How many mails about the event another system sent, by the ledger."""
    row = conn.execute(sql("count_imported"), {"event_id": event_id}).fetchone()
    assert row is not None
    count: int = row["n"]
    return count


def missing(
    conn: Connection, rows: Sequence[dict[str, Any]], visible: VisibleMembers, *, skip: int = 0, limit: int = 500
) -> Page:
    """Names and addresses of the members that an audit found missing, in its order, after `skip` of them."""
    # Missing members are on a list of the event: unless another chapter holds it too, all of them may be named.
    is_shared = visible.chapters is not None and not visible.unlisted
    asked = rows if is_shared else rows[: skip + limit + 1]
    values = {**visible.parameters(), "missing": Jsonb(list(asked)), "skip": skip, "limit": limit + 1}
    found = conn.execute(sql("browse_missing"), values).fetchall()
    return Page(found[:limit], len(found) > limit or len(asked) < len(rows))


def audited(
    conn: Connection,
    event: EventSummary,
    audience: Audience,
    visible: VisibleMembers,
    *,
    status: str | None = None,
    after: tuple[int, str] = (0, ""),
    limit: int | None = None,
) -> Page:
    """The members behind the numbers of an audit, by member and role: all, or those of one status, `missing` too."""
    values = {
        **visible.parameters(),
        "event_id": event.id,
        "roles": [role for role in event.kind.precedence if role in audience.roles],
        "status": status,
        "after_member": after[0],
        "after_role": after[1],
        "limit": None if limit is None else limit + 1,
    }
    rows = conn.execute(sql("browse_audited"), values, prepare=False).fetchall()
    return Page(rows, has_more=False) if limit is None else Page(rows[:limit], len(rows) > limit)


def lost_answers(conn: Connection, event_id: int, visible: VisibleMembers, *, limit: int = PAGE) -> Page:
    """Who said yes and may no longer come: member, name, role and reason."""
    values = {**visible.parameters(), "event_id": event_id, "limit": limit + 1}
    rows = conn.execute(sql("browse_lost_answers"), values, prepare=False).fetchall()
    return Page(rows[:limit], len(rows) > limit)
