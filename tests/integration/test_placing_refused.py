"""What an organisation's own database does not take, or cannot: rows, answers, statements, rights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog

from db import placing, source_writer, sync
from schemas.errors import InputError, UnreachableError
from schemas.source_file import Query
from tests.integration.placements import FIVE, Work, at_work
from tests.integration.scenario import Scenario
from tests.organisations.organisation import Planner
from tests.organisations.roles import role

IDS = "SELECT 1 AS event_id, 1 AS member_id"


@pytest.fixture
def planner(scenario: Scenario, database_url: str, own_database: str) -> Iterator[Work]:
    """In planner's shape."""
    with at_work(Planner, scenario, database_url, own_database) as work:
        yield work


def test_not_taken(planner: Work) -> None:
    """FM-45: what the source takes no row for is skipped, by name, after the next snapshot; a new batch asks again."""
    planner.own.execute("UPDATE workshops SET id = 9")
    planner.own.execute("INSERT INTO workshop_invitations (workshop_id, member_id, role, token) "
                        "SELECT 1, n, 'Student', 't' || n FROM generate_series(1, 4) n")  # fmt: skip
    batch = planner.plan()
    assert planner.place() == 0
    planner.own.execute("UPDATE workshops SET id = 1")
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 5) == {}
    assert planner.scenario.log(batch)[5, "Student"] == ("skipped", "not_in_source")
    again = planner.plan()
    assert planner.place() == 1
    assert planner.deliver(again, 5) == {5: planner.own.invited()[5]}


def refuses(planner: Work, *members: int) -> None:
    """A constraint of planner's, which it adds without a word, refuses the rows of these members."""
    planner.own.execute("CREATE TABLE refused AS SELECT unnest(%s::int[]) AS member_id", [[*members]])
    planner.own.execute(
        "CREATE FUNCTION is_allowed(n int) RETURNS boolean LANGUAGE sql SECURITY DEFINER "
        "RETURN NOT EXISTS (SELECT FROM refused WHERE member_id = n)"
    )
    planner.own.execute("ALTER TABLE workshop_invitations ADD CHECK (is_allowed(member_id))")


def test_a_row_that_the_source_refuses(planner: Work) -> None:
    """FM-45: one row that its constraints refuse stops nobody else's: it is as one that the source did not take."""
    refuses(planner, 2, 5)
    batch = planner.plan()
    with structlog.testing.capture_logs() as logged:
        assert planner.place() == 0
    found = [(entry["event"], entry["member_id"]) for entry in logged]
    assert found == [("the source refuses an invitation", 2), ("the source refuses an invitation", 5)]
    assert set(planner.own.invited()) == {1, 3, 4}
    planner.own.sync()
    assert planner.place() == 1
    assert set(planner.deliver(batch, *FIVE)) == {1, 3, 4}
    assert planner.scenario.log(batch)[5, "Student"] == ("skipped", "not_in_source")


def test_a_source_that_refuses_every_row(planner: Work) -> None:
    """FM-45, FM-32: that is the statement's fault, and nobody's who is invited: it is named, and the batch waits."""
    refuses(planner, *FIVE)
    batch = planner.plan()
    with pytest.raises(InputError, match=r"the query place fails in the source: .*check constraint"):
        planner.place()
    assert planner.deliver(batch, *FIVE) == {}


def test_the_source_is_away(planner: Work) -> None:
    """FM-45: nothing is mailed until it is back."""
    batch = planner.plan()
    away = replace(planner.own.source(), writer_url="postgresql://writer:secret@127.0.0.1:1/planner")
    with pytest.raises(UnreachableError, match="BIDDEN_SOURCE_WRITER_URL"):
        placing.place(planner.settings, away)
    assert planner.deliver(batch, 1) == {}
    assert planner.place() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{IDS}, 'Student' AS role, 'x' AS token", "the column ours is missing"),
        (f"{IDS}, 'Student' AS role, 'x' AS token, 1 AS ours", "ours has the type integer"),
        ("DELETE FROM workshop_invitations", "the column event_id is missing"),
        ("SELECT 1; SELECT 2", "the query place fails in the source"),
    ],
)  # fmt: skip
def test_a_wrong_statement(planner: Work, text: str, problem: str) -> None:
    """FM-32: refused by query and field; nothing is done."""
    planner.own.invite(1, "theirs")
    planner.plan()
    source = planner.own.source()
    source.queries["place"] = Query("place", text, 1)
    with pytest.raises(InputError, match=problem):
        placing.place(planner.settings, source)
    assert set(planner.own.invited()) == {1}


@pytest.mark.parametrize(
    "values",
    [
        "'Guest' AS role, 'x' || member_id AS token",
        "'Student' AS role, '?' AS token",
        "'Student' AS role, 'one' AS token",
    ],
)
def test_answers_that_cannot_be_used(planner: Work, values: str) -> None:
    """FM-45: another role, a token that is none, one token for several: as if there were no row, and nothing stops."""
    batch = planner.plan()
    source = planner.own.source()
    rows = "json_to_recordset(:rows) AS w(event_id bigint, member_id bigint)"
    source.queries["place"] = Query("place", f"SELECT event_id, member_id, {values}, true AS ours FROM {rows}", 1)
    assert placing.place(planner.settings, source) == 0
    planner.own.sync()
    assert planner.place() == 1
    assert planner.deliver(batch, 1) == {}
    assert planner.scenario.log(batch)[1, "Student"] == ("skipped", "not_in_source")


def test_no_token_to_know_it_by(planner: Work) -> None:
    """FM-32: with `place`, the snapshot must have the tokens."""
    source = planner.own.source()
    text = "SELECT 1::int AS event_id, 1::int AS member_id, 'Coach'::text AS role WHERE false"
    source.queries["invitation"] = Query("invitation", text, 1)
    with pytest.raises(InputError, match="the column token is missing"):
        sync.sync_once(planner.settings, source, "test", accept=False)


def test_the_writer_needs_these_rights(planner: Work) -> None:
    """The grants that sources/planner.sql names are enough, and they are needed."""
    planner.plan()
    tables = "workshop_invitations, invitations"
    grants = (
        f"GRANT SELECT, INSERT ON {tables} TO {{0}}; GRANT SELECT ON workshops, events TO {{0}};"
        "GRANT USAGE ON SEQUENCE workshop_invitations_id_seq, invitations_id_seq TO {0}"
    )
    with role(planner.own, "GRANT SELECT, UPDATE (discarded_at, updated_at) ON subscriptions TO {0}") as url:
        source = replace(planner.own.source(), writer_url=url)
        with pytest.raises(InputError, match="query place fails in the source: permission denied"):
            source_writer.check(source)
    with role(planner.own, grants) as url:
        assert placing.place(planner.settings, replace(planner.own.source(), writer_url=url)) == 1
