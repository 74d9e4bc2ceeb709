"""Which batches wait for the source to get their invitations; `db.placing` hands these over."""

from __future__ import annotations

from collections.abc import Sequence

from db.connect import Connection
from db.statements import sql


def follow_snapshot(conn: Connection, *, gets_invitations: bool) -> None:
    """Within the transaction of a snapshot: batches wait for what this source is yet to get, or no longer do."""
    if gets_invitations:
        # The few open items are looked up one by one; what a snapshot joins is whole tables.
        conn.execute("SET LOCAL enable_nestloop = on")
        close_unplaced(conn)
    else:
        conn.execute(sql("open_all_batches"))


def close_unplaced(conn: Connection, batches: Sequence[int] | None = None) -> None:
    """Batches wait again, of which an invitation is open that the source was not asked for. `batches`: these alone.

    Called in the transaction that makes such a one, or plans a delivery again. Does nothing where the source gets none.
    """
    conn.execute(sql("close_unplaced_batches"), {"batches": None if batches is None else list(batches)})
