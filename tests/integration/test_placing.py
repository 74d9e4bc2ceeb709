"""Invitations are in the organisation's own database before their mails go out; the system that made a row mails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest

from config.crash_points import CrashPoint
from db import placing, sync
from producers import batch_control, decisions
from schemas.outcomes import Failed
from tests.acceptance.processes import eventually
from tests.integration.crashes import Killed, dies_at
from tests.integration.placements import FIVE, Work, at_work
from tests.integration.scenario import Scenario
from tests.organisations.organisation import Club, Planner

SKIPPED = ("skipped", "already_sent")


@pytest.fixture(params=[Planner, Club])
def work(request: pytest.FixtureRequest, scenario: Scenario, database_url: str, own_database: str) -> Iterator[Work]:
    """In two shapes."""
    with at_work(request.param, scenario, database_url, own_database) as work:
        yield work


@pytest.fixture
def planner(scenario: Scenario, database_url: str, own_database: str) -> Iterator[Work]:
    """In planner's shape."""
    with at_work(Planner, scenario, database_url, own_database) as work:
        yield work


def test_placed_then_mailed(work: Work) -> None:
    """FM-45: nothing is published or claimed before the source has the row, with the token that the mail has."""
    batch = work.plan()
    assert work.scenario.publish() == 0
    assert work.own.invited() == {}
    assert work.place() == 1
    assert work.own.invited() == work.tokens()
    assert work.scenario.publish() == len(FIVE)
    assert work.deliver(batch, *FIVE) == work.own.invited()
    assert work.scenario.numbers(batch) == (5, 0, 0, 0, 0)
    assert work.place() == 0


def test_never_read_back(work: Work) -> None:
    """FM-45: a snapshot that has our rows, also one between placing and recording it, does not take them for mailed."""
    batch = work.plan()
    with dies_at(CrashPoint.INVITATIONS_PLACED), pytest.raises(Killed):
        work.place()
    assert work.own.invited().keys() == set(FIVE)
    work.own.sync()
    assert work.scenario.numbers(batch) == (0, 0, 0, 0, 5)
    assert work.place() == 1
    work.own.sync()
    assert work.own.invited() == work.tokens()
    assert work.deliver(batch, *FIVE) == work.own.invited()


def test_a_rival_was_first(work: Work) -> None:
    """FM-45: who made the row mails. The batch waits for a snapshot that began later, which says that they did."""
    batch = work.plan()
    assert work.own.invite(2, "rival")
    assert work.place() == 0
    assert work.place() == 0
    assert work.deliver(batch, *FIVE) == {}
    assert work.tokens()[2] == work.own.invited()[2]
    work.own.sync()
    assert work.place() == 1
    assert work.deliver(batch, *FIVE).keys() == {1, 3, 4, 5}
    assert work.scenario.log(batch)[2, "Student"] == SKIPPED
    assert not work.own.invite(3, "rival")


def test_a_rival_comes_at_the_same_moment(work: Work) -> None:
    """FM-45: a row that is not committed yet is waited for, and then it is theirs."""
    work.plan()
    placed = threading.Thread(target=work.place)
    with psycopg.connect(work.own.url) as rival:
        mine, work.own.conn = work.own.conn, rival
        assert work.own.invite(4, "rival")
        work.own.conn = mine
        placed.start()
        waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        eventually(lambda: bool(work.own.execute(waits)), "the statement waits for the rival")
        rival.commit()
    placed.join()
    assert work.placements()[4, "Student"] == "theirs"
    assert work.tokens()[4] == work.own.invited()[4]


def test_theirs_and_not_mailed(planner: Work) -> None:
    """FM-45: a row that planner made without mailing it: ours to mail, with the token that is there."""
    planner.own.execute(
        "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, source, created_at) "
        "VALUES (1, 3, 'Student', 'theirs-3', 'admin', localtimestamp)"
    )
    batch = planner.plan()
    assert planner.place() == 0
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, *FIVE)[3] == "theirs-3"
    assert planner.own.invited()[3] == "theirs-3"


def both_lists(planner: Work, *members: int) -> None:
    """They are coaches, too."""
    planner.own.execute("INSERT INTO groups (chapter_id, name) VALUES (1, 'Coaches') ON CONFLICT DO NOTHING")
    planner.own.execute(
        "INSERT INTO subscriptions (member_id, group_id) SELECT n, 2 FROM unnest(%s::int[]) n", [*members]
    )
    planner.own.sync()


def test_in_the_other_role(planner: Work) -> None:
    """FM-45: planner has one row for a member: invited in its role, and skipped where they are not on that list."""
    both_lists(planner, 1)
    planner.own.execute(
        "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, source) VALUES "
        "(1, 1, 'Coach', 'coach-1', 'admin'), (1, 2, 'Coach', 'coach-2', 'admin')"
    )
    batch = planner.plan()
    planner.place()
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 1, role="Coach") == {1: "coach-1"}
    assert planner.deliver(batch, 2) == {}
    assert planner.scenario.log(batch)[2, "Student"] == ("skipped", "not_in_source")


def test_a_change_of_role_before_the_mail(planner: Work) -> None:
    """FM-45: who changes their role in planner meanwhile gets a mail whose link is the one row that is there."""
    both_lists(planner, 1)
    batch = planner.plan()
    assert planner.place() == 1
    planner.own.execute("UPDATE workshop_invitations SET role = 'Coach' WHERE member_id = 1")
    planner.own.sync()
    assert planner.deliver(batch, 1) == {}
    planner.place()
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 1, role="Coach") == {1: planner.own.invited()[1]}
    assert len(planner.own.execute("SELECT id FROM workshop_invitations WHERE member_id = 1")) == 1


def test_a_batch_of_before(planner: Work) -> None:
    """FM-45: planned while the source got nothing, its mails wait until it has; and go out if it does not any more."""
    source = planner.own.source()
    del source.queries["place"]
    sync.sync_once(planner.settings, source, "test", accept=False)
    batch = planner.plan()
    planner.scenario.make_due()
    assert planner.deliver(batch, 1).keys() == {1}
    planner.own.sync()
    assert planner.deliver(batch, 2) == {}
    sync.sync_once(planner.settings, source, "test", accept=False)
    assert planner.deliver(batch, 2).keys() == {2}
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 3) == {3: planner.own.invited()[3]}
    planner.scenario.execute("UPDATE batches SET needs_placing = true")
    assert sync.end_source(planner.settings, "test")
    assert planner.deliver(batch, 4).keys() == {4}


def test_in_chunks(planner: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-45: killed half-way, the rest is placed later."""
    monkeypatch.setattr(placing, "_CHUNK", 2)
    batch = planner.plan()
    with dies_at(CrashPoint.INVITATIONS_PLACED, passes=2), pytest.raises(Killed):
        planner.place()
    assert len(planner.own.invited()) == 4
    assert planner.place() == 1
    assert planner.deliver(batch, *FIVE) == planner.own.invited()


def test_a_part_at_a_time(planner: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-44: a snapshot comes between, however much is to be placed; the batch waits for the rest."""
    monkeypatch.setattr(placing, "_CHUNK", 2)
    monkeypatch.setattr(placing, "_MOST_SECONDS", 0.0)
    batch = planner.plan()
    assert planner.place() == 0
    assert planner.own.invited() == {}
    clock = iter([0.0, 0.0, 19.0, 21.0])
    monkeypatch.setattr(placing, "_MOST_SECONDS", 20.0)
    with monkeypatch.context() as patch:
        patch.setattr(placing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        assert planner.place() == 0
    assert planner.own.invited().keys() == {1, 2, 3, 4}
    assert planner.deliver(batch, *FIVE) == {}
    assert planner.place() == 1
    assert planner.deliver(batch, *FIVE) == planner.own.invited()


def test_paused_and_cancelled(planner: Work) -> None:
    """FM-45: of a paused batch nothing is placed, and nothing of a cancelled one ever is."""
    batch, other = planner.plan(), planner.plan()
    planner.scenario.set_state(batch, "paused")
    planner.scenario.set_state(other, "cancelled")
    assert planner.place() == 0
    assert planner.own.invited() == {}
    planner.scenario.set_state(batch, "running")
    assert planner.place() == 1


def test_a_retry_of_before(planner: Work) -> None:
    """FM-45: what failed before the source got any invitation is placed when it is tried again; a rival was first."""
    source = planner.own.source()
    del source.queries["place"]
    sync.sync_once(planner.settings, source, "test", accept=False)
    batch = planner.plan()
    planner.agent.deliver(planner.scenario.request(batch, 1, event=5), Failed("550 no"))
    planner.agent.deliver(planner.scenario.request(batch, 2, event=5), Failed("550 no"))
    planner.deliver(batch, 3, 4, 5)
    planner.own.invite(1, "rival")
    planner.own.sync()
    assert batch_control.retry(planner.scenario.conn, batch)
    assert planner.deliver(batch, 1, 2) == {}
    assert planner.place() == 0
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 1, 2) == {2: planner.own.invited()[2]}
    assert planner.scenario.log(batch)[1, "Student"] == SKIPPED


def test_a_failure_of_theirs(planner: Work) -> None:
    """FM-45: planner's own mail failed; what we log of it as skipped does not make it look mailed."""
    planner.own.invite(1, "theirs")
    run = planner.own.execute
    run(
        "INSERT INTO invitation_logs (loggable_type, loggable_id, audience, status, created_at, updated_at) "
        "VALUES ('Workshop', 1, 'students', 'completed', now(), now())"
    )
    for status in ("failed", "skipped"):
        run("INSERT INTO invitation_log_entries (invitation_log_id, member_id, invitation_type, invitation_id, status, "
            "created_at, updated_at) SELECT 1, 1, 'WorkshopInvitation', id, %s, now(), now() FROM workshop_invitations",
            status)  # fmt: skip
    batch = planner.plan()
    planner.place()
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 1) == {1: "theirs"}


def test_cancelled_while_it_waits(planner: Work) -> None:
    """FM-12: what a dead worker left of a batch that waits again is settled when it is cancelled."""
    batch = planner.plan()
    planner.place()
    planner.scenario.publish()
    planner.agent.claim(planner.scenario.request(batch, 1, event=5))
    planner.scenario.execute("UPDATE batches SET needs_placing = true")
    batch_control.cancel(planner.scenario.conn, batch)
    while decisions.apply_chunk(planner.scenario.conn, batch) is not decisions.Step.DONE:
        pass
    planner.scenario.end_leases()
    assert planner.scenario.find_lost({0: 100}) == 1
    assert planner.scenario.publish() == 1
    planner.agent.try_claim(planner.scenario.request(batch, 1, event=5))
    assert planner.scenario.numbers(batch) == (0, 0, 1, 4, 0)


def test_a_deleted_member(planner: Work) -> None:
    """FM-45: who was deleted after planning needs no row, and holds up nobody."""
    batch = planner.plan()
    planner.own.delete(3)
    planner.own.sync()
    assert planner.place() == 1
    assert 3 not in planner.own.invited()
    assert planner.deliver(batch, 3) == {}
    assert planner.scenario.log(batch)[3, "Student"][0] == "skipped"
