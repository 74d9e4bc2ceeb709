"""Planning in the background: the trigger of a large audience answers at once, and dispatchers plan the batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from config.crash_points import VARIABLE
from db import planning, reports
from db.connect import Connection, connect
from producers import background, batch_control, decisions, planner
from producers.plan import PlanResult
from producers.planner import Planner, plan_waiting
from schemas.errors import RefusedError
from tests.acceptance.processes import eventually
from tests.integration.calling import PATH, organisers
from tests.integration.importing import EVENT
from tests.integration.scenario import Scenario
from tests.integration.site import Site, open_site
from tests.integration.test_operator_batches import due
from web import actions


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> None:
    """Six members, of whom one cannot be invited; and for the site, five list entries are many."""
    monkeypatch.setattr(actions, "LARGE", 5)
    scenario.build(students=[1, 2, 3, 4], both=[5, 6])
    scenario.execute("UPDATE members SET accepted_toc_at = NULL WHERE id = 4")


@pytest.fixture
def site(scenario: Scenario, database_url: str) -> Iterator[Site]:
    """The site."""
    with open_site(database_url, scenario.conn) as site:
        yield site


def trigger(scenario: Scenario, audience: str = "everyone", **options: Any) -> PlanResult:
    """A trigger that leaves the planning to the dispatchers."""
    return scenario.trigger(audience, later_from=1, claim_seconds=0, **options)


def waiting(scenario: Scenario) -> int:
    """The id of a batch that waits to be planned."""
    started = trigger(scenario)
    assert started.batch_id is not None
    return started.batch_id


def members(scenario: Scenario, batch: int) -> list[int]:
    """Who has an item of the batch."""
    rows = scenario.execute("SELECT member_id FROM batch_items WHERE batch_id = %s ORDER BY 1", batch)
    return [row["member_id"] for row in rows]


def test_a_trigger_of_a_large_audience_answers_at_once(site: Site, scenario: Scenario) -> None:
    """FM-40: nothing is planned in the request; the same key finds the batch; then it is as if planned at once."""
    program = organisers(site, 1)
    expected = scenario.trigger("everyone", dry_run=True)
    started = program.invite(status=202)
    assert (started["batch_id"], started["planning"], started["state"]) == (1, True, "running")
    assert (started["planned"], started["deliveries"], started["excluded"]) == (0, 0, {})
    assert program.invite(status=200) == {**started, "already_triggered": True}
    assert members(scenario, 1) == []
    batch = program.get("/batches/1")
    assert (batch["state"], batch["planning"], batch["deliveries"], batch["completed_at"]) == ("running", True, 0, None)
    (event,) = program.get("/events")["items"]
    assert event["state"] == "inviting"
    assert plan_waiting(scenario.conn) == 1
    batch = program.get("/batches/1")
    assert (batch["planning"], batch["planned"], batch["pending"]) == (False, expected.planned, expected.deliveries)
    assert batch["excluded"] == expected.excluded == {"terms_not_accepted": 1}
    again = program.invite(status=200)
    assert (again["planned"], again["planning"], again["already_triggered"]) == (5, False, True)
    assert due(scenario, 1) == 5
    assert plan_waiting(scenario.conn) == 0
    assert program.call("GET", f"{PATH}/batches/1").status_code == 200


def test_a_small_audience_is_planned_in_the_request(site: Site, scenario: Scenario) -> None:
    """FM-40: as before, with its counts in the answer."""
    started = organisers(site, 1).invite(audience="coaches")
    assert (started["planning"], started["planned"], started["deliveries"]) == (False, 2, 2)
    assert plan_waiting(scenario.conn) == 0


def test_the_page_of_a_batch_that_is_being_planned(site: Site, scenario: Scenario) -> None:
    """FM-40: the form leads to the batch at once; its page says what happens, and keeps itself up to date."""
    browser = site.organiser(1)
    answer = browser.post("/events/1/invite", {"audience": "everyone", "key": str(uuid.uuid4())})
    assert (answer.status_code, answer.headers["location"]) == (303, "/batches/1")
    text = browser.get("/batches/1").text
    assert "Its members are being selected." in text
    assert "sse-connect" in text
    assert scenario.execute("SELECT detail FROM audit_log WHERE detail LIKE '%%background%%'")
    plan_waiting(scenario.conn)
    assert "0 of 7 mails" in browser.get("/batches/1").text


def test_two_planners_at_once(scenario: Scenario) -> None:
    """FM-15, FM-40: each batch is planned once, however many processes ask."""
    batches = [waiting(scenario) for _ in range(3)]
    start = threading.Barrier(2)

    def run() -> int:
        with connect(scenario.url, application="test-planner", autocommit=True) as conn:
            start.wait(10)
            return plan_waiting(conn)

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(run) for _ in range(2)]
        assert sum(result.result(20) for result in done) == 3
    assert all(members(scenario, batch) == [1, 2, 3, 4, 5, 6] for batch in batches)


_PLANS = """
import os, sys
from config import crash_points
from db.connect import connect
from producers.planner import plan_waiting
crash_points.arm(os.environ)
with connect(sys.argv[1], autocommit=True) as conn:
    plan_waiting(conn)
"""


@pytest.mark.parametrize(("point", "is_planned"), [("plan.ready", False), ("plan.committed", True)])
def test_a_planner_is_killed(scenario: Scenario, point: str, is_planned: bool) -> None:
    """FM-18, FM-40: before its commit nothing of the plan exists, and another plans it; after it all does."""
    batch = waiting(scenario)
    died = subprocess.run(
        [sys.executable, "-c", _PLANS, scenario.url], env={**os.environ, VARIABLE: point}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert members(scenario, batch) == ([1, 2, 3, 4, 5, 6] if is_planned else [])
    eventually(lambda: scenario.status(batch)["planning"] is False or plan_waiting(scenario.conn) == 1, "it is planned")
    assert scenario.numbers(batch) == (0, 0, 0, 0, 7)
    assert due(scenario, batch) == 5


def while_planning(monkeypatch: pytest.MonkeyPatch, scenario: Scenario, decide: Callable[[Connection], None]) -> None:
    """Let somebody decide when the plan is written and not committed."""
    written = planning.write_plan

    def write(*arguments: Any, **options: Any) -> None:
        written(*arguments, **options)
        with connect(scenario.url, application="test-operator", autocommit=True) as conn:
            conn.execute("SET lock_timeout = '5s'")
            decide(conn)

    monkeypatch.setattr(planning, "write_plan", write)


def test_a_cancel_while_it_is_planned(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-39, FM-40: the cancel does not wait for the planning, and wins: the plan is rolled back."""
    batch = waiting(scenario)
    while_planning(monkeypatch, scenario, lambda conn: batch_control.cancel(conn, batch))
    assert plan_waiting(scenario.conn) == 0
    status = scenario.status(batch)
    assert (status["state"], status["planning"], status["deliveries"]) == ("cancelled", False, 0)
    assert scenario.execute("SELECT count(*) AS n FROM deliveries") == [{"n": 0}]
    assert planning.batches_to_plan(scenario.conn) == []


def test_a_cancel_before_it_is_planned(scenario: Scenario) -> None:
    """FM-40: it never is; a new batch plans the members."""
    batch = waiting(scenario)
    batch_control.cancel(scenario.conn, batch)
    assert plan_waiting(scenario.conn) == 0
    assert (scenario.status(batch)["state"], members(scenario, batch)) == ("cancelled", [])
    again = waiting(scenario)
    assert plan_waiting(scenario.conn) == 1
    assert scenario.numbers(again) == (0, 0, 0, 0, 7)


@pytest.mark.parametrize("during", [True, False])
def test_a_pause_before_the_end_of_the_planning(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, during: bool
) -> None:
    """FM-39, FM-40: the pause does not wait and stays; what is planned is published after the resume."""
    batch = waiting(scenario)
    if during:
        while_planning(monkeypatch, scenario, lambda conn: batch_control.pause(conn, batch))
    else:
        batch_control.pause(scenario.conn, batch)
    assert scenario.status(batch)["state"] == ("running" if during else "paused")
    assert plan_waiting(scenario.conn) == 1
    assert (scenario.status(batch)["state"], scenario.publish()) == ("paused", 0)
    left = decisions.DecisionsLeft(time.monotonic)
    assert not left.apply_some(scenario.conn)
    assert due(scenario, batch) == 0
    batch_control.resume(scenario.conn, batch)
    assert scenario.publish() == 5


def test_refused_when_it_is_planned(scenario: Scenario) -> None:
    """FM-40: the rules of the trigger hold again at planning: the batch ends with the reason, and mails nobody."""
    batch = waiting(scenario)
    scenario.load(EVENT | {"cancelled_at": "2026-01-01T00:00:00Z"})
    assert plan_waiting(scenario.conn) == 1
    status = scenario.status(batch)
    assert (status["state"], status["deliveries"]) == ("cancelled", 0)
    assert status["error"].endswith("is cancelled")
    with pytest.raises(RefusedError, match="is cancelled"):
        trigger(scenario)


def test_one_that_waits_is_neither_over_nor_retried(scenario: Scenario) -> None:
    """FM-40: it is not completed, not cleaned up, and its retry is refused without a wait."""
    batch = waiting(scenario)
    assert scenario.status(batch)["state"] == "running"
    scenario.execute("UPDATE batches SET started_at = now() - interval '1 year'")
    assert batch_control.clean_up(scenario.conn, timedelta(days=1)).batches == 0
    with pytest.raises(RefusedError, match="still being planned"):
        batch_control.retry(scenario.conn, batch)
    assert [row["state"] for row in reports.batches(scenario.conn)] == ["running"]


def test_the_thread_of_a_dispatcher(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40, FM-41: it plans what waits, survives any error, and ends with its dispatcher."""
    monkeypatch.setattr(background, "_ERROR_SECONDS", 0.01)
    errors = [RuntimeError("unforeseen"), RuntimeError("again")]
    planned = plan_waiting

    def fail_first(conn: Connection) -> int:
        if errors:
            raise errors.pop()
        return planned(conn)

    monkeypatch.setattr(planner, "plan_waiting", fail_first)
    stop = threading.Event()
    thread = Planner(scenario.url, stop)
    thread.start()
    batch = waiting(scenario)
    eventually(lambda: not scenario.status(batch)["planning"], "it is planned")
    assert not errors
    assert scenario.numbers(batch) == (0, 0, 0, 0, 7)
    stop.set()
    thread.join()
    assert not thread.is_alive


def test_a_stop_does_not_wait_for_the_planning(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """FM-40: a dispatcher that is stopped ends its plan, which is rolled back and planned later."""
    batch = waiting(scenario)
    began = threading.Event()

    def write(conn: Connection, *_: Any, **__: Any) -> None:
        began.set()
        conn.execute("SELECT pg_sleep(600)")

    with monkeypatch.context() as patched:
        patched.setattr(planning, "write_plan", write)
        stop = threading.Event()
        thread = Planner(scenario.url, stop)
        thread.start()
        assert began.wait(20)
        stop.set()
        thread.join()
        assert not thread.is_alive
    assert members(scenario, batch) == []
    eventually(lambda: plan_waiting(scenario.conn) == 1, "it is planned")


def test_tables_are_analysed_when_they_have_grown(scenario: Scenario) -> None:
    """FM-40: a small batch on large tables pays for no ANALYZE; a large one does."""
    scenario.trigger("everyone")
    assert planning.analyse_grown(scenario.conn, 7) == ["batch_items", "deliveries", "invitations"]
    scenario.execute("UPDATE pg_class SET reltuples = 100000 WHERE relname IN ('batch_items', 'deliveries')")
    assert planning.analyse_grown(scenario.conn, 7) == ["invitations"]
    assert planning.analyse_grown(scenario.conn, 20000) == ["batch_items", "deliveries", "invitations"]
