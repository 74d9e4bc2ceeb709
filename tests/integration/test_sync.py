"""Complete snapshots of a source, on real databases: what they change, set aside and refuse, in three shapes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from config.settings import Settings
from db.connect import Connection
from db.snapshots import Changes
from db.source_status import set_aside
from db.sync import sync_once
from schemas.errors import InputError, RefusedError, UnreachableError
from tests.integration.importing import load, member, rows
from tests.organisations.organisation import Club, Exporter, Organisation, Planner

UNCHANGED = {"added": 0, "changed": 0, "removed": 0}
HUNDRED = tuple(range(1, 101))


@pytest.fixture
def settings(database_url: str) -> Settings:
    """With the test's ledger."""
    return Settings(database_url=database_url, _env_file=None)  # type: ignore[call-arg, arg-type] # pydantic-settings


@pytest.fixture
def planner(settings: Settings, own_database: str) -> Iterator[Planner]:
    """With a hundred members."""
    with closing(Planner(settings, own_database)) as planner:
        planner.add(*HUNDRED)
        yield planner


@pytest.fixture(params=["planner", "club", "file"])
def organisation(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Organisation]:
    """Each of the three, with a hundred members."""
    shapes: dict[str, Callable[[], Organisation]] = {
        "planner": lambda: Planner(settings, request.getfixturevalue("own_database")),
        "club": lambda: Club(settings, request.getfixturevalue("own_database")),
        "file": lambda: Exporter(settings),
    }
    with closing(shapes[request.param]()) as organisation:
        organisation.add(*HUNDRED)
        yield organisation


def candidates(conn: Connection) -> set[int]:
    """Who is on the list and may be mailed, as far as the directory alone says."""
    return {
        number
        for (number,) in rows(
            conn,
            "SELECT s.member_id FROM subscriptions s JOIN members m ON m.id = s.member_id AND m.deleted_at IS NULL "
            "WHERE NOT EXISTS (SELECT FROM bans b WHERE b.member_id = m.id AND (b.permanent OR b.expires_at > now()))",
        )
    }


def aside(conn: Connection) -> set[tuple[Any, ...]]:
    """Type, key and field of what is set aside."""
    return {(line["type"], line["key"], line["field"]) for line in set_aside(conn, 1000)}


def test_first_and_unchanged(organisation: Organisation, conn: Connection) -> None:
    """The first snapshot fills the directory; a second one without changes changes nothing."""
    first = organisation.sync()
    assert first.read["member"] == 100
    assert first.changes["member"] == Changes(100, 0, 0, 0)
    assert candidates(conn) == set(HUNDRED)
    again = organisation.sync()
    assert again.as_dict()["changed"] == dict.fromkeys(first.read, UNCHANGED)
    assert again.began_at > first.began_at
    assert aside(conn) == set()


def test_what_changes_in_a_day(organisation: Organisation, conn: Connection) -> None:
    """FM-44: somebody joins, leaves, is banned, is deleted, gets another address, answers: so does the directory."""
    organisation.sync()
    organisation.add(101)
    organisation.leave(1)
    organisation.ban(2)
    organisation.delete(3)
    organisation.set_email(4, "new@example.org")
    organisation.answer(5, attending=True)
    changed = organisation.sync().changes
    assert (changed["member"].added, changed["member"].changed, changed["member"].removed) == (1, 1, 1)
    assert (changed["subscription"].added, changed["subscription"].removed) == (1, 2)
    assert candidates(conn) == {*HUNDRED, 101} - {1, 2, 3}
    assert rows(conn, "SELECT email FROM members WHERE id = 4") == [("new@example.org",)]
    assert rows(conn, "SELECT email, deleted_at IS NULL FROM members WHERE id = 3") == [
        ("deleted-3@deleted.invalid", False)
    ]
    assert rows(conn, "SELECT member_id, attending FROM invitations") == [(5, True)]


def test_swapped_addresses(organisation: Organisation, conn: Connection) -> None:
    """Two members may swap theirs between two snapshots."""
    organisation.sync()
    organisation.set_email(1, "other@example.org")
    organisation.set_email(2, "m1@example.org")
    organisation.set_email(1, "m2@example.org")
    assert organisation.sync().changes["member"].changed == 2
    assert rows(conn, "SELECT email FROM members WHERE id < 3 ORDER BY id") == [
        ("m2@example.org",),
        ("m1@example.org",),
    ]


def test_an_address_that_is_none(organisation: Organisation, conn: Connection) -> None:
    """FM-44: the member is set aside with what refers to them: not invited, not deleted; mended, all is as before."""
    organisation.sync()
    organisation.set_email(7, "k3Jx9sub0keyed")
    assert organisation.sync().set_aside == 2
    assert ("member", "7", "email") in aside(conn)
    assert candidates(conn) == set(HUNDRED) - {7}
    assert rows(conn, "SELECT email FROM members WHERE id = 7") == [("m7@example.org",)]
    assert organisation.sync().set_aside == 2
    organisation.set_email(7, "m7@example.org")
    assert organisation.sync().set_aside == 0
    assert candidates(conn) == set(HUNDRED)


def test_an_address_of_one_who_is_set_aside(organisation: Organisation, conn: Connection) -> None:
    """Who takes the address that a member set aside still has in the directory waits until that one can be read."""
    organisation.sync()
    organisation.set_email(7, "none")
    organisation.set_email(8, "m7@example.org")
    organisation.sync()
    assert {("member", "7", "email"), ("member", "8", "email")} <= aside(conn)
    organisation.set_email(7, "seven@example.org")
    assert organisation.sync().set_aside == 0
    assert rows(conn, "SELECT email FROM members WHERE id IN (7, 8) ORDER BY id") == [
        ("seven@example.org",),
        ("m7@example.org",),
    ]


def test_a_jump(organisation: Organisation, conn: Connection) -> None:
    """FM-44: more than 5 % and 20 members vanish: refused with the numbers, nothing written, until accepted."""
    organisation.sync()
    organisation.delete(*range(1, 22))
    with pytest.raises(RefusedError, match=r"member: 0 appear and 21 vanish, of 100"):
        organisation.sync()
    assert candidates(conn) == set(HUNDRED)
    assert organisation.sync(accept=True).changes["member"].removed == 21
    assert candidates(conn) == set(HUNDRED) - set(range(1, 22))
    organisation.add(*range(1001, 1022))
    with pytest.raises(RefusedError, match="21 appear"):
        organisation.sync()


def test_no_jump(organisation: Organisation) -> None:
    """Twenty are no jump, whatever their share."""
    organisation.sync()
    organisation.delete(*range(1, 21))
    assert organisation.sync().changes["member"].removed == 20


def test_nothing_where_there_was_something(organisation: Organisation, conn: Connection) -> None:
    """A query that returns nothing is refused however few rows there were, at the first snapshot, too."""
    load(conn, *(member(number) for number in (1001, 1002)))
    organisation.delete(*HUNDRED)
    with pytest.raises(RefusedError, match=r"member: none, where there were 2"):
        organisation.sync()
    assert rows(conn, "SELECT count(*) FROM members WHERE deleted_at IS NULL") == [(2,)]


def test_subscriptions_that_go_with_a_group(planner: Planner) -> None:
    """They count for the guard: one group is no jump, the hundred members on it are."""
    planner.execute("INSERT INTO groups (chapter_id, name) VALUES (1, 'Coaches')")
    planner.execute("INSERT INTO subscriptions (member_id, group_id) VALUES (1, 2)")
    planner.sync()
    planner.execute("DELETE FROM groups WHERE id = 1")
    with pytest.raises(RefusedError, match=r"subscription: 0 appear and 100 vanish, of 101"):
        planner.sync()


def test_an_import_by_hand_between(planner: Planner, conn: Connection) -> None:
    """What it changed is put right by the next snapshot."""
    planner.sync()
    load(conn, member(1, name="By hand"), member(500))
    changed = planner.sync().changes["member"]
    assert (changed.added, changed.changed, changed.removed) == (0, 1, 1)
    assert rows(conn, "SELECT name FROM members WHERE id = 1") == [("M1",)]


def test_a_ban_that_cannot_be_read(planner: Planner, conn: Connection) -> None:
    """Its member is not invited until it can be read."""
    planner.execute("INSERT INTO bans (member_id, expires_at) VALUES (9, 'infinity')")
    planner.sync()
    assert {("ban", "1", "expires_at"), ("member", "9", None)} <= aside(conn)
    assert 9 not in candidates(conn)


def test_planner_traps(planner: Planner, conn: Connection) -> None:
    """Each awkward row that planner is known to hold: used as it is meant, or set aside by name."""
    run = planner.execute
    run("INSERT INTO chapters (name, email, time_zone) VALUES ('US', 'us@x.org', 'Eastern Time (US & Canada)')")
    run("INSERT INTO chapters (name, email, time_zone) VALUES ('Oslo', NULL, 'Europe/Oslo')")
    run(
        "INSERT INTO groups (chapter_id, name) "
        "VALUES (1, 'Students'), (NULL, 'Students'), (1, 'Alumni'), (1, 'Coaches')"
    )
    run("UPDATE members SET name = NULL, surname = NULL WHERE id = 11")
    run("UPDATE members SET name = E'Zoë\\r\\nBcc: x@y.z' WHERE id = 12")
    run("UPDATE members SET email = NULL WHERE id = 13")
    run("UPDATE members SET email = 'subkeyed.15.deactivated@codebar.io' WHERE id = 15")
    run("UPDATE members SET email = 'duplicate.16.merged-into.17@codebar.io' WHERE id = 16")
    run("UPDATE members SET email = 'deleted_user_20260901101010@codebar.io' WHERE id = 18")
    run("UPDATE members SET email = 'M19@Example.org' WHERE id = 20")
    run("INSERT INTO bans (member_id, expires_at, permanent) VALUES (23, '2020-01-01', true), "
        "(24, '2020-01-01', false), (24, '2095-01-01', false), (25, NULL, false), (NULL, '2020-01-01', true), "
        "(999999, '2020-01-01', true), (26, '2020-01-01', false)")  # fmt: skip
    run("INSERT INTO subscriptions (member_id, group_id) VALUES (999999, 1), (26, 999), (NULL, 1), (27, NULL), (28, 2)")
    run("INSERT INTO subscriptions (member_id, group_id, discarded_at) VALUES (28, 1, localtimestamp)")
    run("UPDATE subscriptions SET discarded_at = localtimestamp WHERE member_id = 29")
    run("INSERT INTO sponsors (name) VALUES ('Second'), ('Empty')")
    run("INSERT INTO addresses (sponsor_id, street, city) VALUES (2, '2 Street', 'Berlin'), (3, '', NULL)")
    run("INSERT INTO workshop_sponsors (workshop_id, sponsor_id, host) VALUES (1, 2, true)")
    run("INSERT INTO workshops (chapter_id, date_and_time, ends_at) VALUES (NULL, '2096-01-01', '2096-01-01'), "
        "(1, NULL, NULL), (1, '2096-01-03', NULL), (1, '2096-01-05', '2096-01-04')")  # fmt: skip
    run("INSERT INTO workshop_sponsors (workshop_id, sponsor_id, host) VALUES (4, 3, true)")
    run("INSERT INTO events (name, slug, date_and_time, ends_at, invitable, audience, virtual, time_zone) "
        "VALUES ('Talk', 'talk', '2096-07-01 18:00', '2096-07-01 20:00', true, 'Coaches', true, 'London')")  # fmt: skip
    run("INSERT INTO chapters_events (chapter_id, event_id) VALUES (1, 1), (1, 1)")
    run("INSERT INTO workshop_invitations (workshop_id, member_id, role, token, attending, source, created_at) VALUES "
        "(1, 30, 'Student', 'tokA', NULL, NULL, '2026-01-01'), (1, 30, 'Coach', 'tokB', false, NULL, '2026-01-01'), "
        "(1, 31, NULL, 'tokC', NULL, NULL, '2026-01-01'), (1, 33, 'Student', 'tokD', true, 'check_in', '2026-01-01'), "
        "(1, 34, 'Student', 'tokE', NULL, NULL, '2026-01-01'), (1, 35, 'Coach', 'tokF', NULL, NULL, '2026-01-01')"
    )  # fmt: skip
    run("INSERT INTO invitation_logs (loggable_type, loggable_id, audience, status, created_at, updated_at) "
        "VALUES ('Workshop', 1, 'students', 'failed', now(), now())")  # fmt: skip
    run("INSERT INTO invitation_log_entries (invitation_log_id, member_id, invitation_type, invitation_id, status, "
        "created_at, updated_at) SELECT 1, member_id, 'WorkshopInvitation', id, 'failed', now(), now() "
        "FROM workshop_invitations WHERE token = 'tokE'")  # fmt: skip
    planner.sync()
    assert aside(conn) == {
        ("chapter", "3", "email"),
        ("group", "3", "chapter_id"),
        ("group", "4", "name"),
        ("member", "13", "email"),
        ("subscription", "13/1", "member_id"),
        ("ban", "6", "member_id"),
        ("subscription", "999999/1", "member_id"),
        ("subscription", "26/999", "group_id"),
        ("subscription", "?/1", "member_id"),
        ("subscription", "27/?", "group_id"),
        ("event", "9", "chapter_ids"),
        ("event", "13", "starts_at"),
        ("event", "21", "ends_at"),
        ("invitation", "5/31/?", "role"),
    }
    assert rows(conn, "SELECT name FROM members WHERE id IN (11, 12) ORDER BY id") == [
        ("Member",),
        ("Zoë\r\nBcc: x@y.z",),
    ]
    gone = {number for (number,) in rows(conn, "SELECT id FROM members WHERE deleted_at IS NOT NULL")}
    # Deleted before they were ever known here: no row.
    assert gone == set()
    assert candidates(conn) == set(HUNDRED) - {13, 15, 16, 18, 23, 24, 25, 29}
    assert rows(conn, "SELECT id, time_zone FROM chapters ORDER BY id") == [
        (1, "Europe/Berlin"),
        (2, "America/New_York"),
    ]
    assert rows(conn, "SELECT id, host_name, ref, audience FROM events ORDER BY id") == [
        (5, "Host", "workshop/1", None),
        (6, "Online", "event/1", "coaches"),
        (17, None, "workshop/4", None),
    ]
    assert rows(conn, "SELECT token, role FROM invitations ORDER BY token") == [
        ("tokA", "Student"), ("tokB", "Coach"), ("tokD", "Student"), ("tokE", "Student"), ("tokF", "Coach"),
    ]  # fmt: skip
    assert {number for (number,) in rows(conn, "SELECT member_id FROM deliveries WHERE state = 'sent'")} == {30, 35}


@pytest.mark.parametrize(
    ("zone", "summer", "winter"),
    [("UTC", "18:30", "18:30"), ("Europe/London", "17:30", "18:30"), ("America/New_York", "22:30", "23:30")],
)
def test_zoneless_times(
    planner: Planner, conn: Connection, settings: Settings, zone: str, summer: str, winter: str
) -> None:
    """They are in the zone of the source, in summer, in winter and in the night in which the clocks change."""
    planner.execute("INSERT INTO workshops (chapter_id, date_and_time) VALUES (1, '2096-12-09 18:30')")
    sync_once(settings, planner.source(zone), "test", accept=False)
    assert rows(conn, "SELECT to_char(starts_at AT TIME ZONE 'UTC', 'HH24:MI') FROM events ORDER BY starts_at") == [
        (summer,),
        (winter,),
    ]


def test_a_wrong_zone(planner: Planner, conn: Connection) -> None:
    """Rows made now that seem to be from the future: refused, and the zone is named."""
    planner.execute(
        "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, created_at) "
        "VALUES (1, 1, 'Student', 'tok', (now() AT TIME ZONE 'Asia/Tokyo'))"
    )
    with pytest.raises(InputError, match=r"in the future .* BIDDEN_SOURCE_TIME_ZONE=UTC") as caught:
        planner.sync()
    assert caught.value.field == "sent_at"
    assert rows(conn, "SELECT count(*) FROM members") == [(0,)]


def test_a_role_that_changes(planner: Planner, conn: Connection) -> None:
    """A member changes the role of their own invitation: it keeps its token, also after it was mailed."""
    planner.execute(
        "INSERT INTO workshop_invitations (workshop_id, member_id, role, token, created_at) "
        "VALUES (1, 1, 'Student', 'tok', '2026-01-01')"
    )
    planner.sync()
    planner.execute("UPDATE workshop_invitations SET role = 'Coach', attending = true")
    snapshot = planner.sync()
    assert snapshot.set_aside == 0
    assert rows(conn, "SELECT role, token, attending FROM invitations") == [("Coach", "tok", True)]
    assert planner.sync().set_aside == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE members DROP COLUMN surname", r"query member fails in the source: column .*surname"),
        ("DROP TABLE invitation_log_entries", r"query invitation fails in the source"),
        (
            "ALTER TABLE members ALTER COLUMN accepted_toc_at TYPE text",
            r"query member: accepted_toc_at has the type text",
        ),
    ],
)
def test_a_column_that_went_away(planner: Planner, conn: Connection, change: Any, expected: str) -> None:
    """The query is named; nothing changes, and pages can say why."""
    planner.sync()
    planner.delete(1)
    planner.execute(change)
    with pytest.raises(InputError, match=expected):
        planner.sync()
    assert candidates(conn) == set(HUNDRED)
    ((problem,),) = rows(conn, "SELECT problem FROM directory_source")
    assert "query" in problem


def test_a_statement_that_writes(own_database: str, planner: Planner) -> None:
    """A source file can write nothing: not by a statement, a CTE, a second statement or a function."""
    planner.execute("CREATE FUNCTION bad() RETURNS bigint LANGUAGE sql AS 'DELETE FROM members RETURNING 1::bigint'")
    for query in (
        "DELETE FROM members RETURNING id, name, email",
        "WITH x AS (DELETE FROM members RETURNING id, name, email) SELECT * FROM x",
        "SELECT id, name, email FROM members) q; COMMIT; DELETE FROM members; SELECT (1",
        "SELECT bad() AS id, ''::text AS name, ''::text AS email",
    ):
        source = planner.source()
        source.queries["member"] = replace(source.queries["member"], text=query)
        with pytest.raises(InputError, match="query member"):
            sync_once(planner._settings, source, "test", accept=False)
        assert planner.execute("SELECT count(*) FROM members") == [(100,)]


def test_a_source_that_is_away(planner: Planner, conn: Connection) -> None:
    """The address is named without its password."""
    source = replace(planner.source(), url="postgresql://reader:secret@127.0.0.1:1/planner")
    with pytest.raises(UnreachableError) as caught:
        sync_once(planner._settings, source, "test", accept=False)
    assert "127.0.0.1:1" in caught.value.detail
    assert "secret" not in caught.value.detail
    planner.sync()
    with pytest.raises(UnreachableError):
        sync_once(planner._settings, source, "test", accept=False)
    ((problem,),) = rows(conn, "SELECT problem FROM directory_source")
    assert "the source cannot be used at" in problem
    assert "secret" not in problem
    planner.sync()
    assert rows(conn, "SELECT problem FROM directory_source") == [(None,)]


def test_the_reader_needs_to_read_alone(planner: Planner, own_database: str) -> None:
    """A role that may read these tables, and nothing else, suffices."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    planner.conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
    planner.conn.execute(
        sql.SQL(
            "GRANT SELECT ON chapters, groups, members, subscriptions, bans, sponsors, addresses, workshops, "
            "workshop_sponsors, events, chapters_events, workshop_invitations, invitations, "
            "invitation_log_entries TO {}"
        ).format(sql.Identifier(name))
    )
    url = psycopg.conninfo.make_conninfo(own_database, user=name, password="x")
    where = psycopg.conninfo.conninfo_to_dict(url)
    address = f"postgresql://{name}:x@{where['host']}:{where['port']}/{where['dbname']}"
    try:
        sync_once(planner._settings, replace(planner.source(), url=address), "test", accept=False)
    finally:
        planner.conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_two_at_once_end_in_the_newer(planner: Planner, conn: Connection) -> None:
    """A snapshot that began before the one that was taken last is refused."""
    planner.sync()
    conn.execute("UPDATE directory_source SET began_at = now() + interval '1 hour'")
    with pytest.raises(RefusedError, match="began later"):
        planner.sync()
    # A standby that has replayed nothing meanwhile cannot say it to the millisecond.
    conn.execute("UPDATE directory_source SET began_at = now() + interval '0.5 seconds'")
    planner.sync()


def test_shapes_differ(settings: Settings, own_database: str, conn: Connection) -> None:
    """The club's file is in another order, ends with a semicolon, and has `:zone` in a text."""
    with closing(Club(settings, own_database)) as club:
        club.add(1)
        assert club.sync().read["member"] == 1
    assert rows(conn, "SELECT name FROM chapters") == [("The club; its :zone is no parameter in a text",)]
