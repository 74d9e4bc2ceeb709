"""The least that each process may do in the database: what `doctor` looks for; deploy/grants.sql is written from it.

`migrate` owns the schema, and so do `backup`, `restore` and `reconcile`. A statement that needs more is refused by
PostgreSQL, and a test of a campaign with exactly these rights says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from psycopg.types.json import Jsonb

from config.rights import Process
from db.connect import Connection
from db.statements import functions, sql

#: Tables and views by what is needed of them. Who locks rows needs UPDATE, or DELETE, of them.
_TABLES: Final[dict[Process, dict[str, str]]] = {
    Process.WORKER: {
        "SELECT": (
            "alembic_version bans chapters directory_source event_chapters event_subscriptions events invitations "
            "members same_person send_rate_settings"
        ),
        "SELECT UPDATE": "batch_items batches deliveries",
        "SELECT INSERT UPDATE": "log_entries",
        # By the triggers of the ledger, as for all that write outcomes.
        "INSERT": "outcome_outbox",
        "SELECT INSERT UPDATE DELETE": "polls_in_flight send_limits send_usage suspects",
    },
    Process.DISPATCHER: {
        "SELECT": (
            "alembic_version bans directory_source discarded_dead_letters event_chapters event_subscriptions groups "
            "members opted_out redriven_dead_letters same_person send_rate_settings set_aside_lines subscriptions"
        ),
        "SELECT UPDATE DELETE": (
            "audit_log batch_webhooks password_resets send_limits send_usage sessions sign_in_attempts sign_in_requests"
        ),
        "SELECT INSERT UPDATE DELETE": "batch_items invitations log_entries",
        "SELECT INSERT UPDATE": "batches deliveries",
        "SELECT UPDATE": "events",
        "SELECT INSERT DELETE": "outcome_outbox",
    },
    Process.WEB: {
        "SELECT INSERT DELETE": "account_chapters opt_outs password_resets subscriptions",
        "SELECT INSERT UPDATE": (
            "accounts api_clients audit_log batch_webhooks batches chapters deliveries events members "
            "redriven_dead_letters"
        ),
        "SELECT": (
            "alembic_version directory_source event_subscriptions opted_out same_person send_usage set_aside_lines"
        ),
        "SELECT DELETE": "source_lines",
        "SELECT INSERT UPDATE DELETE": (
            "bans batch_items event_chapters groups invitations log_entries send_rate_settings sessions "
            "sign_in_attempts sign_in_requests"
        ),
        "SELECT INSERT": "discarded_dead_letters former_mailboxes",
        "SELECT UPDATE": "send_limits",
        "INSERT": "outcome_outbox",
    },
    Process.OPERATOR: {
        "SELECT INSERT DELETE": "account_chapters subscriptions",
        "SELECT INSERT": "accounts discarded_dead_letters former_mailboxes",
        "SELECT": "alembic_version event_subscriptions opted_out same_person send_rate_settings",
        "SELECT UPDATE": "api_clients opt_outs",
        "SELECT INSERT UPDATE DELETE": (
            "audit_log bans batch_items directory_source event_chapters groups invitations log_entries "
            "reported_batches reported_entries set_aside_lines source_lines"
        ),
        "SELECT UPDATE DELETE": (
            "batch_webhooks password_resets send_limits send_usage sessions sign_in_attempts sign_in_requests"
        ),
        "SELECT INSERT UPDATE": "batches chapters deliveries events members redriven_dead_letters",
        "INSERT": "outcome_outbox",
    },
}
#: Tables whose statistics the process brings up to date after many changes (MAINTAIN; from PostgreSQL 17 on). Without
#: it the next autovacuum does.
_ANALYSED: Final[dict[Process, str]] = {
    Process.DISPATCHER: "batch_items deliveries invitations",
    Process.WEB: "batch_items deliveries invitations members subscriptions",
    Process.OPERATOR: "batch_items deliveries invitations members subscriptions",
}
#: Who calls our functions.
CALLERS: Final = (Process.WORKER,)
#: Who counts the sessions of other users: the dispatchers.
SEES_SESSIONS: Final = (Process.WEB, Process.OPERATOR)
SESSIONS_ROLE: Final = "pg_read_all_stats"
_POSTGRESQL_17: Final = 170_000


def table_rights(process: Process) -> list[tuple[str, tuple[str, ...]]]:
    """Each table or view, and the privileges that the process needs of it."""
    wanted = {
        table: tuple(privileges.split())
        for privileges, tables in _TABLES.get(process, {}).items()
        for table in tables.split()
    }
    return sorted(wanted.items())


def analysed(process: Process) -> list[str]:
    """The tables that the process analyses."""
    return _ANALYSED.get(process, "").split()


def missing(conn: Connection, processes: Iterable[Process], *, advised: bool = True) -> list[str]:
    """What the connected user lacks of what these processes need: `UPDATE on batch_items (worker)`.

    `advised`: also what a process does without, and says less or is slower.
    """
    chosen = list(processes)
    found = _find(conn, chosen, [(process, table_rights(process)) for process in chosen])
    if advised:
        found += _find(conn, (), [(process, _maintained(conn, process)) for process in chosen])
        # One user for all sees the sessions of its dispatchers, which are its own.
        if set(SEES_SESSIONS) & set(chosen) and missing(conn, [Process.DISPATCHER], advised=False):
            found += [row["name"] for row in conn.execute(sql("missing_membership"), {"role": SESSIONS_ROLE})]
    return found


def _find(
    conn: Connection, chosen: Sequence[Process], rights: Iterable[tuple[Process, Sequence[tuple[str, Sequence[str]]]]]
) -> list[str]:
    wanted = [
        {"process": process.value, "relation": table, "privilege": privilege}
        for process, tables in rights
        for table, privileges in tables
        for privilege in privileges
    ]
    parameters = {
        "wanted": Jsonb(wanted),
        "functions": list(functions().values()) if set(CALLERS) & set(chosen) else [],
        "owns": Process.MIGRATE in chosen,
    }
    return [row["name"] for row in conn.execute(sql("missing_rights"), parameters)]


def _maintained(conn: Connection, process: Process) -> list[tuple[str, tuple[str, ...]]]:
    if conn.info.server_version < _POSTGRESQL_17:
        return []
    return [(table, ("MAINTAIN",)) for table in analysed(process)]
