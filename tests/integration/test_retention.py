"""Retention: each table that grows has a rule, and a rule removes what is old, in chunks, and nothing else."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import pytest
from click.testing import CliRunner

from cli.commands.services import dispatch
from db import reports, retention
from db.connect import Connection, connect
from db.models import Base
from db.retention import KEPT, OF_BATCHES, Retention, rules
from db.statements import sql
from producers import batch_control
from producers.batch_control import Verdict
from schemas.outcomes import Failed, Outcome, Unknown
from tests.integration.importing import EVENT, invitation
from tests.integration.scenario import Scenario

DAYS = 180
LOG_SECONDS = DAYS * 86_400.0
DATABASE_DOC = Path(__file__).resolve().parents[2] / "docs/reference/database.md"


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def run_all_chunks(conn: Connection, chunk: Callable[[], bool] | None = None) -> None:
    """What a dispatcher does in a quarter of an hour: every rule runs until nothing is left."""
    clock = Clock()
    chore = Retention(LOG_SECONDS, clock)
    for _ in range(900):
        chore.run_chunk(conn)
        if chunk is not None:
            chunk()
        clock.seconds += 1.0


def test_every_table_that_grows_has_a_rule() -> None:
    """FM-40: each table has a rule, or a reason why it needs none; both are in the reference."""
    ruled = [table for rule in rules(LOG_SECONDS) for table in (rule.table, *rule.also)]
    assert sorted([*ruled, *KEPT]) == sorted(Base.metadata.tables)
    doc = DATABASE_DOC.read_text().partition("## Retention")[2]
    for rule in rules(LOG_SECONDS):
        (row,) = [line for line in doc.splitlines() if line.startswith(f"| `{rule.table}`")]
        days = re.findall(r"(\d+) days?", row)
        assert days == ([f"{rule.seconds / 86_400:.0f}"] if rule.seconds and rule.table != OF_BATCHES else []), row
        assert all(f"`{table}`" in row for table in rule.also)
    for table in KEPT:
        assert f"`{table}`" in doc, table


#: How rows of an age are written, by table; the rows of batches and invitations have tests of their own.
ROWS: dict[str, LiteralString] = {
    "sessions": "INSERT INTO sessions SELECT decode(lpad(n::text, 4, '0'), 'hex'), 1, now(), now(), now() - %(age)s"
    " FROM generate_series(%(first)s::int, %(last)s::int) n",
    "sign_in_attempts": "INSERT INTO sign_in_attempts SELECT 'key ' || n, 1, now() - %(age)s"
    " FROM generate_series(%(first)s::int, %(last)s::int) n",
    "sign_in_requests": "INSERT INTO sign_in_requests SELECT decode(lpad(n::text, 4, '0'), 'hex'), '', '', '',"
    " now() - %(age)s FROM generate_series(%(first)s::int, %(last)s::int) n",
    "password_resets": "INSERT INTO password_resets SELECT decode(lpad(n::text, 4, '0'), 'hex'), 1, now() - %(age)s"
    " FROM generate_series(%(first)s::int, %(last)s::int) n",
    "audit_log": "INSERT INTO audit_log (at, actor, action) SELECT now() - %(age)s, 'Ada', n::text"
    " FROM generate_series(%(first)s::int, %(last)s::int) n",
    "batch_webhooks": "INSERT INTO batch_webhooks (batch_id, client_id, due_at, delivered_at)"
    " SELECT n, 1, NULL, now() - %(age)s FROM generate_series(%(first)s::int, %(last)s::int) n",
}


def test_what_is_old_is_removed(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: from each table what is older than its rule says goes, in chunks, and what is younger stays."""
    monkeypatch.setattr(retention, "CHUNK", 3)
    scenario.build(students=[1])
    for _ in range(14):
        scenario.plan()
    scenario.execute("INSERT INTO accounts (email, name, role, created_at) VALUES ('a@b', 'Ada', 'admin', now())")
    scenario.execute(
        "INSERT INTO api_clients (name, account_id, token_hash, scopes, created_at) VALUES ('p', 1, '', '{}', now())"
    )
    ages = {rule.table: rule.seconds for rule in rules(LOG_SECONDS)}
    assert set(ROWS) == set(ages) - {OF_BATCHES, "invitations", "batches"}
    for table, insert in ROWS.items():
        for first, seconds in ((1, ages[table] + 3600), (8, ages[table] - 3600)):
            values = {"first": first, "last": first + 6, "seconds": seconds}
            aged = insert.replace("%(age)s", "%(seconds)s * interval '1 second'")
            scenario.conn.execute(aged.encode(), values)
    scenario.execute("UPDATE batch_webhooks SET due_at = now() WHERE batch_id = 1")
    run_all_chunks(scenario.conn)
    left = {table: scenario.execute(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in ROWS}
    # A webhook that is still due is none that ended.
    assert left == dict.fromkeys(ROWS, 7) | {"batch_webhooks": 8}


def test_a_trigger_key_is_forgotten_once_its_event_is_over(scenario: Scenario) -> None:
    """FM-31: a repeated request gets its batch as long as it could start one; afterwards it is refused."""
    scenario.build(students=[1])
    batch = scenario.plan(key="spring")
    scenario.execute("UPDATE batches SET started_at = now() - interval '99 days'")
    run_all_chunks(scenario.conn)
    assert scenario.trigger(key="spring").batch_id == batch
    scenario.execute("UPDATE events SET starts_at = now() - interval '91 days', ends_at = now() - interval '91 days'")
    run_all_chunks(scenario.conn)
    assert scenario.execute("SELECT id, trigger_key FROM batches") == [{"id": batch, "trigger_key": None}]


def old_batch(scenario: Scenario) -> int:
    """A batch of 200 days ago: of 20 members one failed, one is unknown, two were left out."""
    scenario.build(students=range(1, 21))
    scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id > 18")
    batch, agent = scenario.plan(), scenario.agent()
    others: dict[int, Outcome] = {5: Failed("550"), 12: Unknown("?")}
    for number in range(1, 19):
        agent.deliver(scenario.request(batch, number), others.get(number))
    scenario.execute("UPDATE batches SET started_at = now() - interval '200 days'")
    scenario.execute("UPDATE batch_items SET settled_at = now() - interval '200 days'")
    scenario.execute("UPDATE log_entries SET at = now() - interval '200 days'")
    return batch


def test_a_log_is_removed_in_chunks(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40, FM-26: at each commit in between numbers, exclusions and audits are as before, and nothing is reopened."""
    monkeypatch.setattr(retention, "CHUNK", 4)
    batch = old_batch(scenario)
    numbers, excluded = scenario.status(batch), reports.exclusions(scenario.conn, batch)
    ledger, audit = scenario.execute("SELECT * FROM deliveries ORDER BY member_id"), scenario.audit()
    found = set()

    def look() -> bool:
        items = scenario.execute("SELECT count(*) AS n FROM batch_items")[0]["n"]
        found.add(items)
        assert scenario.status(batch) == numbers
        assert reports.exclusions(scenario.conn, batch) == excluded
        assert scenario.audit() == audit
        if items < 20:
            assert batch_control.retry(scenario.conn, batch) == 0
        return True

    run_all_chunks(scenario.conn, look)
    assert found >= {20, 16, 12, 8, 4, 0}
    assert scenario.execute("SELECT FROM log_entries") == []
    assert scenario.execute("SELECT archived -> 'removed_up_to' AS n FROM batches") == [{"n": None}]
    assert scenario.execute("SELECT * FROM deliveries ORDER BY member_id") == ledger


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_verdict_while_the_log_is_removed(
    scenario: Scenario, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict on unknown deliveries counts, and opens no item of a batch that loses its log: a new batch plans it."""
    monkeypatch.setattr(retention, "CHUNK", 4)
    batch, clock = old_batch(scenario), Clock()
    chore = Retention(LOG_SECONDS, clock)
    while scenario.execute("SELECT count(*) AS n FROM batch_items")[0]["n"] == 20:
        chore.run_chunk(scenario.conn)
        clock.seconds += 1.0
    done = batch_control.resolve(scenario.conn, 1, verdict, member_id=None, by="ada", resend_below=0)
    assert (done.resolved, done.without_batch) == (1, int(verdict is Verdict.RESEND))
    assert scenario.execute("SELECT FROM batch_items WHERE settled_at IS NULL") == []
    run_all_chunks(scenario.conn)
    assert scenario.execute("SELECT FROM batch_items") == []
    assert scenario.status(batch)["state"] == "completed"
    again = scenario.plan()
    assert (scenario.item(again, 12)["excluded"] is None) == (verdict is not Verdict.SENT)
    batch_control.cancel(scenario.conn, again)


def mailed(scenario: Scenario, event: int, days: int, *members: int) -> None:
    """An event that ended so many days ago, whose students were mailed."""
    ended = {"starts_at": "2090-01-01T00:00:00Z", "ends_at": "2090-01-01T02:00:00Z"}
    scenario.load(EVENT | ended | {"id": event, "kind": "event", "name": f"Event {event}"})
    batch, agent = scenario.plan(event=event), scenario.agent(f"agent-{event}")
    for number in members:
        agent.deliver(scenario.request(batch, number, event=event))
    scenario.execute(
        "UPDATE events SET starts_at = now() - %s * interval '1 day', ends_at = now() - %s * interval '1 day'"
        " WHERE id = %s",
        days,
        days,
        event,
    )


def links(scenario: Scenario) -> set[tuple[int, int]]:
    """The invitations that there are: event and member."""
    rows = scenario.execute("SELECT event_id, member_id FROM invitations")
    return {(row["event_id"], row["member_id"]) for row in rows}


def test_old_links_are_removed_and_the_newest_stay(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: links of events long over go, but never an answer, nor those in the newest mail that a member has.

    Where members were mailed is in the ledger: nothing of it changes, and no audit (FM-26).
    """
    monkeypatch.setattr(retention, "CHUNK", 2)
    scenario.build(students=[1, 2, 3, 4])
    for event, days in ((2, 900), (3, 500), (4, 400), (5, 300)):
        mailed(scenario, event, days, *((1, 2, 3, 4) if event != 5 else (1,)))
    scenario.execute("DELETE FROM invitations WHERE event_id = 5 AND member_id <> 1")
    scenario.execute("UPDATE invitations SET attending = true WHERE event_id = 2 AND member_id = 3")
    scenario.load({"type": "member", "id": 4, "deleted": True})
    ledger = scenario.execute("SELECT * FROM deliveries ORDER BY event_id, member_id")
    audits = [scenario.audit(event=event) for event in (2, 3, 4, 5)]
    run_all_chunks(scenario.conn)
    # Of the four, 1 has a mail of 300 days ago; the newest mail of 2 and 3 is of event 4; 3 has answered event 2.
    assert links(scenario) == {(5, 1), (4, 2), (4, 3), (2, 3)}
    assert scenario.execute("SELECT * FROM deliveries ORDER BY event_id, member_id") == ledger
    assert [scenario.audit(event=event) for event in (2, 3, 4, 5)] == audits
    # An import of the whole history does not bring back what is removed again tomorrow.
    scenario.load(*(invitation(number, event_id=event) for number in (1, 2, 3) for event in (2, 3, 4)))
    assert links(scenario) == {(5, 1), (4, 2), (4, 3), (2, 3)}


def test_a_pass_goes_on_where_it_was(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: what stays is looked at once in a pass: a chunk costs the same however many there are."""
    monkeypatch.setattr(retention, "CHUNK", 2)
    scenario.build(students=range(1, 8))
    mailed(scenario, 2, 900, *range(1, 8))
    rule = next(rule for rule in rules(LOG_SECONDS) if rule.table == "invitations")
    done, chunks = rule.run(scenario.conn, rule.seconds, None), 1
    while done.more:
        done, chunks = rule.run(scenario.conn, rule.seconds, done.place), chunks + 1
        assert done.removed == 0
    assert chunks == 4


def test_one_process_at_a_time(scenario: Scenario, database_url: str) -> None:
    """FM-40: of several dispatchers one removes a chunk; another neither waits for it nor does it too."""
    scenario.execute("INSERT INTO audit_log (at, actor, action) VALUES (now() - interval '9 years', 'Ada', 'x')")
    clock = Clock()
    with connect(database_url) as other:
        other.execute(sql("wait_for_retention"))
        assert not Retention(LOG_SECONDS, clock).run_chunk(scenario.conn)
    threads = [threading.Thread(target=_run_on_its_own, args=(database_url,), name=f"dispatcher {n}") for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_all_chunks(scenario.conn)
    assert scenario.execute("SELECT FROM audit_log") == []


def _run_on_its_own(url: str) -> None:
    with connect(url, autocommit=True) as conn:
        run_all_chunks(conn)


def test_a_locked_table_delays_only_its_own_rule(
    scenario: Scenario, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FM-39, FM-40: a session that holds a lock for long keeps a chunk for 2 s at most; the other rules go on."""
    scenario.execute("INSERT INTO sign_in_attempts VALUES ('x', 1, now() - interval '9 days')")
    scenario.execute("INSERT INTO audit_log (at, actor, action) VALUES (now() - interval '9 years', 'Ada', 'x')")
    clock = Clock()
    chore = Retention(LOG_SECONDS, clock)
    with connect(database_url) as other:
        other.execute("LOCK TABLE sign_in_attempts IN ACCESS EXCLUSIVE MODE")
        assert not chore.run_chunk(scenario.conn)
        for _ in range(20):
            clock.seconds += 1.0
            chore.run_chunk(scenario.conn)
        assert scenario.execute("SELECT FROM audit_log") == []
    clock.seconds += 60.0
    assert chore.run_chunk(scenario.conn)
    assert scenario.execute("SELECT FROM sign_in_attempts") == []


def test_the_dispatcher_runs_it(scenario: Scenario, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: nobody has to run a command: what is old is removed between two rounds of publishing."""
    scenario.execute("INSERT INTO sign_in_attempts VALUES ('x', 1, now() - interval '9 days')")
    chores: list[Any] = []
    monkeypatch.setattr("producers.dispatch.Dispatcher.run", lambda self: chores.extend(self._chores))
    monkeypatch.setattr("producers.topics.Topics.check_reachable", lambda _: 1)
    monkeypatch.setattr("producers.topics.Topics.require_compacted", lambda _: None)
    monkeypatch.setattr("cli.commands.services.require_rights", lambda *_: None)
    monkeypatch.setenv("BIDDEN_DATABASE_URL", database_url)
    monkeypatch.setenv("BIDDEN_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert CliRunner().invoke(dispatch, standalone_mode=False).exception is None
    for chore in chores:
        chore(scenario.conn)
    assert scenario.execute("SELECT FROM sign_in_attempts") == []


def test_a_command_runs_every_rule(scenario: Scenario) -> None:
    """`bidden cleanup` removes at once what the rules say; its age is that of logs and items."""
    batch = old_batch(scenario)
    scenario.execute("INSERT INTO audit_log (at, actor, action) VALUES (now() - interval '9 years', 'Ada', 'x')")
    done = retention.run_all(scenario.conn, LOG_SECONDS)
    assert (done.rows[OF_BATCHES], done.rows["audit_log"], done.batches) == (38, 1, 1)
    assert retention.run_all(scenario.conn, LOG_SECONDS).batches == 0
    assert scenario.status(batch)["deliveries"] == 18
