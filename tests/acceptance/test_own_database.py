"""A campaign from an organisation's own database: what changes there holds here within the age of a snapshot."""

from __future__ import annotations

import email
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from email import policy
from random import Random

import pytest

from config.settings import Settings
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden, Process, eventually
from tests.organisations.databases import own_database
from tests.organisations.organisation import PLANNER, Planner

pytestmark = pytest.mark.slow

MEMBERS = 60
MAX_AGE = "5s"


@pytest.fixture
def planner(settings: Settings, bidden: Bidden) -> Iterator[Planner]:
    """With members on the list, as the source of the commands."""
    with own_database(settings.require_database()) as url, closing(Planner(settings, url)) as planner:
        planner.add(*range(1, MEMBERS + 1))
        yield planner


@pytest.fixture
def source(planner: Planner) -> dict[str, str]:
    """The variables that name it."""
    return {
        "BIDDEN_SOURCE_URL": planner.url,
        "BIDDEN_SOURCE_FILE": str(PLANNER),
        "BIDDEN_SOURCE_TIME_ZONE": "London",
        "BIDDEN_SOURCE_MAX_AGE": MAX_AGE,
    }


def syncing(bidden: Bidden, source: dict[str, str]) -> Process:
    """A process that takes a snapshot each second."""
    return bidden.start("sync", "--every", "1s", **source)


def test_what_changes_after_planning(bidden: Bidden, books: Books, planner: Planner, source: dict[str, str]) -> None:
    """FM-44: banned, gone from the list or deleted after planning: no mail. With sync stopped nobody; then the rest."""
    planner.execute("UPDATE members SET email = 'no address' WHERE id = 60")
    result = bidden.run("sync", "--json", env=source, code=1).json
    assert result["read"]["member"] == MEMBERS
    assert result["set_aside"] == 2
    sync = syncing(bidden, source)
    batch = bidden.invite(event=planner.event_id)
    assert batch["planned"] == MEMBERS - 1
    # Nothing is mailed before the changes: they come while everything waits for a worker.
    planner.ban(1)
    planner.leave(2)
    planner.delete(3)
    seen = books.conn.execute("SELECT clock_timestamp() AS at").fetchone()
    assert seen is not None
    eventually(
        lambda: bool(books.conn.execute("SELECT FROM directory_source WHERE began_at > %s", (seen["at"],)).fetchall()),
        "a snapshot with the changes",
    )
    sync.kill()
    eventually(
        lambda: bool(
            books.conn.execute(
                "SELECT FROM directory_source WHERE began_at + max_age_seconds * interval '1 second' < now()"
            ).fetchall()
        ),
        "the snapshot is too old",
    )
    worker = bidden.worker().ready()
    dispatcher = bidden.dispatcher()
    # Messages that are on the topic already reach the worker, which claims nothing.
    due = "SELECT count(*) AS n FROM batch_items WHERE publish_at IS NOT NULL"
    eventually(lambda: books.conn.execute(due).fetchall() == [{"n": MEMBERS - 4}], "all others are due again")
    assert books.sink.count() == 0
    assert set(books.attempts(event=planner.event_id).values()) == {0}
    syncing(bidden, source)
    books.wait_completed(batch["batch_id"])
    assert books.mails(event=planner.event_id).keys() == {
        (number, "member") for number in range(1, MEMBERS) if number not in (1, 2, 3)
    }
    log = {line["member_id"]: line["reason"] for line in bidden.run("log", str(batch["batch_id"]), "--json").lines}
    assert (log[1], log[2], log[3]) == ("banned", "left_list", "member_deleted")
    assert books.audit(event=planner.event_id)["balanced"]
    dispatcher.signal(signal.SIGTERM)
    worker.signal(signal.SIGTERM)


def test_the_source_is_away(bidden: Bidden, planner: Planner, source: dict[str, str]) -> None:
    """At start: exit 3. Later the process waits for it, and takes a snapshot when it is back."""
    away = source | {"BIDDEN_SOURCE_URL": "postgresql://reader:hush-hush@127.0.0.1:1/planner"}
    bidden.secrets.add("hush-hush")
    error = bidden.run("sync", "--json", env=away, code=3).error
    assert "127.0.0.1:1" in error["detail"]
    sync = syncing(bidden, source)
    planner.execute("ALTER TABLE members RENAME COLUMN email TO mail")
    assert sync.end() == 2
    planner.execute("ALTER TABLE members RENAME COLUMN mail TO email")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"BIDDEN_SOURCE_TIME_ZONE": "Nowhere"}, "BIDDEN_SOURCE_TIME_ZONE"),
        ({"BIDDEN_SOURCE_TIME_ZONE": ""}, "BIDDEN_SOURCE_TIME_ZONE"),
        ({"BIDDEN_SOURCE_FILE": "/nowhere.sql"}, "BIDDEN_SOURCE_FILE"),
        ({"BIDDEN_SOURCE_MAX_AGE": "soon"}, "BIDDEN_SOURCE_MAX_AGE"),
        ({"BIDDEN_SOURCE_URL": "mysql://x"}, "BIDDEN_SOURCE_URL"),
    ],
)
def test_wrong_settings(bidden: Bidden, source: dict[str, str], change: dict[str, str], field: str) -> None:
    """Refused by name."""
    assert bidden.run("sync", "--json", env=source | change, code=2).error["field"] == field


def test_check_and_end(bidden: Bidden, books: Books, planner: Planner, source: dict[str, str]) -> None:
    """A check writes nothing and names the lines; --end forgets the source."""
    planner.execute("UPDATE members SET email = NULL WHERE id = 5")
    found = bidden.run("sync", "--check", "--json", env=source, code=1).json
    assert found["changed"]["member"]["added"] == MEMBERS - 1
    assert {(line["type"], line["key"], line["field"]) for line in found["lines"]} == {
        ("member", "5", "email"),
        ("subscription", "5/1", "member_id"),
    }
    assert not books.conn.execute("SELECT FROM members UNION ALL SELECT FROM directory_source").fetchall()
    bidden.run("sync", env=source, code=1)
    assert bidden.run("sync", "--end", "--json", env=source).json == {"ended": True}
    assert bidden.run("sync", "--end", "--json", env=source).json == {"ended": False}


def test_a_rival_at_the_same_time(bidden: Bidden, books: Books, planner: Planner, source: dict[str, str]) -> None:
    """FM-45: planner's own batch runs beside ours: each member is mailed by one, with a link to the row in planner."""
    source = source | {"BIDDEN_SOURCE_WRITER_URL": planner.url}
    bidden.run("sync", env=source)
    syncing(bidden, source)
    bidden.dispatcher()
    bidden.worker().ready()
    members = list(range(1, MEMBERS + 1))
    Random(7).shuffle(members)
    quarter = MEMBERS // 4

    def rival(numbers: list[int]) -> set[int]:
        """Whom they mail: for whom they made a row."""
        mailed = set()
        for number in numbers:
            if planner.invite(number, f"rival-{number}"):
                mailed.add(number)
            time.sleep(0.02)
        return mailed

    theirs = rival(members[:quarter])
    assert len(theirs) == quarter
    with ThreadPoolExecutor(1) as pool:
        invite = bidden.start("invite", str(planner.event_id), "--audience", "students", "--json")
        eventually(lambda: bool(books.conn.execute("SELECT id FROM batches").fetchall()), "the batch is planned")
        theirs |= pool.submit(rival, members[quarter : 3 * quarter]).result()
    assert invite.end() == 0
    books.wait_completed(1)
    assert rival(members) == set()
    ours = {number for number, _ in books.mails(event=planner.event_id)}
    assert (ours | theirs, ours & theirs) == (set(members), set())
    books.check(event=planner.event_id)
    log = {line["member_id"]: line for line in bidden.run("log", "1", "--json").lines}
    assert {number for number, line in log.items() if line["status"] == "sent"} == ours
    assert {line["reason"] for number, line in log.items() if number in theirs} == {"already_sent"}
    # Planner's own log has it, too.
    counts = "SELECT success_count, skipped_count, failure_count FROM invitation_logs WHERE status = 'completed'"
    eventually(lambda: planner.execute(counts) == [(len(ours), len(theirs), 0)], "planner's log has every outcome")
    # The link of each mail leads to planner's row, which was there before the mail arrived.
    found = planner.execute("SELECT member_id, token, created_at AT TIME ZONE 'UTC' FROM workshop_invitations")
    rows = {number: (token, made) for number, token, made in found}
    assert len(rows) == MEMBERS
    for mail in books.sink.mails():
        parsed = email.message_from_bytes(mail.data, policy=policy.default)
        token, made = rows[int(parsed["X-Bidden-Delivery"].split("/")[2])]
        body = parsed.get_body(("plain",))
        assert body is not None
        assert f"https://codebar.io/invitation/{token}" in body.get_content()
        assert made <= mail.received_at + timedelta(seconds=1)
