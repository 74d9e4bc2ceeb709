"""The import of invitations: tokens that never change, role policies that are fixed, and mails sent by others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.connect import Connection, connect
from tests.integration.importing import BASE, EVENT, invitation, load, refusal, rows

SENT_AT = "2026-04-01T10:00:00+00:00"
STATES = ("planned", "handing_off", "sent", "failed", "unknown", "retry", "skipped")


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    with connect(database_url, autocommit=True) as opened:
        load(opened, *BASE, EVENT | {"id": 2, "role_policy": "one"})
        yield opened


def ledger(conn: Connection) -> list[tuple[Any, ...]]:
    return rows(conn, "SELECT event_id, member_id, slot, role, state FROM deliveries ORDER BY 1, 2, 3")


def put_delivery(conn: Connection, state: str) -> None:
    """A delivery of member 1 as a Student in that state, with all that the state needs."""
    conn.execute(
        "INSERT INTO deliveries (event_id, action, member_id, slot, role, state, attempts, fence, owner, lease_until,"
        " not_before, reply, batch_id, updated_at) VALUES (1, 'invite', 1, 'Student', 'Student', %s, 2, 5, 'w', now(),"
        " now(), 'r', 7, now())",
        [state],
    )


def put_log(conn: Connection, status: str, event_id: int = 1) -> int:
    """A batch of its own with a log entry for member 1 as a Student."""
    row = conn.execute(
        "INSERT INTO batches (event_id, audience, action, initiator, shuffle_seed, started_at)"
        " VALUES (%s, 'students', 'invite', 'System', 1, now()) RETURNING id",
        [event_id],
    ).fetchone()
    assert row is not None
    conn.execute(
        "INSERT INTO log_entries (batch_id, member_id, slot, role, status, attempts, at)"
        " VALUES (%s, 1, 'Student', 'Student', %s, 1, now())",
        [row["id"], status],
    )
    return int(row["id"])


def test_an_answer_is_never_forgotten(conn: Connection) -> None:
    """A file without an answer does not remove one that was given by a link; another answer counts."""
    load(conn, invitation(1))
    conn.execute("UPDATE invitations SET attending = false")
    load(conn, invitation(1))
    assert rows(conn, "SELECT attending FROM invitations") == [(False,)]
    load(conn, invitation(1, attending=True))
    assert rows(conn, "SELECT attending FROM invitations") == [(True,)]


def test_tokens_are_generated_where_none_is_given(conn: Connection) -> None:
    """Each invitation has a token of its own, 32 characters that are safe in a link."""
    load(conn, invitation(1), invitation(1, role="Coach"), invitation(2))
    tokens = {row["token"] for row in conn.execute("SELECT token FROM invitations")}
    assert len(tokens) == 3
    assert all(len(token) == 32 and token.isalnum() for token in tokens)


def test_a_token_never_changes(conn: Connection) -> None:
    """The same token again, or none, is fine; another is refused by line and field."""
    load(conn, invitation(1, token="first"))
    load(conn, invitation(1, token="first", attending=True))
    load(conn, invitation(1))
    error = refusal(conn, invitation(2), invitation(1, token="second"))
    assert (error.line, error.field) == (2, "token")
    assert rows(conn, "SELECT token FROM invitations") == [("first",)]


def test_a_token_names_one_invitation(conn: Connection) -> None:
    """A token of another invitation is refused, whether that one is in the database or earlier in the file."""
    load(conn, invitation(1, token="first"))
    error = refusal(conn, invitation(2, token="first"))
    assert (error.line, error.field) == (1, "token")
    error = refusal(conn, invitation(2, token="x"), invitation(2, role="Coach", token="x"))
    assert (error.line, error.field) == (2, "token")


def test_a_token_given_up_in_the_same_file(conn: Connection) -> None:
    """Only the last line of a key counts, for tokens too."""
    load(conn, invitation(1, token="x"), invitation(1, token="y"), invitation(2, token="x"))
    assert rows(conn, "SELECT member_id, token FROM invitations ORDER BY 1") == [(1, "y"), (2, "x")]


def test_role_policy_may_change_before_the_first_delivery(conn: Connection) -> None:
    """Until something was planned or sent, the policy is a field like any other."""
    load(conn, EVENT | {"role_policy": "one"}, invitation(1))
    assert rows(conn, "SELECT role_policy FROM events WHERE id = 1") == [("one",)]


@pytest.mark.parametrize("state", STATES)
def test_role_policy_is_fixed_by_the_first_delivery(conn: Connection, state: str) -> None:
    """FM-03 (key): with any row in the ledger, a changed policy is refused; the rest of the event may change."""
    put_delivery(conn, state)
    error = refusal(conn, EVENT | {"id": 3}, EVENT | {"role_policy": "one"})
    assert (error.line, error.field) == (2, "role_policy")
    load(conn, EVENT | {"name": "Another name"})


def test_a_mail_of_another_system_fixes_the_role_policy(conn: Connection) -> None:
    """sent_at counts as a first delivery; within one file the event's line still decides the slot."""
    load(conn, EVENT | {"role_policy": "one"}, invitation(1, sent_at=SENT_AT))
    assert ledger(conn) == [(1, 1, "member", "Student", "sent")]
    assert refusal(conn, EVENT | {"role_policy": "each"}).field == "role_policy"


def test_mailed_by_another_system(conn: Connection) -> None:
    """The ledger has it as sent, at its time, under the slot of the event's policy, and for no batch."""
    load(conn, invitation(1, sent_at=SENT_AT), invitation(2, event_id=2, role="Coach", sent_at=SENT_AT))
    assert ledger(conn) == [(1, 1, "Student", "Student", "sent"), (2, 2, "member", "Coach", "sent")]
    row = conn.execute("SELECT * FROM deliveries WHERE event_id = 1").fetchone()
    assert row is not None
    assert (row["action"], row["reason"], row["batch_id"], row["fence"]) == ("invite", "imported", None, 1)
    assert row["updated_at"] == datetime(2026, 4, 1, 10, tzinfo=UTC)


def test_both_roles_under_the_policy_one(conn: Connection) -> None:
    """Two lines for one slot: the earlier mail counts, in any order and in a later import too."""
    later = invitation(1, event_id=2, role="Student", sent_at="2026-04-02T00:00Z")
    load(conn, later, invitation(1, event_id=2, role="Coach", sent_at=SENT_AT))
    load(conn, later)
    assert ledger(conn) == [(2, 1, "member", "Coach", "sent")]


@pytest.mark.parametrize("state", ["planned", "failed", "unknown", "retry", "skipped"])
def test_import_closes_open_deliveries(conn: Connection, state: str) -> None:
    """Every open state becomes sent under a new fence, so that a late outcome of an old claim changes nothing."""
    put_delivery(conn, state)
    load(conn, invitation(1, sent_at=SENT_AT))
    row = conn.execute("SELECT * FROM deliveries").fetchone()
    assert row is not None
    assert (row["state"], row["reason"], row["fence"], row["attempts"]) == ("sent", "imported", 6, 2)
    assert {row["owner"], row["lease_until"], row["not_before"], row["reply"], row["batch_id"]} == {None}


@pytest.mark.parametrize("state", ["sent", "handing_off"])
def test_import_leaves_sent_and_in_flight_deliveries(conn: Connection, state: str) -> None:
    """What is sent does not change, and a delivery in flight records its own outcome."""
    put_delivery(conn, state)
    log = put_log(conn, "unknown")
    before = conn.execute("SELECT * FROM deliveries").fetchall()
    load(conn, invitation(1, sent_at=SENT_AT))
    assert conn.execute("SELECT * FROM deliveries").fetchall() == before
    assert conn.execute("SELECT status FROM log_entries WHERE batch_id = %s", [log]).fetchone() == {"status": "unknown"}


def test_logs_that_call_it_unknown_are_corrected(conn: Connection) -> None:
    """FM-12: every log entry of that event that has it as unknown becomes already_sent; other entries stay."""
    put_delivery(conn, "unknown")
    unknown, also, failed, elsewhere = (
        put_log(conn, "unknown"),
        put_log(conn, "unknown"),
        put_log(conn, "failed"),
        put_log(conn, "unknown", event_id=2),
    )
    load(conn, invitation(1, sent_at=SENT_AT))
    found = {row["batch_id"]: (row["status"], row["reason"]) for row in conn.execute("SELECT * FROM log_entries")}
    assert found[unknown] == found[also] == ("skipped", "already_sent")
    assert found[failed] == ("failed", None)
    assert found[elsewhere] == ("unknown", None)


def test_sent_in_the_future(conn: Connection) -> None:
    """A mail cannot have been sent tomorrow: refused by line and field."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    error = refusal(conn, invitation(2), invitation(1, sent_at=tomorrow))
    assert (error.line, error.field) == (2, "sent_at")


def test_no_sent_at_no_delivery(conn: Connection) -> None:
    """FM-09: an invitation's row, answered or not, is no evidence of a mail."""
    load(conn, invitation(1), invitation(2, attending=True))
    assert ledger(conn) == []
