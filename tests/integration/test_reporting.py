"""The organisation's own database has what became of every batch and member, as the ledger says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import structlog

from config.crash_points import CrashPoint
from config.log_throttle import LogThrottle
from config.settings import Settings
from db import reporting, source_writer, sync
from producers import batch_control, decisions
from producers.batch_control import Verdict
from schemas.errors import InputError, UnreachableError
from schemas.outcomes import Failed, Outcome, Sent, Unknown
from tests.integration.crashes import Killed, dies_at
from tests.integration.scenario import Scenario
from tests.organisations.organisation import Planner
from tests.organisations.roles import role

SENT, FAILED, UNKNOWN = Sent("250 ok"), Failed("550 no"), Unknown("lost")


class Work:
    """Planner's database as the source of a ledger: five members, of whom one is banned, and a worker."""

    def __init__(self, scenario: Scenario, settings: Settings, planner: Planner) -> None:
        self.scenario, self.settings, self.planner = scenario, settings, planner
        scenario._one = True
        self.agent = scenario.agent()
        planner.add(1, 2, 3, 4, 5)
        planner.execute("INSERT INTO bans (member_id, permanent) VALUES (5, true)")
        sync.sync_once(settings, self.source(), "test", accept=False)

    def source(self) -> Any:
        """Whose mails need not wait for `place`."""
        source = self.planner.source()
        source.queries.pop("place", None)
        return source

    def batch(self, **outcomes: Outcome) -> int:
        """A new batch, with the outcomes of some members: m1, m2, …"""
        batch = self.scenario.plan(event=5)
        for name, outcome in outcomes.items():
            self.agent.deliver(self.scenario.request(batch, int(name[1:]), event=5), outcome)
        return batch

    def report(self) -> int:
        """What `sync` does after a snapshot; how many entries it gave."""
        return reporting.report(self.settings, self.source())

    def entries(self) -> dict[int, tuple[str, str | None]]:
        """Status and reason of each member, in planner's own tables."""
        rows = self.planner.execute("SELECT member_id, status, failure_reason FROM invitation_log_entries ORDER BY id")
        assert len({row[0] for row in rows}) == len(rows), "an entry twice"
        return {member: (status, reason) for member, status, reason in rows}

    def log(self) -> tuple[Any, ...]:
        """Planner's one log: its status and counts, which are those of its entries."""
        (row,) = self.planner.execute(
            "SELECT status, total_invitees, success_count, failure_count, skipped_count FROM invitation_logs"
        )
        counted = Counter(status for status, _ in self.entries().values())
        assert row[1:] == (sum(counted.values()), counted["success"], counted["failed"], counted["skipped"])
        return row


@pytest.fixture
def work(scenario: Scenario, database_url: str, own_database: str) -> Iterator[Work]:
    """With no batch yet."""
    settings = Settings(database_url=database_url, _env_file=None)  # type: ignore[call-arg, arg-type] # pydantic-settings
    with closing(Planner(settings, own_database)) as planner:
        yield Work(scenario, settings, planner)


def test_every_outcome(work: Work) -> None:
    """FM-46: each with its reason, who was excluded, too; again only what is new; then the whole batch has ended."""
    batch = work.batch(m1=SENT, m2=FAILED)
    assert work.report() == 3
    assert work.log() == ("running", 3, 1, 1, 1)
    assert work.entries() == {1: ("success", None), 2: ("failed", "550 no"), 5: ("skipped", "banned")}
    assert work.report() == 0
    work.agent.deliver(work.scenario.request(batch, 3, event=5), UNKNOWN)
    work.agent.deliver(work.scenario.request(batch, 4, event=5), SENT)
    assert work.report() == 2
    assert work.log() == ("completed", 5, 2, 2, 1)
    assert work.entries()[3] == ("failed", "not known whether it arrived: lost")
    assert work.report() == 0
    left = work.scenario.execute("SELECT member_id, status FROM reported_entries ORDER BY 1")
    assert [tuple(row.values()) for row in left] == [(2, "failed"), (3, "unknown")]
    (log,) = work.planner.execute("SELECT started_at, completed_at, chapter_id, expires_at FROM invitation_logs")
    assert log[0] <= log[1]
    assert (log[2], (log[3] - log[0]).days) == (1, 180)


def test_the_truth_comes(work: Work) -> None:
    """FM-46: a verdict, and a retry of what failed, correct what planner's log says."""
    batch = work.batch(m1=SENT, m2=FAILED, m3=UNKNOWN, m4=SENT)
    work.report()
    work.report()
    batch_control.resolve(work.scenario.conn, 5, Verdict.SENT, member_id=3, by="ada", resend_below=0)
    assert work.report() == 1
    assert work.entries()[3] == ("success", None)
    assert batch_control.retry(work.scenario.conn, batch)
    assert work.report() == 0
    work.agent.deliver(work.scenario.request(batch, 2, event=5), SENT)
    assert work.report() == 1
    assert work.log() == ("completed", 5, 4, 0, 1)
    assert work.scenario.execute("SELECT FROM reported_entries WHERE status <> 'sent'") == []


def test_after_an_outage(work: Work) -> None:
    """FM-46: all that happened meanwhile, in every batch."""
    first = work.batch(m1=SENT)
    away = replace(work.source(), writer_url="postgresql://writer:secret@127.0.0.1:1/planner")
    with pytest.raises(UnreachableError, match="BIDDEN_SOURCE_WRITER_URL"):
        reporting.report(work.settings, away)
    batch_control.pause(work.scenario.conn, first)
    work.batch(m2=SENT, m3=SENT, m4=SENT)
    # The log of the first is still running there, and the second has ended.
    assert work.report() == 2 + 5
    logs = work.planner.execute("SELECT status, success_count, skipped_count FROM invitation_logs ORDER BY started_at")
    assert logs == [("running", 1, 1), ("completed", 3, 2)]


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_given_and_not_noted(work: Work, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """FM-46: killed in between, it is given again, and nothing is there twice."""
    monkeypatch.setattr(reporting, "_CHUNK", 2)
    work.batch(m1=SENT, m2=FAILED, m3=SENT, m4=SENT)
    with dies_at(CrashPoint.OUTCOMES_REPORTED, passes), pytest.raises(Killed):
        work.report()
    work.report()
    assert work.log() == ("completed", 5, 3, 1, 1)


def test_a_part_at_a_time(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-44: a snapshot comes between, however many batches there are to give."""
    work.batch(m1=SENT, m2=SENT, m3=SENT, m4=SENT)
    monkeypatch.setattr(reporting, "_MOST_SECONDS", 0.0)
    assert work.report() == 0
    monkeypatch.setattr(reporting, "_MOST_SECONDS", 5.0)
    assert work.report() == 5


def test_planners_own_batch_is_running(work: Work) -> None:
    """FM-46: its log is in the way: nothing is given, until it has ended; and ours keeps planner's second click off."""
    work.planner.execute(
        "INSERT INTO invitation_logs (loggable_type, loggable_id, chapter_id, audience, created_at, updated_at) "
        "VALUES ('Workshop', 1, 1, 'students', localtimestamp, localtimestamp)"
    )
    work.batch(m1=SENT)
    assert work.report() == 0
    assert work.entries() == {}
    work.planner.execute("UPDATE invitation_logs SET status = 'completed'")
    assert work.report() == 0, "offered again at once"
    work.scenario.execute("UPDATE reported_batches SET refused_at = now() - interval '2 minutes'")
    assert work.report() == 2
    assert work.entries().keys() == {1, 5}


def test_an_outcome_of_the_last_moment(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-46: it comes when those behind it are being given, and with it the batch has ended."""
    monkeypatch.setattr(reporting, "_CHUNK", 2)
    batch = work.batch(m2=SENT, m3=SENT, m4=SENT)
    write = source_writer.write

    def deliver_then_write(*of: Any, entries: list[dict[str, Any]], **values: Any) -> list[dict[str, Any]]:
        if any(entry["member_id"] == 4 for entry in entries):
            work.agent.deliver(work.scenario.request(batch, 1, event=5), SENT)
        return write(*of, entries=entries, **values)

    monkeypatch.setattr(source_writer, "write", deliver_then_write)
    work.report()
    work.report()
    assert work.entries().keys() == {1, 2, 3, 4, 5}
    assert work.log() == ("completed", 5, 4, 0, 1)


def report_the_refused(work: Work, monkeypatch: pytest.MonkeyPatch, check: str) -> tuple[int, int | None]:
    """Two mails and an exclusion, given to planner under this constraint: how many it takes, and whom it warns of."""
    work.planner.execute(f"ALTER TABLE invitation_log_entries ADD CONSTRAINT odd CHECK ({check})")
    monkeypatch.setattr(reporting, "_refused", LogThrottle())
    batch = work.batch(m1=SENT, m2=SENT)
    with structlog.testing.capture_logs() as logged:
        count = work.report()
    (entry,) = (entry for entry in logged if entry["log_level"] == "warning")
    assert (entry["batch"], "violates check constraint" in entry["cause"]) == (batch, True)
    return count, entry.get("member_id")


def test_a_row_that_the_source_refuses(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-46: an entry that its constraints refuse stops no other, is named, and is offered again later."""
    assert report_the_refused(work, monkeypatch, "member_id <> 1") == (2, 1)
    assert work.entries().keys() == {2, 5}
    assert work.report() == 0, "offered again at once"
    work.planner.execute("ALTER TABLE invitation_log_entries DROP CONSTRAINT odd")
    work.scenario.execute("UPDATE reported_batches SET refused_at = now() - interval '2 minutes'")
    assert work.report() == 1
    assert work.entries()[1] == ("success", None)


def test_every_row_is_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-46: then it is the statement: the batch is offered again later, and `sync` goes on."""
    assert report_the_refused(work, monkeypatch, "member_id > 9") == (0, None)
    (row,) = work.scenario.execute("SELECT refused_at <= now() AS is_refused FROM reported_batches")
    assert row["is_refused"]


def test_events_of_several_chapters(work: Work) -> None:
    """FM-46: a log for each chapter, and each member in one."""
    run = work.planner.execute
    run("INSERT INTO chapters (name, email) VALUES ('London', 'l@example.org')")
    run("INSERT INTO groups (chapter_id, name) VALUES (2, 'Students')")
    run("UPDATE subscriptions SET group_id = 2 WHERE member_id = 2")
    run("INSERT INTO subscriptions (member_id, group_id) VALUES (3, 2)")
    run(
        "INSERT INTO events (name, slug, date_and_time, invitable, virtual) "
        "VALUES ('Day', 'day', '2096-01-01', true, true)"
    )
    run("INSERT INTO chapters_events (chapter_id, event_id) VALUES (1, 1), (2, 1)")
    sync.sync_once(work.settings, work.source(), "test", accept=True)
    batch = work.scenario.plan(event=6)
    for member in (1, 2, 3, 4):
        work.agent.deliver(work.scenario.request(batch, member, event=6), SENT)
    assert work.report() == 5
    logs = run(
        "SELECT loggable_type, loggable_id, chapter_id, success_count, skipped_count FROM invitation_logs ORDER BY 3"
    )
    assert logs == [("Event", 1, 1, 3, 1), ("Event", 1, 2, 1, 0)]


def test_one_of_several_chapters_has_a_running_log(work: Work) -> None:
    """FM-46: nothing counts as given while an entry has no place; then all of them have one."""
    run = work.planner.execute
    run("INSERT INTO chapters (name, email) VALUES ('London', 'l@example.org')")
    run("INSERT INTO groups (chapter_id, name) VALUES (2, 'Students')")
    run("UPDATE subscriptions SET group_id = 2 WHERE member_id = 2")
    run(
        "INSERT INTO events (name, slug, date_and_time, invitable, virtual) "
        "VALUES ('Day', 'day', '2096-01-01', true, true)"
    )
    run("INSERT INTO chapters_events (chapter_id, event_id) VALUES (1, 1), (2, 1)")
    run(
        "INSERT INTO invitation_logs (loggable_type, loggable_id, chapter_id, audience, created_at, updated_at) "
        "VALUES ('Event', 1, 2, 'students', localtimestamp, localtimestamp)"
    )
    sync.sync_once(work.settings, work.source(), "test", accept=True)
    batch = work.scenario.plan(event=6)
    for member in (1, 2, 3, 4):
        work.agent.deliver(work.scenario.request(batch, member, event=6), SENT)
    work.report()
    run("UPDATE invitation_logs SET status = 'completed' WHERE started_at IS NULL")
    work.scenario.execute("UPDATE reported_batches SET refused_at = now() - interval '2 minutes'")
    work.report()
    counts = run(
        "SELECT chapter_id, success_count, skipped_count FROM invitation_logs WHERE started_at IS NOT NULL ORDER BY 1"
    )
    assert counts == [(1, 3, 1), (2, 1, 0)]


def test_reached_by_an_older_batch(work: Work) -> None:
    """FM-46: reported as `bidden status` counts it."""
    first = work.batch(m1=FAILED)
    second = work.batch(m1=FAILED, m2=SENT, m3=SENT, m4=SENT)
    for member in (2, 3, 4):
        work.agent.try_claim(work.scenario.request(first, member, event=5))
    work.report()
    assert batch_control.retry(work.scenario.conn, first)
    work.agent.deliver(work.scenario.request(first, 1, event=5), SENT)
    work.report()
    work.report()
    status = work.scenario.status(second)
    logs = work.planner.execute(
        "SELECT success_count, failure_count, skipped_count FROM invitation_logs ORDER BY started_at"
    )
    assert logs[1] == (status["sent"], status["failed"], status["skipped"] + 1) == (3, 0, 2)


def test_who_was_invited(work: Work) -> None:
    """FM-46: an entry names planner's own invitation where there is one."""
    work.planner.execute(
        "INSERT INTO workshop_invitations (id, workshop_id, member_id, role, token, source) "
        "VALUES (77, 1, 1, 'Student', %s, 'bidden')",
        "tok-1",
    )
    sync.sync_once(work.settings, work.source(), "test", accept=False)
    work.batch(m1=SENT)
    work.report()
    found = work.planner.execute(
        "SELECT invitation_type, invitation_id FROM invitation_log_entries WHERE member_id = 1"
    )
    assert found == [("WorkshopInvitation", 77)]


def test_a_batch_that_left_the_log(work: Work) -> None:
    """FM-46: nothing of it can change any more, and nothing is kept; without a source nothing is either."""
    work.batch(m1=FAILED, m2=SENT, m3=SENT, m4=SENT)
    work.report()
    work.report()
    work.scenario.execute("UPDATE batches SET archived = '{}'")
    assert work.report() == 0
    assert work.scenario.execute("SELECT * FROM reported_entries") == []
    assert work.scenario.execute("SELECT * FROM reported_batches") != []
    sync.end_source(work.settings, "test")
    assert work.scenario.execute("SELECT * FROM reported_batches") == []
    work.scenario.execute("UPDATE batches SET archived = NULL")


def test_an_event_that_planner_does_not_have(work: Work) -> None:
    """FM-46: its batch is in none of planner's logs, and is offered again."""
    work.batch(m1=SENT)
    work.planner.execute("DELETE FROM workshops")
    assert work.report() == 0
    assert work.planner.execute("SELECT id FROM invitation_logs") == []
    (row,) = work.scenario.execute("SELECT digest, refused_at <= now() AS is_refused FROM reported_batches")
    assert (row["digest"], row["is_refused"]) == (None, True)


def test_one_at_a_time(work: Work) -> None:
    """FM-46: while another process reports, this one does nothing."""
    work.batch(m1=SENT)
    with work.scenario.conn.transaction():
        assert reporting._lock(work.scenario.conn)
        assert work.report() == 0
    assert work.report() == 2


def test_the_writer_needs_these_rights(work: Work) -> None:
    """The grants that the page names are enough for `report`, and they are needed."""
    work.batch(m1=SENT)
    source = work.source()
    del source.queries["leave"]
    reading = "GRANT SELECT ON workshop_invitations, invitations TO {0}"
    with (
        role(work.planner, reading) as url,
        pytest.raises(InputError, match="query report fails in the source: permission denied"),
    ):
        source_writer.check(replace(source, writer_url=url))
    grants = (
        "GRANT SELECT ON workshop_invitations, invitations, workshops, events TO {0};"
        "GRANT SELECT, INSERT ON invitation_logs, invitation_log_entries TO {0};"
        "GRANT UPDATE (status, total_invitees, success_count, failure_count, skipped_count, error_message, "
        "completed_at, updated_at) ON invitation_logs TO {0};"
        "GRANT UPDATE (status, failure_reason, processed_at, updated_at) ON invitation_log_entries TO {0};"
        "GRANT USAGE ON SEQUENCE invitation_logs_id_seq, invitation_log_entries_id_seq TO {0}"
    )
    with role(work.planner, grants) as url:
        source_writer.check(replace(source, writer_url=url))
        assert reporting.report(work.settings, replace(source, writer_url=url)) == 2


def test_applied_decisions_are_reported(work: Work) -> None:
    """FM-46: a cancelled batch's members are there as skipped, with the reason."""
    batch = work.batch(m1=SENT)
    batch_control.cancel(work.scenario.conn, batch)
    while decisions.apply_chunk(work.scenario.conn, batch) is not decisions.Step.DONE:
        pass
    work.report()
    assert work.log() == ("completed", 5, 1, 0, 4)
    assert work.entries()[2] == ("skipped", "batch_cancelled")
