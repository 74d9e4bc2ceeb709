"""Deletion erases: whoever looks for a deleted member's name and address finds neither, anywhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from psycopg import sql as psql

from db.connect import Connection
from schemas.outcomes import Failed, Outcome, Retry, Sent, Unknown
from tests.integration.scenario import TERMS_ACCEPTED, Scenario
from tests.integration.site import open_site
from tests.integration.test_migrations import _migrate

#: As a server or a person may write them.
FORMS = (
    "ada.lovelace@bücher.example",
    "ADA.Lovelace@BÜCHER.example",
    "<ada.lovelace@xn--bcher-kva.example>",
    '"Ada Lovelace" <ada.lovelace@bücher.example>',
    "ada.lovelace%40xn--bcher-kva.example",
    "ADA  Lovelace",
)
#: Found anywhere after the deletion, in lower case, they are a leak.
TRACES = ("ada", "lovelace", "bcher", "bücher")
EVERYTHING = " / ".join(FORMS)


def member(**fields: Any) -> dict[str, Any]:
    """Ada."""
    line = {"type": "member", "id": 1, "name": "Ada", "surname": "Lovelace", "email": FORMS[0]}
    return line | {"accepted_toc_at": TERMS_ACCEPTED} | fields


def texts(conn: Connection) -> dict[str, list[str]]:
    """Every row of every table of the schema, as text, by table."""
    tables = conn.execute(
        "SELECT table_name AS name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'"
    ).fetchall()
    queries = {
        t["name"]: psql.SQL("SELECT t::text AS row FROM {} t").format(psql.Identifier(t["name"])) for t in tables
    }
    return {name: [row["row"] for row in conn.execute(query)] for name, query in queries.items()}


def traces(conn: Connection) -> list[str]:
    """The tables that still say something of Ada, with the rows."""
    return [
        f"{table}: {row}"
        for table, rows in texts(conn).items()
        for row in rows
        # A random token or the id of a trace spells a name now and then.
        if any(trace in re.sub(r"\b[0-9a-f]{16,}\b", "", row.lower()) for trace in TRACES)
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        Failed(f"refused: {EVERYTHING}", f"550 {EVERYTHING}"),
        Retry(f"450 {EVERYTHING}", 1, uses=1, reply=f"450 {EVERYTHING}", refused=True),
        Unknown(f"lost: {EVERYTHING}"),
        Sent(f"250 {EVERYTHING}"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_what_a_server_replies(scenario: Scenario, outcome: Outcome) -> None:
    """Recorded without an address; and after the deletion without a name, in the ledger, the logs and the batch."""
    scenario.build(students=[2]).load(member(), {"type": "subscription", "member_id": 1, "group_id": 1})
    batch = scenario.plan()
    scenario.agent().deliver(scenario.request(batch, 1), outcome)
    recorded = [row for table, rows in texts(scenario.conn).items() if table != "members" for row in rows]
    assert not any("@" in row and "deleted" not in row and "cher" in row for row in recorded)
    scenario.load({"type": "member", "id": 1, "deleted": True})
    assert traces(scenario.conn) == []
    reply = scenario.delivery(1)["reply"] or scenario.delivery(1)["reason"]
    assert "(address)" in reply
    assert "(deleted member)" in reply


#: Every text that the database holds of servers and people, as versions without redaction wrote it.
_WRITTEN = """
UPDATE batches SET first_error = %(text)s, initiator = %(text)s, trigger_key = %(text)s;
UPDATE deliveries SET reply = %(text)s, reason = %(text)s WHERE member_id = 1;
INSERT INTO log_entries (batch_id, member_id, slot, role, status, reason, attempts, at)
    SELECT id, 1, 'Student', 'Student', 'failed', %(text)s, 1, now() FROM batches;
INSERT INTO audit_log (at, actor, action, detail, outcome) VALUES (now(), %(text)s, 'invite', %(text)s, 'done');
INSERT INTO sign_in_attempts (key, attempts, since) VALUES ('name ' || %(text)s, 1, now());
INSERT INTO sign_in_requests (state_hash, nonce, verifier, next_path, expires_at)
    VALUES ('x', 'n', 'v', '/members?q=ada.lovelace%%40bücher.example', now());
INSERT INTO accounts (email, name, role, created_at) VALUES ('olga@bidden.example', 'Olga', 'admin', now());
INSERT INTO api_clients (name, account_id, token_hash, scopes, webhook_url, webhook_secret, created_at)
    SELECT %(text)s, id, 'x', '{read}', 'https://bidden.example', 'x', now() FROM accounts;
INSERT INTO batch_webhooks (batch_id, client_id, last_error) SELECT b.id, c.id, %(text)s FROM batches b, api_clients c;
INSERT INTO send_limits (scope, reply, updated_at) VALUES ('', %(text)s, now());
"""


def _write(conn: Connection, text: str) -> None:
    for statement in _WRITTEN.split(";\n"):
        if statement.strip():
            conn.execute(statement.encode(), {"text": text})


def test_what_earlier_versions_kept(scenario: Scenario, database_url: str) -> None:
    """In every table and on every page, in every form of the address and the name; other people's texts stay."""
    scenario.build(students=[2, 3]).load(member(), {"type": "subscription", "member_id": 1, "group_id": 1})
    batch = scenario.plan()
    conn = scenario.conn
    _write(conn, EVERYTHING)
    conn.execute("INSERT INTO audit_log (at, actor, action, detail) VALUES (now(), 'Olga', 'x', 'Bo <bo@example.org>')")
    assert {line.partition(":")[0] for line in traces(conn)} >= {"batches", "deliveries", "log_entries", "audit_log"}
    scenario.load({"type": "member", "id": 1, "deleted": True}, {"type": "member", "id": 3, "deleted": True})
    assert traces(conn) == []
    assert conn.execute("SELECT detail FROM audit_log ORDER BY id DESC LIMIT 1").fetchall()[0]["detail"] == (
        "Bo <bo@example.org>"
    )
    with open_site(database_url, conn) as site:
        admin = site.browser(site.account("root@bidden.example", "admin"))
        for path in (f"/batches/{batch}", f"/batches/{batch}/log.csv", "/members/1", "/events/1", "/trail", "/"):
            page = admin.get(path, follow_redirects=True)
            assert page.status_code == 200, path
            assert not any(trace in page.text.lower() for trace in ("lovelace", "bcher", "bücher")), path


def test_the_trail_of_an_account_is_the_accounts(scenario: Scenario) -> None:
    """A member who is also a user of the site leaves the directory; what the user did stays theirs."""
    scenario.build(students=[2]).load(member(email="ada@bidden.example"))
    conn = scenario.conn
    conn.execute(
        "INSERT INTO accounts (email, name, role, created_at) VALUES ('ada@bidden.example', 'A', 'admin', now())"
    )
    conn.execute("INSERT INTO audit_log (at, actor, action) VALUES (now(), 'Ada Lovelace <ada@bidden.example>', 'x')")
    scenario.load({"type": "member", "id": 1, "deleted": True})
    assert conn.execute("SELECT actor FROM audit_log").fetchall() == [{"actor": "Ada Lovelace <ada@bidden.example>"}]


def test_a_migration_redacts_what_is_stored(scenario: Scenario, database_url: str) -> None:
    """Of members who were deleted before nobody knows the address: whatever looks like one goes from every reply."""
    scenario.build(students=[1, 2])
    scenario.plan()
    conn = scenario.conn
    _migrate(database_url, "0014")
    _write(conn, "550 <Ada@Example.ORG> and 'o'brien@x.example' are full")
    _migrate(database_url, "head")
    replies = conn.execute(
        "SELECT reply AS t FROM deliveries WHERE reply IS NOT NULL UNION SELECT reason FROM deliveries"
        " WHERE reason IS NOT NULL UNION SELECT reason FROM log_entries"
        " UNION SELECT first_error FROM batches UNION SELECT last_error FROM batch_webhooks"
        " UNION SELECT reply FROM send_limits"
    ).fetchall()
    assert replies == [{"t": "550 <(address)> and '(address)' are full"}]
